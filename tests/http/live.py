"""A real server in the test's own loop, and raw sockets to talk to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

from dalsegno.http.app import App
from dalsegno.http.server import Bearing, Server, listen
from tests.support import wait_until

QUICK = Bearing(grace=timedelta(seconds=2), header_time=timedelta(milliseconds=300))


class Live:
    """A running server; `port` is where."""

    def __init__(self, server: Server, port: int, task: "asyncio.Task[None]") -> None:
        self.server = server
        self.port = port
        self._task = task

    async def connect(self, head: str = "", body: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A socket on which a request has been sent; `head` is the request line and headers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        if head:
            writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        return reader, writer

    async def stop(self) -> None:
        """As SIGTERM does."""
        self.server.should_exit = True
        await asyncio.wait_for(self._task, 10)


@contextlib.asynccontextmanager
async def serving(
    app: App, *, bearing: Bearing = QUICK, leaving: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[Live]:
    """Serve on a free port until the block ends."""
    listener = listen("127.0.0.1", 0)
    server = Server(app, bearing=bearing, leaving=leaving)
    task = asyncio.create_task(server._serve([listener]))
    await wait_until(lambda: server.started, description="the server has started")
    live = Live(server, listener.getsockname()[1], task)
    try:
        yield live
    finally:
        await live.stop()
