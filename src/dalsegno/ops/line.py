"""A line to a process that is started: a socket whose other end the process inherits."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """Our end to read and to write, and `theirs`, which is the process's once it is started."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ours: socket.socket
    theirs: socket.socket

    def ended(self) -> None:
        """The process is gone: what it said is still read, then comes the end, whoever else holds its end open."""
        with contextlib.suppress(OSError):  # closed already
            self.ours.shutdown(socket.SHUT_RD)


@contextlib.asynccontextmanager
async def line(*, limit: int) -> AsyncIterator[Line]:
    """A new line, whose longest message has `limit` bytes. Both ends are closed with the block."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader, writer = await asyncio.open_connection(sock=ours, limit=limit)
        try:
            yield Line(reader, writer, ours, theirs)
        finally:
            writer.transport.abort()
