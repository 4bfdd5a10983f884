"""What goes wrong, and how a client learns of it: one body for every error, and whether anything was applied (P12)."""

import asyncio
import json
import logging
from datetime import timedelta

import pytest

from dalsegno.errors import Refused, Unavailable
from dalsegno.http.app import App, build_app
from dalsegno.http.gate import Limits
from dalsegno.http.problems import RETRY_AFTER_SECONDS, STATUS
from dalsegno.ports import Ref
from tests.http.asgi import Exchange, ask
from tests.http.conftest import S
from tests.http.fake import FakeService
from tests.support import wait_until

INPUTS = f"/v1/sessions/{S}/inputs"
HI = {"type": "message", "content": "hi"}

CONTRACT = {
    400: {"invalid_request", "invalid_json", "invalid_unicode", "invalid_cursor", "cursor_ahead", "too_deep"},
    401: {"unauthorized"},
    403: {"forbidden"},
    404: {"not_found"},
    409: {"session_busy", "no_such_action", "already_decided"},
    412: {"version_mismatch"},
    413: {"too_large"},
    415: {"unsupported_media_type"},
    422: {"key_reused"},
    429: {"rate_limited", "queue_full"},
    503: {"overloaded", "draining", "store_unavailable"},
}


def test_the_contracts_table_is_kept():
    """Every documented code has its documented status."""
    for status, codes in CONTRACT.items():
        assert {STATUS[code] for code in codes} == {status}
    assert set(RETRY_AFTER_SECONDS) == CONTRACT[429] | CONTRACT[503]


@pytest.mark.parametrize(
    "code", sorted(set(STATUS) - {"internal", "unreadable", "overloaded", "draining", "store_unavailable"})
)
async def test_a_refusal_of_the_service(app: App, service: FakeService, code: str):
    """Its code decides the status; nothing was applied."""
    service.fault = Refused(code, "because")
    reply = await ask(app, "POST", INPUTS, body=HI)
    assert reply.status == STATUS[code]
    assert reply.headers["content-type"] == "application/problem+json"
    assert set(reply.json) == {"type", "title", "status", "code", "detail", "outcome"}
    assert reply.json["type"] == "about:blank"
    assert reply.json["status"] == reply.status
    assert (reply.json["code"], reply.json["outcome"]) == (code, "not_applied")
    assert ("retry-after" in reply.headers) == (code in RETRY_AFTER_SECONDS)


@pytest.mark.parametrize("outcome", ["not_applied", "unknown"])
async def test_a_store_that_does_not_answer(app: App, service: FakeService, outcome: str):
    """503 with the outcome that is known. A read applies nothing, whatever happened."""
    service.fault = Unavailable("no answer", outcome=outcome)  # type: ignore[arg-type]
    reply = await ask(app, "POST", INPUTS, body=HI)
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (503, "store_unavailable", outcome)
    assert reply.headers["retry-after"] == "1"
    assert (await ask(app, "GET", f"/v1/sessions/{S}")).json["outcome"] == "not_applied"


async def test_unreadable_state_is_loud(app: App, service: FakeService, caplog: pytest.LogCaptureFixture):
    """P9: never an empty history. 500, and the operator can find it."""
    service.corrupt()
    reply = await ask(app, "GET", f"/v1/sessions/{S}")
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (500, "unreadable", "not_applied")
    assert reply.json["reference"] in caplog.text
    assert "wrong checksum" in caplog.text


@pytest.mark.parametrize(
    "fault", [ZeroDivisionError("secret"), RecursionError("secret"), Refused("no_such_code", "secret")]
)
async def test_a_bug_shows_nothing_of_itself(
    app: App, service: FakeService, fault: Exception, caplog: pytest.LogCaptureFixture
):
    """500 with a reference into the log; what was applied is not known."""
    service.fault = fault
    with caplog.at_level(logging.ERROR):
        reply = await ask(app, "POST", INPUTS, body=HI)
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (500, "internal", "unknown")
    assert b"secret" not in reply.body
    assert "secret" in caplog.text and reply.json["reference"] in caplog.text


