"""The stream contract, rule by rule (P8): a client reads the log, once, in order, and a clean end is an end."""

import asyncio
import logging
from datetime import timedelta

import pytest

from dalsegno.core.ids import turn_id
from dalsegno.http.app import App, build_app
from dalsegno.http.gate import Limits
from dalsegno.ports import Ref
from tests.http.asgi import Exchange, Reply, ask
from tests.http.conftest import S
from tests.http.fake import FakeService
from tests.support import wait_until

STREAM = {"accept": "text/event-stream"}
EVENTS = f"/v1/sessions/{S}/events"


async def follow(app: App, target: str, **headers: str) -> Exchange:
    return await Exchange(app, "GET", target, headers={**STREAM, **headers}).start()


async def test_the_first_bytes_of_a_stream(app: App, ref: Ref):
    """`retry: 500` and a comment come first; the headers keep caches and proxies from holding anything back."""
    stream = await follow(app, EVENTS)
    reply = await stream.until(b"\n\n")
    assert reply.writes == [b"retry: 500\n: dal segno\n\n"]
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-accel-buffering"] == "no"
    stream.leave()
    await stream.done()


async def test_replay_is_the_log_with_one_write_an_event(app: App, service: FakeService, ref: Ref):
    """`after=0` replays everything; the rest of a streamed item's text comes before the item."""
    turn = turn_id(S, 2)
    reply = await ask(app, "GET", f"{EVENTS}?after=0&turn={turn}", headers=STREAM)
    assert [event["id"] for event in reply.events] == ["2", "3", "4", "5"]
    assert [event["event"] for event in reply.events] == [
        "turn.created",
        "turn.started",
        "item.done",
        "turn.completed",
    ]
    assert len(reply.writes) == 1 + 4
    assert reply.clean


async def test_an_sse_event_byte_for_byte(app: App, ref: Ref):
    """The envelope: id, event, data; the data is one line of JSON with the log's own bytes spliced in."""
    reply = await ask(app, "GET", f"{EVENTS}?after=1&turn={turn_id(S, 2)}", headers=STREAM)
    assert reply.writes[1] == (
        b"id: 2\nevent: turn.created\n"
        b'data: {"seq":2,"type":"turn.created","turn":"%b","at":"2026-11-18T11:06:40.000Z",'
        b'"data":{"input":{"type":"message","content":"hi"}}}\n\n' % turn_id(S, 2).encode()
    )


async def collect_live(app: App, service: FakeService, after: str = "0") -> Reply:
    """Read a turn that runs while it is read."""
    ref = Ref("default", S)
    await service.say(ref, "hi")
    stream = await follow(app, f"{EVENTS}?after={after}&turn={turn_id(S, 2)}")
    await stream.until(b"turn.created")
    lease = service.take(ref)
    item = service.reply(ref, lease, "Hello 👋")
    service.show(ref, lease, item, "Hel", "lo ", "👋")
    await stream.until("👋".encode())
    service.finish(ref, lease, item)
    return await stream.done()


async def test_a_turn_is_streamed_while_it_runs(app: App, service: FakeService):
    """Between durable events come the pieces of the open step, without `seq`, under cursors `seq.offset`."""
    reply = await collect_live(app, service)
    assert [(event["id"], event["event"]) for event in reply.events] == [
        ("2", "turn.created"),
        ("3", "turn.started"),
        ("3.1", "item.added"),
        ("3.4", "item.delta"),
        ("3.7", "item.delta"),
        ("3.8", "item.delta"),
        ("4", "item.done"),
        ("5", "turn.completed"),
    ]
    delta = reply.events[4]["data"]
    assert set(delta) == {"type", "turn", "at", "data"}
    assert delta["data"] == {
        "item_id": reply.events[2]["data"]["data"]["item"]["id"],
        "field": "text",
        "at": 3,
        "delta": "lo ",
    }
    assert reply.clean


async def test_resuming_at_every_cursor_gives_the_text_once(app: App, service: FakeService):
    """P8: cut anywhere, resumed anywhere, also after the end: every durable event once, the text whole."""
    whole = (await collect_live(app, service)).events
    for cut in range(len(whole)):
        cursor = whole[cut]["id"]
        reply = await ask(app, "GET", f"{EVENTS}?turn={turn_id(S, 2)}", headers={**STREAM, "last-event-id": cursor})
        both = whole[: cut + 1] + reply.events
        durable = [event["data"]["seq"] for event in both if "seq" in event["data"]]
        assert durable == [2, 3, 4, 5], cursor
        text = "".join(event["data"]["data"]["delta"] for event in both if event["event"] == "item.delta")
        assert text in ("Hello 👋", ""), cursor
        assert reply.clean or reply.status == 204


