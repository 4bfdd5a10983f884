"""Every route as the contract says it: statuses, headers, shapes."""

import json
import re

import pytest

from dalsegno.core.ids import turn_id
from dalsegno.http.app import App
from dalsegno.ports import Ref
from tests.http.asgi import Exchange, ask
from tests.http.conftest import S
from tests.http.fake import FakeService
from tests.support import wait_until

SESSION = {
    "id": S,
    "status": "idle",
    "head": 5,
    "turn": None,
    "queued": 0,
    "agent": "default",
    "user": None,
    "metadata": {},
    "parent": None,
}
HI = {"type": "message", "content": "hi"}


async def test_create_a_session(app: App):
    """201 with the session, its ETag and where it is."""
    reply = await ask(app, "POST", "/v1/sessions", body={"agent": "a", "user": "u", "metadata": {"k": [1, None]}})
    assert reply.status == 201
    assert reply.json["agent"] == "a" and reply.json["user"] == "u" and reply.json["metadata"] == {"k": [1, None]}
    assert reply.headers["etag"] == '"1"'
    assert reply.headers["location"] == f"/v1/sessions/{reply.json['id']}"
    assert reply.headers["content-type"] == "application/json"
    assert reply.json["created_at"].endswith("Z") and len(reply.json["created_at"]) == 24


async def test_create_a_session_without_a_body(app: App):
    """Every field has a default; so has the whole."""
    assert (await ask(app, "POST", "/v1/sessions")).status == 201


async def test_create_a_session_under_a_chosen_id(app: App):
    """Any spelling of a UUID; the same one again is taken, whatever its spelling."""
    made = await ask(app, "POST", "/v1/sessions", body={"id": S.upper()})
    assert made.json["id"] == S
    again = await ask(app, "POST", "/v1/sessions", body={"id": S.replace("-", "")})
    assert (again.status, again.json["code"], again.headers["x-should-retry"]) == (409, "session_exists", "false")


async def test_read_a_session(app: App, ref: Ref):
    """The ETag is the head."""
    reply = await ask(app, "GET", f"/v1/sessions/{S}")
    assert {name: reply.json[name] for name in SESSION} == SESSION
    assert set(reply.json) == {*SESSION, "created_at", "updated_at"}
    assert reply.headers["etag"] == '"5"'
    assert reply.headers["cache-control"] == "no-store"


async def test_a_busy_session_names_its_turn_and_counts_the_queue(app: App, service: FakeService, ref: Ref):
    """`turn` is the current turn, `queued` the ones behind it."""
    for text in ("a", "b", "c"):
        await service.say(ref, text)
    found = (await ask(app, "GET", f"/v1/sessions/{S}")).json
    assert (found["status"], found["turn"], found["queued"]) == ("running", turn_id(S, 6), 2)


async def test_list_sessions_page_by_page(app: App):
    """`next` is the next page's `after`; null ends the list."""
    made = [(await ask(app, "POST", "/v1/sessions", body={"user": "u"})).json["id"] for _ in range(5)]
    seen, after = [], ""
    for _ in range(3):
        page = (await ask(app, "GET", f"/v1/sessions?limit=2{after}")).json
        seen += [session["id"] for session in page["data"]]
        after = f"&after={page['next']}"
    assert seen == made
    assert after == "&after=None"


async def test_list_sessions_by_what_they_are(app: App, ref: Ref):
    """Filters by status, user and metadata."""
    await ask(app, "POST", "/v1/sessions", body={"user": "ann", "metadata": {"plan": "pro"}})
    for query, count in [
        ("user=ann", 1),
        ("user=bob", 0),
        ("status=idle", 2),
        ("status=waiting", 0),
        ("metadata.plan=pro", 1),
        ("metadata.plan=free", 0),
        ("user=ann&metadata.plan=pro&status=idle&limit=1", 1),
    ]:
        assert len((await ask(app, "GET", f"/v1/sessions?{query}")).json["data"]) == count, query


async def test_change_the_metadata(app: App, ref: Ref):
    """It is replaced, not merged; without `metadata` nothing changes."""
    reply = await ask(app, "PATCH", f"/v1/sessions/{S}", body={"metadata": {"a": 1}})
    assert (reply.status, reply.json["metadata"], reply.headers["etag"]) == (200, {"a": 1}, '"6"')
    assert (await ask(app, "PATCH", f"/v1/sessions/{S}", body={})).json["head"] == 6


