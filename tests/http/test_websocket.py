"""A session over one WebSocket: the same events, cursors, keys and errors as over HTTP."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dalsegno.core.ids import turn_id
from dalsegno.http.app import App, build_app
from dalsegno.http.auth import Keys
from dalsegno.http.gate import Limits
from dalsegno.ports import Ref
from tests.http.conftest import S
from tests.http.fake import FakeService
from tests.http.live import Live, serving
from tests.support import wait_until


def to(live: Live, query: str = "", session: str = S, **options) -> connect:
    return connect(f"ws://127.0.0.1:{live.port}/v1/sessions/{session}/events{query}", proxy=None, **options)


async def hear(socket: ClientConnection) -> dict[str, Any]:
    return json.loads(await asyncio.wait_for(socket.recv(), 20))


async def test_events_come_with_their_cursor_and_the_end_is_1000(app: App, service: FakeService, ref: Ref):
    """Server frames are events plus `id`; after the turn's end the socket closes normally."""
    async with serving(app) as live, to(live, f"?after=2&turn={turn_id(S, 2)}") as socket:
        frames = [await hear(socket) for _ in range(3)]
        assert [frame["id"] for frame in frames] == ["3", "4", "5"]
        assert list(frames[0]) == ["id", "seq", "type", "turn", "at", "data"]
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1000


async def test_inputs_are_answered_with_receipts_in_order(app: App, service: FakeService, ref: Ref):
    """`{"key", ...Input}` in, `{"receipt"}` out; a repeated key gives the same receipt."""
    async with serving(app) as live, to(live) as socket:
        said = {"key": "k1", "type": "message", "content": "hi"}
        answers: list[dict[str, Any]] = []
        for body in (said, said, {**said, "content": "other"}):
            await socket.send(json.dumps(body))
        while len(answers) < 3:
            frame = await hear(socket)
            if "id" not in frame:
                answers.append(frame)
        receipt = {"session": S, "turn": turn_id(S, 6), "seq": 6, "status": "queued", "replayed": False}
        assert answers[0] == {"receipt": receipt}
        assert answers[1] == {"receipt": {**receipt, "replayed": True}}
        assert (answers[2]["error"]["code"], answers[2]["error"]["status"]) == ("key_reused", 422)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "invalid_json"),
        ("[]", "invalid_request"),
        ('{"key":5,"type":"cancel"}', "invalid_request"),
        ('{"key":"","type":"cancel"}', "invalid_request"),
        ('{"type":"cancel","hide":true}', "invalid_request"),
        ('{"type":"message","content":"\\ud800"}', "invalid_unicode"),
        ("[" * 100, "invalid_json"),
        (b"{}", "invalid_request"),
        ('{"type":"cancel"}', "no_such_action"),
    ],
)
async def test_a_bad_frame_is_answered_and_the_socket_stays(app: App, ref: Ref, frame: str | bytes, code: str):
    """An error is an answer like a receipt."""
    async with serving(app) as live, to(live) as socket:
        await socket.send(frame)
        assert (await hear(socket))["error"]["code"] == code
        await socket.send('{"type":"message","content":"x"}')
        assert "receipt" in await hear(socket) or "receipt" in await hear(socket)


async def test_resume_is_a_reconnect_with_after(app: App, service: FakeService, ref: Ref):
    """Also from the middle of a streamed item."""
    async with serving(app) as live, to(live, f"?after=3.3&turn={turn_id(S, 2)}") as socket:
        frames = [await hear(socket) for _ in range(3)]
        assert [frame["type"] for frame in frames] == ["item.delta", "item.done", "turn.completed"]
        assert frames[0]["data"]["delta"] == "llo 👋" and frames[0]["data"]["at"] == 2