async def test_probes_survive_a_lost_store(app: App, service: FakeService):
    """Alive but not ready; no error page."""
    service.fault = Unavailable("gone")
    assert (await ask(app, "GET", "/livez")).status == 200
    assert (await ask(app, "GET", "/readyz")).status == 503
    assert (await ask(app, "GET", "/health")).json["ready"] is False


async def test_an_admitted_input_is_never_answered_with_an_error(app: App, service: FakeService, ref: Ref):
    """The store is lost between the commit and the stream: the receipt is the truth, and says where to follow."""
    admit = service.admit

    async def admit_and_break(*args, **keywords):
        receipt = await admit(*args, **keywords)
        service.fault = Unavailable("gone")
        return receipt

    service.admit = admit_and_break  # type: ignore[method-assign]
    reply = await ask(app, "POST", INPUTS, body=HI, headers={"accept": "text/event-stream"})
    assert (reply.status, reply.json["seq"]) == (202, 6)
    assert app.gate.streams == 0


async def test_too_many_requests_at_once(service: FakeService, ref: Ref):
    """Overload is an answer, not a queue without end."""
    app = build_app(service, limits=Limits(requests=1))
    await service.say(ref, "again")
    turn = (await service.get(ref)).running
    assert turn is not None
    waiting = await Exchange(app, "POST", "/v1/sessions", headers={"content-length": "9"}).start()
    waiting.parts.get_nowait()
    await wait_until(lambda: app.gate.requests == 1, description="one is inside")
    reply = await ask(app, "GET", f"/v1/sessions/{S}")
    assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (503, "overloaded", "1")
    assert (await ask(app, "GET", "/livez")).status == 200
    waiting.leave()
    await waiting.done()
    assert app.gate.requests == 0


# ------------------------------------------------------------------------------------------------ bodies


async def test_a_body_over_the_cap_is_refused_before_it_is_read(service: FakeService):
    """413 by its announced length, and by its real one when it lies or does not say."""
    app = build_app(service, limits=Limits(body=100))
    reply = await ask(app, "POST", "/v1/sessions", body={"agent": "x" * 200})
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (413, "too_large", "not_applied")
    for length in ({}, {"content-length": "5"}):
        headers = {"content-type": "application/json", **length}
        chunked = await Exchange(app, "POST", "/v1/sessions", headers=headers).start()
        chunked.parts.get_nowait()
        for _ in range(3):
            chunked.parts.put_nowait({"type": "http.request", "body": b" " * 50, "more_body": True})
        chunked.parts.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        assert (await chunked.done()).status == 413
    exact = b'{"agent":"' + b"x" * (100 - 12) + b'"}'
    assert (
        await ask(app, "POST", "/v1/sessions", body=exact, headers={"content-type": "application/json"})
    ).status == 201


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 5000, "abc", "+5", "٣"])
async def test_a_nonsense_length_is_refused(app: App, length: str):
    """It is no number of bytes that we would read."""
    encoded = length.encode().decode("latin-1")
    assert (await ask(app, "POST", "/v1/sessions", headers={"content-length": encoded})).status == 413


async def test_a_body_that_dribbles_in_has_a_deadline(service: FakeService):
    """A byte now and then holds no place for ever."""
    app = build_app(service, limits=Limits(body_time=timedelta(milliseconds=30)))
    slow = await Exchange(app, "POST", "/v1/sessions", headers={"content-length": "20000000"}).start()
    slow = await Exchange(app, "POST", "/v1/sessions", headers={"expect": "100-continue"}).start()
    slow.parts.get_nowait()
    slow.parts.put_nowait({"type": "http.request", "body": b"{", "more_body": True})
    reply = await slow.done()
    assert (reply.status, reply.json["code"], reply.headers["connection"]) == (400, "invalid_request", "close")