@pytest.mark.parametrize(
    ("match", "status"),
    [
        ('"5"', 200),
        ("*", 200),
        ('"4"', 412),
        ('W/"5"', 412),
        ('"4", "5"', 200),
        ('"x"', 412),
        ('"4","3"', 412),
        ("5", 400),
        ('"5"x', 400),
    ],
)
@pytest.mark.parametrize("body", [{"metadata": {"a": 1}}, {}])
async def test_if_match_is_honoured(app: App, ref: Ref, match: str, status: int, body: dict):
    """A change is made to the version that the client has seen, or not at all. Weak tags never match. The document
    describes what is taken, and nothing else.
    """
    described = (await ask(app, "GET", "/openapi.json")).json["paths"]["/v1/sessions/{s}"]["patch"]["parameters"]
    (pattern,) = [one["schema"]["pattern"] for one in described if one["name"] == "If-Match"]
    assert (re.search(pattern, match) is None) == (status == 400)
    reply = await ask(app, "PATCH", f"/v1/sessions/{S}", body=body, headers={"if-match": match})
    assert reply.status == status
    if status == 412:
        assert reply.json["code"] == "version_mismatch"
        assert (await ask(app, "GET", f"/v1/sessions/{S}")).json["head"] == 5


async def test_a_deleted_session_is_gone(app: App, ref: Ref):
    """204, and then nothing finds it."""
    assert (await ask(app, "DELETE", f"/v1/sessions/{S}")).status == 204
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/items"), ("GET", "/events"), ("POST", "/fork")]:
        assert (await ask(app, method, f"/v1/sessions/{S}{path}")).status == 404, path


async def test_fork(app: App, ref: Ref):
    """A session of its own that says where it came from."""
    reply = await ask(app, "POST", f"/v1/sessions/{S}/fork", body={"at": 5})
    assert (reply.status, reply.json["parent"]) == (201, {"session": S, "seq": 5})
    assert reply.json["id"] != S
    assert (await ask(app, "POST", f"/v1/sessions/{S}/fork")).json["parent"]["seq"] == 5
    assert (await ask(app, "POST", f"/v1/sessions/{S}/fork", body={"at": 77})).status == 400


async def test_items(app: App, ref: Ref):
    """The conversation, each item with an id."""
    page = (await ask(app, "GET", f"/v1/sessions/{S}/items")).json
    assert [item["role"] for item in page["data"]] == ["user", "assistant"]
    assert page["next"] is None
    first = (await ask(app, "GET", f"/v1/sessions/{S}/items?limit=2")).json
    rest = (await ask(app, "GET", f"/v1/sessions/{S}/items?after={first['next']}")).json
    assert first["data"] + rest["data"] == page["data"]


async def test_an_input_is_answered_with_its_receipt(app: App, ref: Ref):
    """202, where it stands in the log, and where to follow it."""
    reply = await ask(app, "POST", f"/v1/sessions/{S}/inputs", body=HI, headers={"idempotency-key": "k"})
    turn = turn_id(S, 6)
    assert reply.status == 202
    assert reply.json == {"session": S, "turn": turn, "seq": 6, "status": "queued", "replayed": False}
    assert reply.headers["location"] == f"/v1/sessions/{S}/events?turn={turn}&after=5"
    again = await ask(app, "POST", f"/v1/sessions/{S}/inputs", body=HI, headers={"idempotency-key": "k"})
    assert again.json == {**reply.json, "replayed": True}
    assert again.headers["idempotent-replayed"] == "true"
    other = {**HI, "content": "something else"}
    reused = await ask(app, "POST", f"/v1/sessions/{S}/inputs", body=other, headers={"idempotency-key": "k"})
    assert (reused.status, reused.json["code"], reused.json["outcome"]) == (422, "key_reused", "not_applied")


async def test_an_unknown_session_is_created_only_on_request(app: App):
    """404, unless `If-None-Match: *` says that it may be made."""
    target = f"/v1/sessions/{S}/inputs"
    assert (await ask(app, "POST", target, body=HI)).status == 404
    made = await ask(app, "POST", target, body=HI, headers={"if-none-match": "*"})
    assert (made.status, made.json["seq"]) == (202, 2)
    assert (await ask(app, "POST", target, body=HI, headers={"if-none-match": "*"})).status == 202
    assert (await ask(app, "POST", target, body=HI, headers={"if-none-match": '"5"'})).status == 400
    bad = await ask(app, "POST", "/v1/sessions/not-an-id/inputs", body=HI, headers={"if-none-match": "*"})
    assert (bad.status, bad.json["code"]) == (400, "invalid_request")