@pytest.mark.parametrize(
    ("query", "session", "status", "code"),
    [
        ("?after=x", S, 400, "invalid_cursor"),
        ("?after=99", S, 400, "cursor_ahead"),
        ("?turn=x", S, 404, "not_found"),
        ("?page=1", S, 400, "invalid_request"),
        ("", "0" * 32, 404, "not_found"),
        ("", "nonsense", 404, "not_found"),
    ],
)
async def test_a_refused_upgrade_is_a_problem(app: App, ref: Ref, query: str, session: str, status: int, code: str):
    """The handshake fails with the same body that HTTP would give."""
    async with serving(app) as live:
        with pytest.raises(InvalidStatus) as refused:
            await to(live, query, session)
        response = refused.value.response
        assert response.status_code == status
        assert json.loads(response.body or b"")["code"] == code
    assert app.gate.streams == 0


async def test_other_paths_are_no_websockets(app: App):
    """404, as for any path that is not there."""
    async with serving(app) as live:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{live.port}/v1/sessions", proxy=None)
        assert refused.value.response.status_code == 404


async def test_credentials_are_asked_for(service: FakeService, ref: Ref):
    """A tenant's socket needs the tenant's key."""
    app = build_app(service, keys=Keys([("k", "default")]))
    async with serving(app) as live:
        with pytest.raises(InvalidStatus) as refused:
            await to(live)
        assert refused.value.response.status_code == 401
        async with to(live, additional_headers={"authorization": "Bearer k"}) as socket:
            await socket.send('{"type":"message","content":"x"}')
            assert await hear(socket)


async def test_pages_of_other_origins_are_kept_out(app: App, ref: Ref):
    """A browser would open the socket with the user's place in the network; 403."""
    async with serving(app) as live:
        with pytest.raises(InvalidStatus) as refused:
            await to(live, origin="https://evil.example")
        assert refused.value.response.status_code == 403
        async with to(live, origin=f"http://127.0.0.1:{live.port}"):
            pass


async def test_draining_closes_with_1012(app: App, ref: Ref):
    """Service restart: reconnect with the cursor."""
    async with serving(app) as live, to(live) as socket:
        await wait_until(lambda: app.gate.streams == 1, description="the socket is open")
        app.gate.drain()
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 20)
        assert socket.close_code == 1012


async def test_a_lost_store_closes_with_1011(app: App, service: FakeService, ref: Ref):
    """Not a normal end."""
    async with serving(app) as live, to(live) as socket:
        await wait_until(lambda: app.gate.streams == 1, description="the socket is open")
        service.break_streams()
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 20)
        assert socket.close_code == 1011


async def test_a_bug_closes_with_1011_and_is_logged(
    app: App, service: FakeService, ref: Ref, caplog: pytest.LogCaptureFixture
):
    """What a client says must not be able to hang its own stream."""
    async with serving(app) as live, to(live) as socket:
        await wait_until(lambda: app.gate.streams == 1, description="the socket is open")
        service.fault = ZeroDivisionError("secret")
        await socket.send('{"type":"message","content":"x"}')
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 20)
        assert socket.close_code == 1011
        service.fault = None
    assert "secret" in caplog.text


async def test_a_client_that_leaves_frees_everything(app: App, service: FakeService, ref: Ref):
    """With a goodbye or without one."""
    async with serving(app) as live:
        async with to(live):
            await wait_until(lambda: app.gate.streams == 1, description="the socket is open")
        await wait_until(lambda: app.gate.streams == 0, description="the seat is free")
        socket = await to(live)
        await wait_until(lambda: app.gate.streams == 1, description="the socket is open")
        socket.transport.abort()
        await wait_until(lambda: app.gate.streams == 0, description="the seat is free")
    assert all(stream.closed for stream in service.streams)


async def test_a_socket_that_never_reads_is_cut_off(service: FakeService, ref: Ref):
    """As over SSE."""
    limits = Limits(slow_reader=timedelta(milliseconds=200), heartbeat=timedelta(milliseconds=300))
    app = build_app(service, limits=limits)
    async with serving(app) as live, to(live, max_queue=1) as socket:
        await wait_until(lambda: app.gate.streams == 1, description="the socket is open")
        socket.transport.pause_reading()
        for _ in range(20):
            await service.say(ref, "x" * 500_000)
        await wait_until(lambda: app.gate.streams == 0, description="the reader is thrown out")
        socket.transport.abort()
