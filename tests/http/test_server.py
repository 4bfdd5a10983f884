"""The server on real sockets: how bodies end, how a replica leaves, and what hostile bytes get."""

import asyncio
import logging
import socket
import struct
from datetime import timedelta

import pytest

from dalsegno.core.ids import turn_id
from dalsegno.http.app import App, build_app
from dalsegno.http.gate import Limits
from dalsegno.http.server import listen
from dalsegno.ports import Ref
from tests.http.conftest import S
from tests.http.fake import FakeService
from tests.http.live import serving
from tests.support import wait_until

FOLLOW = f"GET /v1/sessions/{S}/events HTTP/1.1\nhost: x\naccept: text/event-stream"
UPGRADE = "connection: upgrade\nupgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: " + "A" * 22 + "=="


async def test_a_clean_end_is_a_last_chunk(app: App, ref: Ref):
    """After the turn's terminal event the chunked body is complete, and the connection can be used again."""
    async with serving(app) as live:
        head = FOLLOW.replace("/events", f"/events?after=0&turn={turn_id(S, 2)}")
        reader, writer = await live.connect(head)
        body = await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 20)
        assert b"turn.completed" in body
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 20)
        writer.close()


@pytest.mark.parametrize("why", ["drain", "store"])
async def test_everything_else_cuts_the_connection(
    app: App, service: FakeService, ref: Ref, why: str, caplog: pytest.LogCaptureFixture
):
    """No last chunk: the client knows that there is more elsewhere. And the log has nothing to say about it."""
    async with serving(app) as live:
        reader, writer = await live.connect(FOLLOW)
        await asyncio.wait_for(reader.readuntil(b"retry: 500\n: dal segno\n\n\r\n"), 20)
        caplog.clear()
        if why == "drain":
            app.gate.drain()
        else:
            service.break_streams()
        rest = await asyncio.wait_for(reader.read(), 20)
        assert rest == b""
        writer.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_replica_leaves_quickly_and_lets_short_requests_finish(
    app: App, service: FakeService, ref: Ref, caplog: pytest.LogCaptureFixture
):
    """200 streams are aborted at once; a request that is being answered gets its answer; `leaving` ran in between."""
    left: list[int] = []

    async def leaving() -> None:
        left.append(app.gate.streams)

    async with serving(app, leaving=leaving) as live:
        streams = [await live.connect(FOLLOW) for _ in range(200)]
        await wait_until(lambda: app.gate.streams == 200, description="all streams are open")
        body = b'{"metadata":{"a":1}}'
        head = f"PATCH /v1/sessions/{S} HTTP/1.1\nhost: x\ncontent-type: application/json\ncontent-length: {len(body)}"
        reader, writer = await live.connect(head, body[:5])
        await wait_until(lambda: app.gate.requests == 1, description="the request is inside")
        began = asyncio.get_running_loop().time()
        stopping = asyncio.create_task(live.stop())
        await wait_until(lambda: app.gate.streams == 0, description="the streams are gone")
        writer.write(body[5:])
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.startswith(b"HTTP/1.1 200 ")
        writer.close()
        await stopping
        assert asyncio.get_running_loop().time() - began < 1.5
        for stream, out in streams:
            assert not (await stream.read()).endswith(b"0\r\n\r\n")
            out.close()
    assert left
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_replica_that_leaves_closes_the_connections_that_are_kept(app: App):
    """A client that came back on its own would be told the same until the replica is gone, though others share the
    port.
    """
    async with serving(app) as live:
        reader, writer = await live.connect("GET /v1/sessions HTTP/1.1\nhost: x")
        assert (await asyncio.wait_for(reader.readuntil(b"}"), 5)).startswith(b"HTTP/1.1 200 ")
        app.gate.drain()
        writer.write(b"GET /v1/sessions HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"connection: close" in answer
        writer.close()


async def test_a_client_that_vanishes_is_noticed_at_once(app: App, service: FakeService, ref: Ref):
    """A reset connection frees the stream although nobody writes to it."""
    async with serving(app) as live:
        _, writer = await live.connect(FOLLOW)
        await wait_until(lambda: app.gate.streams == 1, description="the stream is open")
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await wait_until(lambda: app.gate.streams == 0, description="the stream is gone")


async def test_a_reader_that_never_reads_is_cut_off(service: FakeService, ref: Ref, caplog: pytest.LogCaptureFixture):
    """The buffers are bounded; when they are full and stay full, the connection goes. The turn does not notice."""
    limits = Limits(slow_reader=timedelta(milliseconds=200), heartbeat=timedelta(milliseconds=300))
    app = build_app(service, limits=limits)
    async with serving(app) as live:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", live.port))
        await loop.sock_sendall(client, FOLLOW.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        await wait_until(lambda: app.gate.streams == 1, description="the stream is open")
        for _ in range(12):
            await service.say(ref, "x" * 500_000)
        await wait_until(lambda: app.gate.streams == 0, description="the reader is thrown out")
        client.close()
    assert service.sessions[ref].head == 17
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_refused_websocket_is_no_error(app: App, ref: Ref, caplog: pytest.LogCaptureFixture):
    """The client hears why, and the connection is closed; the log has nothing to say about it."""
    async with serving(app) as live:
        reader, writer = await live.connect(f"GET /v1/sessions/{S}/events?after=99 HTTP/1.1\nhost: x\n{UPGRADE}")
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400") and b"cursor_ahead" in answer
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_headers_have_a_deadline(app: App):
    """A connection that does not get to the point is closed."""
    async with serving(app) as live:
        for start in ("", "GET /livez HTTP/1.1\r\nhost: x\r\n"):
            reader, writer = await live.connect()
            writer.write(start.encode())
            assert await asyncio.wait_for(reader.read(), 20) == b""
            writer.close()


@pytest.mark.parametrize(
    "head",
    [
        "GET /" + "x" * 70_000 + " HTTP/1.1\nhost: x",
        "GET / HTTP/1.1\nhost: x\nx: " + "x" * 70_000,
        "GET / HTTP/1.1\nhost: x\ncontent-length: 5\ntransfer-encoding: chunked",
        "GET / HTTP/1.1\nhost: x\ncontent-length: 5\ncontent-length: 6",
        "NONSENSE",
        "GET /\x00 HTTP/1.1\nhost: x",
        "GET /ä HTTP/1.1\nhost: x",
        "GET /livez HTTP/1.1",
        "GET /livez HTTP/1.1\nhost: x\nhost: y",
        f"GET /v1/sessions/{S}/events HTTP/1.1\n{UPGRADE}",
    ],
    ids=range(10),
)
async def test_malformed_requests_get_a_problem_and_the_door(app: App, head: str):
    """Also what the parser refuses is answered in the one shape that errors have."""
    async with serving(app) as live:
        reader, writer = await live.connect(head)
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.startswith(b"HTTP/1.1 4"), answer[:200]
        assert b"application/problem+json" in answer
        writer.close()


async def test_a_request_may_name_no_host_where_http_lets_it(app: App):
    """HTTP/1.0 knows none; and a connection that was refused for it says so."""
    async with serving(app) as live:
        for head, says in (("GET /livez HTTP/1.0", b"200 OK"), ("GET /livez HTTP/1.1", b"one Host header")):
            reader, writer = await live.connect(head)
            assert says in await asyncio.wait_for(reader.read(), 20)
            writer.close()


async def test_headers_without_end_are_not_kept(app: App):
    """However many there are: 400, or a reset for a client that goes on sending."""
    async with serving(app) as live:
        reader, writer = await live.connect("GET / HTTP/1.1\nhost: x\n" + "\n".join(f"x{n}: y" for n in range(20_000)))
        try:
            answer = await asyncio.wait_for(reader.read(), 20)
        except ConnectionResetError:
            answer = b"HTTP/1.1 400 "
        assert answer.startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_a_client_that_sends_too_much_still_reads_the_answer(app: App):
    """The rest of the body is thrown away for a while, so that no reset overtakes the 413."""
    size = 5 * 1024 * 1024
    async with serving(app) as live:
        head = f"POST /v1/sessions HTTP/1.1\nhost: x\ncontent-type: application/json\ncontent-length: {size}"
        reader, writer = await live.connect(head)
        writer.write(b" " * size)
        await writer.drain()
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 20)
        assert answer.startswith(b"HTTP/1.1 413 ")
        writer.close()


async def test_a_body_far_too_large_is_not_waited_for(app: App):
    """413 at once by its announced length, and the connection closes."""
    async with serving(app) as live:
        head = f"POST /v1/sessions HTTP/1.1\nhost: x\ncontent-type: application/json\ncontent-length: {10**12}"
        reader, writer = await live.connect(head)
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.startswith(b"HTTP/1.1 413 ") and b"connection: close" in answer
        writer.close()


async def test_an_expectation_is_not_met_for_a_body_that_is_refused(app: App):
    """`100 Continue` would invite what we do not want."""
    async with serving(app) as live:
        head = "POST /v1/sessions HTTP/1.1\nhost: x\nexpect: 100-continue\ncontent-length: 2000000"
        reader, writer = await live.connect(head)
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 413 ")
        writer.close()


def test_several_processes_may_listen_on_one_port():
    """A fleet shares its port; a server that is alone does not share it by accident."""
    first = listen("127.0.0.1", 0, share="fleet")
    port = first.getsockname()[1]
    second = listen("127.0.0.1", port, share="fleet")
    with pytest.raises(OSError):
        listen("127.0.0.1", port)
    first.close()
    second.close()