async def test_a_busy_session_refuses_on_request(app: App, service: FakeService, ref: Ref):
    """409, and common clients are told not to try again by themselves."""
    await service.say(ref, "first")
    reply = await ask(app, "POST", f"/v1/sessions/{S}/inputs", body={**HI, "on_busy": "reject"})
    assert (reply.status, reply.json["code"], reply.headers["x-should-retry"]) == (409, "session_busy", "false")


async def test_inputs_that_answer_nothing(app: App, ref: Ref):
    """409: nothing waits for this, or it has been decided."""
    for body, code in [
        ({"type": "approval", "call_id": "c", "decision": "approve"}, "no_such_action"),
        ({"type": "tool_result", "call_id": "c", "output": "x"}, "no_such_action"),
        ({"type": "cancel"}, "no_such_action"),
        ({"type": "cancel", "turn": turn_id(S, 2)}, "already_decided"),
    ]:
        reply = await ask(app, "POST", f"/v1/sessions/{S}/inputs", body=body)
        assert (reply.status, reply.json["code"]) == (409, code)
    unknown = await ask(app, "POST", f"/v1/sessions/{S}/inputs", body={"type": "cancel", "turn": "nonsense"})
    assert unknown.status == 404


async def test_a_page_of_events(app: App, ref: Ref):
    """Without `Accept` the answer is JSON; `after` may be any cursor, `turn` selects."""
    page = (await ask(app, "GET", f"/v1/sessions/{S}/events")).json
    assert [event["seq"] for event in page["data"]] == [1, 2, 3, 4, 5]
    assert page["next"] is None
    first = (await ask(app, "GET", f"/v1/sessions/{S}/events?limit=2")).json
    assert first["next"] == "2"
    later = (await ask(app, "GET", f"/v1/sessions/{S}/events?after=3.7")).json
    assert [event["seq"] for event in later["data"]] == [4, 5]
    only = (await ask(app, "GET", f"/v1/sessions/{S}/events?turn={turn_id(S, 2)}")).json
    assert [event["seq"] for event in only["data"]] == [2, 3, 4, 5]
    assert page["data"][0] == {
        "seq": 1,
        "type": "session.created",
        "turn": None,
        "at": "2026-11-18T11:06:40.000Z",
        "data": {},
    }
    assert (await ask(app, "GET", f"/v1/sessions/{S}/events?turn={turn_id(S, 3)}")).json["data"] == []
    assert (await ask(app, "GET", f"/v1/sessions/{S}/events?turn=x")).status == 404


async def test_what_is_exported_can_be_imported(app: App, ref: Ref):
    """One event a line; the import is another session with the same history and turn ids of its own."""
    accept = {"accept": "application/x-ndjson"}
    export = await ask(app, "GET", f"/v1/sessions/{S}/events", headers=accept)
    assert export.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["seq"] for line in export.body.splitlines()] == [1, 2, 3, 4, 5]
    made = await ask(
        app, "POST", "/v1/sessions", body=export.body, headers={"content-type": "application/x-ndjson; charset=utf-8"}
    )
    assert made.status == 201, made.body
    copy = made.json["id"]
    again = await ask(app, "GET", f"/v1/sessions/{copy}/events", headers=accept)
    assert again.body == export.body.replace(turn_id(S, 2).encode(), turn_id(copy, 2).encode())


async def test_the_first_choice_of_accept_is_answered(app: App, ref: Ref):
    """Quality counts, then exactness; what we do not have gets JSON."""
    for accept, media in [
        ("*/*", "application/json"),
        ("text/html", "application/json"),
        ("application/*;q=0.5, application/x-ndjson", "application/x-ndjson"),
        ("application/x-ndjson;q=0.1, application/json;q=0.2", "application/json"),
        ("text/event-stream;q=0, application/x-ndjson;q=0.3", "application/x-ndjson"),
    ]:
        reply = await ask(app, "GET", f"/v1/sessions/{S}/events?after=0", headers={"accept": accept})
        assert reply.headers["content-type"] == media, accept


async def test_a_turn(app: App, ref: Ref):
    """Every field of the contract is present."""
    reply = await ask(app, "GET", f"/v1/sessions/{S}/turns/{turn_id(S, 2)}")
    assert {**reply.json, "output": None} == {
        "id": turn_id(S, 2),
        "session": S,
        "status": "completed",
        "attempt": 1,
        "first_seq": 2,
        "last_seq": 5,
        "actions": [],
        "output": None,
        "usage": None,
        "error": None,
    }
    assert reply.json["output"][0]["content"] == [{"type": "output_text", "text": "Hello 👋"}]
    assert (await ask(app, "GET", f"/v1/sessions/{S}/turns/nonsense")).status == 404