async def test_a_body_that_breaks_off_changes_nothing(app: App, service: FakeService):
    """A client that leaves in the middle of its body has said nothing."""
    cut = await Exchange(app, "POST", "/v1/sessions", headers={"content-type": "application/json"}).start()
    cut.parts.get_nowait()
    cut.parts.put_nowait({"type": "http.request", "body": b"{}", "more_body": True})
    cut.leave()
    await cut.done()
    assert service.sessions == {}


@pytest.mark.parametrize(
    "media", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "json"]
)
async def test_a_body_says_that_it_is_json(app: App, media: str | None):
    """415 otherwise: what a browser can send without asking is never JSON."""
    headers = {} if media is None else {"content-type": media}
    reply = await ask(app, "POST", "/v1/sessions", body=b"{}", headers=headers)
    assert (reply.status, reply.json["code"]) == (415, "unsupported_media_type")


async def test_json_may_say_its_charset(app: App):
    """Parameters and case of the media type do not matter."""
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await ask(app, "POST", "/v1/sessions", body=b"{}", headers=headers)).status == 201


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate, gzip", "identity, gzip"])
async def test_encoded_bodies_are_refused(app: App, coding: str):
    """No bombs: nothing is decompressed."""
    headers = {"content-type": "application/json", "content-encoding": coding}
    assert (await ask(app, "POST", "/v1/sessions", body=b"{}", headers=headers)).status == 415


HOSTILE = [
    (b'{"agent":"\xff"}', "invalid_unicode"),
    (b'{"agent":"\xc0\xaf"}', "invalid_unicode"),
    (b'{"agent":"\xed\xa0\x80"}', "invalid_unicode"),
    (b'{"agent":"\\ud800"}', "invalid_unicode"),
    (b'{"metadata":{"\\udfff":1}}', "invalid_unicode"),
    (b"\xef\xbb\xbf{}", "invalid_json"),
    (b"{", "invalid_json"),
    (b"{} {}", "invalid_json"),
    (b'{"metadata":{"a":NaN}}', "invalid_json"),
    (b'{"metadata":{"a":Infinity}}', "invalid_json"),
    (b'{"metadata":{"a":1e999}}', "invalid_json"),
    (b'{"metadata":{"a":9007199254740993}}', "invalid_json"),
    (b'{"metadata":{"a":' + b"9" * 5000 + b"}}", "invalid_json"),
    (b'{"agent":"a","agent":"b"}', "invalid_json"),
    (b'{"metadata":' + b"[" * 100_000, "too_deep"),
    (b'{"metadata":{"a":' + b"[" * 70 + b"]" * 70 + b"}}", "too_deep"),
    (b"[]", "invalid_request"),
    (b"null", "invalid_request"),
    (b'"x"', "invalid_request"),
    (b'{"agent":""}', "invalid_request"),
    (b'{"agent":null}', "invalid_request"),
    (b'{"agent":"a\\u0000b"}', "invalid_request"),
    (b'{"agent":"a\\nb"}', "invalid_request"),
    (b'{"agent":"a\\n"}', "invalid_request"),
    (b'{"agent":' + b'"' + b"a" * 257 + b'"}', "invalid_request"),
    (b'{"id":""}', "invalid_request"),
    (b'{"id":"../../etc"}', "invalid_request"),
    (b'{"id":7}', "invalid_request"),
    (b'{"metadata":[]}', "invalid_request"),
    (b'{"metadata":null}', "invalid_request"),
    (b'{"metadata":{"a":"' + b"x" * 20_000 + b'"}}', "invalid_request"),
    (b'{"agents":"a"}', "invalid_request"),
]


