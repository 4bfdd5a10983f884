"""Servers within a test's own event loop which leave no connection open behind them."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Self

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ROUNDS = 3
"""Of the event loop: a connection is accepted in one, its transport is made in the next, and then it is handed over."""


async def silence(server: asyncio.Server) -> None:
    """Accept nothing more; return when all that was accepted has been handed over.

    `close` by itself forgets a connection whose transport is not made yet, and leaves it open.
    """
    loop = asyncio.get_running_loop()
    for sock in server.sockets:
        loop.remove_reader(sock)
    for _ in range(ROUNDS):
        await asyncio.sleep(0)
    server.close()


class Listener:
    """Serves every connection to a port of the loopback interface by `serve`; left, it resets those that are open."""

    def __init__(self, serve: Serve, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._serve = serve
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        """Where HTTP clients find it."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await silence(self._server)
        open_still = dict(self._connections)
        for task, writer in open_still.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*open_still, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._run(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._served)

    def _served(self, task: "asyncio.Task[None]") -> None:
        # Not at the end of the task's own work, which a task that is cancelled early never begins.
        self._connections.pop(task).close()

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._tls is not None:
                await writer.start_tls(self._tls)
            await self._serve(reader, writer)
        except ConnectionError:
            return  # the other side has gone