async def test_waiting_for_a_turn(app: App, service: FakeService, ref: Ref):
    """`wait` answers when the turn has ended, or when the time is over with the turn as it is."""
    await service.say(ref, "again")
    target = f"/v1/sessions/{S}/turns/{turn_id(S, 6)}"
    assert (await ask(app, "GET", f"{target}?wait=0.01")).json["status"] == "queued"
    waiting = await Exchange(app, "GET", f"{target}?wait=30").start()
    await wait_until(lambda: app.gate.requests == 1, description="the request waits")
    service.answer(ref, "yes")
    assert (await waiting.done()).json["status"] == "completed"


async def test_a_draining_replica_keeps_nobody_waiting(app: App, service: FakeService, ref: Ref):
    """A long poll ends with the turn as it is; the client asks another replica."""
    await service.say(ref, "again")
    waiting = await Exchange(app, "GET", f"/v1/sessions/{S}/turns/{turn_id(S, 6)}?wait=30").start()
    await wait_until(lambda: app.gate.requests == 1, description="the request waits")
    app.gate.drain()
    reply = await waiting.done()
    assert (reply.status, reply.json["status"]) == (200, "queued")


async def test_nobody_waits_for_a_client_that_has_left(app: App, service: FakeService, ref: Ref):
    """A long poll gives its place back when its connection closes."""
    await service.say(ref, "again")
    waiting = await Exchange(app, "GET", f"/v1/sessions/{S}/turns/{turn_id(S, 6)}?wait=30").start()
    await wait_until(lambda: app.gate.requests == 1, description="the request waits")
    waiting.leave()
    await waiting.done()
    assert app.gate.requests == 0


@pytest.mark.parametrize(
    ("asked", "status", "content", "span"),
    [
        (None, 200, b"0123456789", None),
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
        ("bytes=4-2", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
    ],
)
async def test_artifacts_and_ranges(
    app: App, service: FakeService, asked: str | None, status: int, content: bytes | None, span: str | None
):
    """One range is served; other kinds are ignored, as RFC 9110 allows; one that cannot be is 416, with the size."""
    service.artifacts["default", "a1"] = b"0123456789"
    reply = await ask(app, "GET", "/v1/artifacts/a1", headers={"range": asked} if asked else {})
    assert reply.status == status
    assert reply.headers.get("content-range") == span
    if content is not None:
        assert reply.body == content
        assert reply.headers["content-length"] == str(len(content))
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-disposition"] == "attachment"


async def test_probes(app: App, service: FakeService):
    """Alive, ready, how: a degraded replica is ready, a draining one is not."""
    assert (await ask(app, "GET", "/livez")).status == 200
    service.shape.degraded = ["hot"]
    assert (await ask(app, "GET", "/readyz")).status == 200
    assert (await ask(app, "GET", "/health")).json == {
        "ready": True,
        "draining": False,
        "replica": "r1",
        "tiers": {"warm": "ok"},
        "degraded": ["hot"],
    }
    app.gate.drain()
    assert (await ask(app, "GET", "/livez")).status == 200
    assert (await ask(app, "GET", "/readyz")).status == 503
    assert (await ask(app, "GET", "/health")).status == 503


async def test_figures(app: App, ref: Ref):
    """Prometheus text, by route and not by path."""
    await ask(app, "GET", f"/v1/sessions/{S}")
    reply = await ask(app, "GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    assert 'dalsegno_http_requests_total{route="GET /v1/sessions/{s}",status="200"} 1.0' in reply.body.decode()
    assert S not in reply.body.decode()


async def test_the_wrong_method_and_the_wrong_path(app: App):
    """405 says what is allowed; 404 is a problem like every other."""
    reply = await ask(app, "PUT", f"/v1/sessions/{S}")
    assert (reply.status, reply.headers["allow"]) == (405, "DELETE, GET, HEAD, PATCH")
    for path in ("/", "/v1", "/v1/sessions/", "/v1/nothing", "/openapi.json/", "//v1/sessions"):
        lost = await ask(app, "GET", path)
        assert (lost.status, lost.json["code"]) == (404, "not_found"), path


async def test_head_is_get_without_a_stream(app: App, ref: Ref):
    """Balancers probe with HEAD; it never opens a stream."""
    reply = await ask(app, "HEAD", f"/v1/sessions/{S}/events", headers={"accept": "text/event-stream"})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