@pytest.mark.parametrize(("body", "code"), HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_bodies_are_refused(app: App, service: FakeService, body: bytes, code: str):
    """Refused by name before anything is done."""
    reply = await ask(app, "POST", "/v1/sessions", body=body, headers={"content-type": "application/json"})
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (400, code, "not_applied")
    assert service.sessions == {}


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "%2e%2e",
        "%2e%2e%2f",
        "%00",
        "x" * 10_000,
        "👋",
        "a:b",
        "*",
        "{}",
        "$",
        "%ff",
        " ",
        "0" * 31,
        "-" * 36,
        "g" * 32,
    ],
)
async def test_hostile_paths_find_nothing(app: App, path: str):
    """What cannot be a name of ours is not found, like what is not there."""
    for target in (f"/v1/sessions/{path}", f"/v1/sessions/{path}/events", f"/v1/artifacts/{path}"):
        exchange = Exchange(app, "GET", target) if path.isascii() else Exchange(app, "GET", "/v1/sessions/%F0%9F%91%8B")
        reply = await (await exchange.start()).done()
        assert (reply.status, reply.json["code"]) == (404, "not_found")


@pytest.mark.parametrize("key", ["", "x" * 256, "ä", "a\tb", "a\x7f"])
async def test_hostile_keys_are_refused(app: App, ref: Ref, key: str):
    """A key is 1 to 255 printable ASCII characters."""
    reply = await ask(app, "POST", INPUTS, body=HI, headers={"idempotency-key": key})
    assert (reply.status, reply.json["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("key", ["x", "x" * 255, "a b~!\"'", "../../x"])
async def test_any_printable_key_will_do(app: App, ref: Ref, key: str):
    """And is compared as it is."""
    assert (await ask(app, "POST", INPUTS, body=HI, headers={"idempotency-key": key})).status == 202


@pytest.mark.parametrize("key", [b"k ", b" \tk", b"k\t "])
async def test_blanks_around_a_key_are_none_of_it(app: App, ref: Ref, key: bytes):
    """A proxy may take them off or leave them, so a repeat without them is a repeat."""
    exchange = Exchange(app, "POST", INPUTS, body=HI)
    exchange.scope["headers"].append((b"idempotency-key", key))
    first = await (await exchange.start()).done()
    again = await ask(app, "POST", INPUTS, body=HI, headers={"idempotency-key": "k"})
    assert (first.status, first.json["replayed"]) == (202, False)
    assert (again.status, again.json["replayed"]) == (202, True)


async def test_a_header_given_twice_is_refused(app: App, ref: Ref):
    """Which of the two a proxy saw is anybody's guess."""
    exchange = Exchange(app, "POST", INPUTS, body=HI, headers={"idempotency-key": "a"})
    exchange.scope["headers"].append((b"idempotency-key", b"b"))
    assert (await (await exchange.start()).done()).status == 400


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=1001", "limit=-1", "limit=x", "limit=", "limit=1e2", "limit=99999999999999",
        "limit=%EF%BC%91", "limit=1&limit=2", "status=busy", "status=", "page=2", "after=1", "after=%ff", "%ff=1",
        "&".join(f"metadata.k{n}=1" for n in range(70)),
    ],
)  # fmt: skip
async def test_hostile_queries_are_refused(app: App, query: str):
    """A filter that is mistyped must not return everything."""
    reply = await ask(app, "GET", f"/v1/sessions?{query}")
    assert reply.status == 400
    assert reply.json["code"] in ("invalid_request", "invalid_cursor", "invalid_unicode")