async def test_last_event_id_wins_over_after(app: App, ref: Ref):
    """A browser that reconnects repeats its first query; what it has is in the header."""
    reply = await ask(app, "GET", f"{EVENTS}?after=0&turn={turn_id(S, 2)}", headers={**STREAM, "last-event-id": "4"})
    assert [event["id"] for event in reply.events] == ["5"]


async def test_nothing_can_follow_an_ended_turn(app: App, ref: Ref):
    """204 is what stops an EventSource from coming back for ever."""
    reply = await ask(app, "GET", f"{EVENTS}?after=5&turn={turn_id(S, 2)}", headers=STREAM)
    assert (reply.status, reply.body) == (204, b"")


@pytest.mark.parametrize("cursor", ["", "-1", "x", "1.0", "01", "1.", "1.2.3", "9" * 11, "1e3", "１", "2\u0000", " 2"])
async def test_a_malformed_cursor_is_refused(app: App, ref: Ref, cursor: str):
    """Only what was received as `id` is a cursor. An empty one is no reason to skip to the end."""
    quoted = "".join(f"%{byte:02x}" for byte in cursor.encode())
    for accept in ("text/event-stream", "application/json", "application/x-ndjson"):
        reply = await ask(app, "GET", f"{EVENTS}?after={quoted}", headers={"accept": accept})
        assert (reply.status, reply.json["code"]) == (400, "invalid_cursor")


async def test_an_empty_last_event_id_is_refused(app: App, ref: Ref):
    """Nobody who holds a cursor sends an empty one."""
    reply = await ask(app, "GET", EVENTS, headers={**STREAM, "last-event-id": ""})
    assert (reply.status, reply.json["code"]) == (400, "invalid_cursor")


async def test_a_cursor_past_the_head_is_refused_in_every_form(app: App, ref: Ref):
    """It comes from a history that this store does not have: that must not go unnoticed."""
    for accept in ("text/event-stream", "application/json", "application/x-ndjson"):
        reply = await ask(app, "GET", f"{EVENTS}?after=99", headers={"accept": accept})
        assert (reply.status, reply.json["code"]) == (400, "cursor_ahead")


async def test_without_after_only_what_is_new(app: App, service: FakeService, ref: Ref):
    """Absent = live only; a session's stream goes on after a turn's end."""
    stream = await follow(app, EVENTS)
    await stream.until(b"retry")
    await service.say(ref, "again")
    reply = await stream.until(b"turn.created")
    assert [event["id"] for event in reply.events] == ["6"]
    stream.leave()
    assert not (await stream.done()).clean


async def test_deleting_a_session_ends_its_streams(app: App, service: FakeService, ref: Ref):
    """`session.deleted` is the last event, and a clean end."""
    stream = await follow(app, EVENTS)
    await stream.until(b"retry")
    assert (await ask(app, "DELETE", f"/v1/sessions/{S}")).status == 204
    reply = await stream.done()
    assert reply.events[-1]["event"] == "session.deleted"
    assert reply.clean


async def test_a_lost_store_aborts_the_stream(app: App, service: FakeService, ref: Ref):
    """A clean end would look like the end of the answer: the connection is cut instead."""
    stream = await follow(app, EVENTS)
    await stream.until(b"retry")
    service.break_streams()
    assert not (await stream.done()).clean
    assert app.gate.streams == 0
    assert service.streams[0].closed


async def test_draining_aborts_every_stream_and_lets_nobody_in(app: App, service: FakeService, ref: Ref):
    """Clients resume on another replica at once."""
    streams = [await follow(app, EVENTS) for _ in range(5)]
    for stream in streams:
        await stream.until(b"retry")
    app.gate.drain()
    assert [(await stream.done()).clean for stream in streams] == [False] * 5
    assert app.gate.streams == 0
    reply = await ask(app, "GET", f"/v1/sessions/{S}")
    assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (503, "draining", "1")
    assert reply.headers["connection"] == "close", "or the client would come back on it, to this replica"
    assert reply.json["outcome"] == "not_applied"


async def test_a_client_that_leaves_frees_everything(app: App, service: FakeService, ref: Ref):
    """The stream is closed and its seat is free, although nothing was being sent."""
    stream = await follow(app, EVENTS)
    await stream.until(b"retry")
    assert app.gate.streams == 1
    stream.leave()
    await stream.done()
    assert app.gate.streams == 0
    assert service.streams[0].closed