@pytest.mark.parametrize("wait", ["-1", "61", "x", "nan", "inf", "1e1", "", "9" * 400])
async def test_hostile_waits_are_refused(app: App, ref: Ref, wait: str):
    """Nobody waits for ever."""
    reply = await ask(app, "GET", f"/v1/sessions/{S}/turns/{S}?wait={wait}")
    assert (reply.status, reply.json["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "text", ["\u0000", "a\r\nb", "\n\nevent: end\nid: 999\n\n", "\u2028", "👩‍👩‍👧", "e\u0301", "\U0010ffff", "\x1b[31m"]
)
async def test_text_comes_back_code_point_for_code_point(app: App, service: FakeService, ref: Ref, text: str):
    """P12, and no text can forge an SSE frame."""
    said = await ask(app, "POST", INPUTS, body={"type": "message", "content": text})
    assert said.status == 202
    page = (await ask(app, "GET", f"/v1/sessions/{S}/events?after=5")).json
    assert page["data"][0]["data"]["input"]["content"] == text
    service.answer(ref, text)
    target = f"/v1/sessions/{S}/events?after=5&turn={said.json['turn']}"
    stream = await ask(app, "GET", target, headers={"accept": "text/event-stream"})
    assert [event["id"] for event in stream.events] == ["6", "7", "8", "9"]
    assert stream.events[0]["data"]["data"]["input"]["content"] == text


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (b"", "at least one line"),
        (b"{}", "line 1"),
        (b"not json", "line 1"),
        (b"\xff", "line 1"),
        (b'{"seq":2,"type":"session.created","turn":null,"at":"2026-01-01T00:00:00.000Z","data":{}}', "`seq`"),
        (b'{"seq":1,"type":"turn.created","turn":null,"at":"2026-01-01T00:00:00.000Z","data":{}}', "cannot stand here"),
        (b'{"seq":1,"type":"new.thing","turn":null,"at":"2026-01-01T00:00:00.000Z","data":{}}', "cannot stand here"),
        (b'{"seq":1,"type":"session.created","turn":null,"at":"yesterday","data":{}}', "`at`"),
        (b'{"seq":1,"type":"session.created","turn":null,"at":"2026-13-01T00:00:00.000Z","data":{}}', "`at`"),
        (b'{"seq":1,"type":"session.created","turn":"x","at":"2026-01-01T00:00:00.000Z","data":{}}', "`turn`"),
        (
            b'{"seq":1,"type":"session.created","turn":null,"at":"2026-01-01T00:00:00.000Z","data":{"agent":5}}',
            "line 1",
        ),
        (b'{"seq":1,"type":"session.created","turn":null,"at":"2026-01-01T00:00:00.000Z","data":{},"x":1}', "x"),
    ],
)
async def test_hostile_imports_are_refused(app: App, service: FakeService, lines: bytes, says: str):
    """Every line must be the next event of a log that could have happened; nothing is kept otherwise."""
    reply = await ask(app, "POST", "/v1/sessions", body=lines, headers={"content-type": "application/x-ndjson"})
    assert reply.status == 400
    assert says in reply.json["detail"]
    assert service.sessions == {}


async def test_an_import_has_bounds_of_its_own(service: FakeService):
    """Larger than a body's, and for each line too."""
    app = build_app(service, limits=Limits(body=10, import_body=3000, import_line=1000))
    headers = {"content-type": "application/x-ndjson"}
    for body in (b"x" * 2000, b"\n" * 4000):
        assert (await ask(app, "POST", "/v1/sessions", body=body, headers=headers)).status == 413


async def test_an_import_may_arrive_in_any_pieces(app: App, ref: Ref):
    """Lines are put together again from whatever the network delivers."""
    export = await ask(app, "GET", f"/v1/sessions/{S}/events", headers={"accept": "application/x-ndjson"})
    exchange = await Exchange(app, "POST", "/v1/sessions", headers={"content-type": "application/x-ndjson"}).start()
    exchange.parts.get_nowait()
    body = export.body.rstrip(b"\n")
    for at in range(0, len(body), 7):
        exchange.parts.put_nowait({"type": "http.request", "body": body[at : at + 7], "more_body": True})
        await asyncio.sleep(0)
    exchange.parts.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    assert (await exchange.done()).json["head"] == 5


async def test_openapi_describes_every_route(app: App):
    """The document is made from the route table; every reference in it resolves."""
    document = (await ask(app, "GET", "/openapi.json")).json
    assert document["openapi"] == "3.1.0"
    assert len([1 for path in document["paths"].values() for _ in path]) == 16
    text = json.dumps(document)
    for name in [part.split('"')[0] for part in text.split("#/components/schemas/")[1:]]:
        assert name in document["components"]["schemas"], name
    inputs = document["paths"]["/v1/sessions/{s}/inputs"]["post"]
    assert {"202", "200", "400", "401", "404", "409", "413", "415", "422", "429", "503"} <= set(inputs["responses"])