async def test_silence_is_filled_with_comments(service: FakeService, ref: Ref):
    """A comment carries no id: it moves nobody's cursor."""
    app = build_app(service, limits=Limits(heartbeat=timedelta(milliseconds=30)))
    stream = await follow(app, EVENTS)
    reply = await stream.until(b":\n\n:\n\n")
    assert set(reply.writes[1:]) == {b":\n\n"}
    stream.leave()
    await stream.done()


async def test_a_reader_that_blocks_is_disconnected(service: FakeService, ref: Ref):
    """Too slow = cut off, never skipped: it resumes by cursor."""
    app = build_app(
        service, limits=Limits(slow_reader=timedelta(milliseconds=50), heartbeat=timedelta(milliseconds=150))
    )
    stream = await follow(app, EVENTS)
    await stream.until(b"retry")
    stream.open.clear()
    await service.say(ref, "again")
    reply = await stream.done()
    assert not reply.clean
    assert app.gate.streams == 0


async def test_a_reader_that_blocks_on_a_comment_is_disconnected(service: FakeService, ref: Ref):
    """Also when the session is silent."""
    app = build_app(
        service, limits=Limits(slow_reader=timedelta(milliseconds=50), heartbeat=timedelta(milliseconds=30))
    )
    stream = await follow(app, EVENTS)
    await stream.until(b"retry")
    stream.open.clear()
    await wait_until(lambda: app.gate.streams == 0, description="the reader is thrown out")
    await stream.done()


async def test_streams_are_bounded_for_each_tenant(service: FakeService, ref: Ref):
    """429 for one too many; a place that is given back is free again."""
    app = build_app(service, limits=Limits(streams_per_tenant=1))
    first = await follow(app, EVENTS)
    await first.until(b"retry")
    refused = await ask(app, "GET", EVENTS, headers=STREAM)
    assert (refused.status, refused.json["code"], refused.headers["retry-after"]) == (429, "rate_limited", "1")
    said = await ask(app, "POST", f"/v1/sessions/{S}/inputs", body={"type": "message", "content": "x"}, headers=STREAM)
    assert (said.status, said.json["outcome"]) == (429, "not_applied")
    first.leave()
    await first.done()
    again = await follow(app, EVENTS)
    await again.until(b"retry")
    again.leave()
    await again.done()


async def test_a_refused_stream_gives_its_place_back(app: App, service: FakeService, ref: Ref):
    """Whatever is refused after the place was taken frees it."""
    for target in (f"{EVENTS}?after=99", f"{EVENTS}?turn=nonsense", EVENTS.replace(S, "0" * 32)):
        assert (await ask(app, "GET", target, headers=STREAM)).status in (400, 404)
    assert app.gate.streams == 0


async def test_saying_something_can_answer_with_the_turns_stream(app: App, service: FakeService):
    """The stream begins with the very event that admitted the input, and ends with the turn."""
    target = f"/v1/sessions/{S}/inputs"
    headers = {**STREAM, "if-none-match": "*", "idempotency-key": "k1"}
    stream = await Exchange(app, "POST", target, body={"type": "message", "content": "hi"}, headers=headers).start()
    await stream.until(b"turn.created")
    service.answer(Ref("default", S), "Hello")
    reply = await stream.done()
    assert reply.headers["location"] == f"/v1/sessions/{S}/events?turn={turn_id(S, 2)}&after=1"
    assert "idempotent-replayed" not in reply.headers
    assert reply.events[0]["id"] == "2"
    assert reply.clean
    again = await ask(app, "POST", target, body={"type": "message", "content": "hi"}, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert [event["data"]["seq"] for event in again.events if "seq" in event["data"]] == [2, 3, 4, 5]


async def test_a_bug_in_a_stream_is_logged_and_cuts_it(
    app: App, service: FakeService, ref: Ref, caplog: pytest.LogCaptureFixture
):
    """Nothing of it reaches the client but the cut."""
    stream = await follow(app, EVENTS)
    await stream.until(b"retry")
    service.lost = ZeroDivisionError("secret")
    service._ring()
    with caplog.at_level(logging.ERROR, "dalsegno.http"):
        reply = await stream.done()
    assert not reply.clean and b"secret" not in reply.body
    assert "secret" in caplog.text


async def test_cancelling_the_servers_task_is_not_swallowed(app: App, ref: Ref):
    """The server's own cancellation is not taken for the gate's."""
    stream = await follow(app, EVENTS)
    await stream.until(b"retry")
    assert stream._task is not None
    stream._task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream.done()
    assert app.gate.streams == 0
