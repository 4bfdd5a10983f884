"""A TCP proxy that breaks wires on purpose, and counts what it broke. Knows bytes and sockets, nothing of HTTP.

    async with FaultProxy(("127.0.0.1", 8000)) as proxy:
        await proxy.switch(Cut(after=100))

It stands in front of one server, or of several like a load balancer (in turn, past those that refuse). Faults hold for
connections that are open as well as for new ones. TCP stays honest: a client sees what a broken network can do, bytes
that are late or a connection that ends, never a hole in the middle.
"""

import asyncio
import contextlib
import itertools
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Literal, Self, TypeAlias, assert_never

from dalsegno.testing.listener import silence

Address: TypeAlias = tuple[str, int]
CHUNK_BYTES = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class Pass:
    """No fault."""


@dataclass(frozen=True, kw_only=True)
class Delay:
    """Every piece of either direction arrives later, and those behind it too."""

    latency: timedelta


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A connection ends once `after` bytes of the response have passed since the switch: by RST, or as if finished."""

    after: int
    how: Literal["reset", "finish"] = "reset"


@dataclass(frozen=True, kw_only=True)
class BlackHole:
    """Connections are accepted, and nothing moves in either direction until the next switch."""


@dataclass(frozen=True, kw_only=True)
class Refuse:
    """Nobody listens: connecting is refused by the operating system. Open connections go on."""


@dataclass(frozen=True, kw_only=True)
class DropReplies:
    """Requests reach the server, its answers are lost; a connection that lost some is reset at the next switch."""


@dataclass(frozen=True, kw_only=True)
class Throttle:
    """Either direction of a connection moves at most this fast."""

    bytes_per_second: int


Fault: TypeAlias = Pass | Delay | Cut | BlackHole | Refuse | DropReplies | Throttle


@dataclass
class Counts:
    """What happened, so that a test can prove that its fault did."""

    accepted: int = 0
    skipped: int = 0  # targets that refused, so that the next one was tried
    unserved: int = 0  # connections for which every target refused
    cut: int = 0
    delayed: int = 0  # pieces
    held: int = 0  # pieces that ran into a black hole
    refusals: int = 0  # switches to Refuse; the operating system counts no single ones
    dropped_bytes: int = 0
    throttled_bytes: int = 0
    bytes_up: int = 0  # to the targets
    bytes_down: int = 0
    served: dict[Address, int] = field(default_factory=dict)  # connections by target


class FaultProxy:
    """Listens on `port` of the loopback interface while it is entered; `targets` may be changed at any time."""

    def __init__(self, *targets: Address) -> None:
        self.targets = list(targets)
        self.counts = Counts()
        self.port = 0
        self.fault: Fault = Pass()  # changed by `switch`
        self._planned: deque[Fault] = deque()
        self._turns = itertools.count()
        self._changed = asyncio.Event()
        self._reserved: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where HTTP clients find it."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._reserved = _bound(0)  # keeps the port while nobody listens on it
        self.port = self._reserved.getsockname()[1]
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._silence()
        for link in self._links:
            link.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # they are closed in the loop's next round
        if self._reserved is not None:
            self._reserved.close()

    async def switch(self, fault: Fault) -> None:
        """From now on this happens to every connection without a fault of its own."""
        self.fault = fault
        for link in self._links:
            link.passed = 0
            if link.lossy:
                link.reset()
        self._changed.set()
        self._changed = asyncio.Event()
        if isinstance(fault, Refuse):
            self.counts.refusals += 1
            await self._silence()
        elif self._server is None:
            await self._listen()

    def plan(self, *faults: Fault) -> None:
        """The next connections get these for their whole life, one each."""
        self._planned.extend(faults)

    def abort(self) -> int:
        """Reset every open connection on both sides, as if this host had gone; returns how many there were."""
        links = [*self._links]
        for link in links:
            link.reset()
        self.counts.cut += len(links)
        return len(links)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=_bound(self.port), limit=CHUNK_BYTES)

    async def _silence(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await silence(server)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.accepted += 1
        link = _Link(self, writer, self._planned.popleft() if self._planned else None)
        self._links.add(link)
        task = asyncio.create_task(link.run(reader))
        self._tasks.add(task)
        task.add_done_callback(partial(self._served, link))

    def _served(self, link: "_Link", task: "asyncio.Task[None]") -> None:
        # Not at the end of the task's own work, which a task that is cancelled early never begins.
        self._tasks.discard(task)
        self._links.discard(link)
        link.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The next target in turn that accepts, or None."""
        for _ in range(len(self.targets)):
            target = self.targets[next(self._turns) % len(self.targets)]
            try:
                pair = await asyncio.open_connection(*target, limit=CHUNK_BYTES)
            except OSError:
                self.counts.skipped += 1
                continue
            self.counts.served[target] = self.counts.served.get(target, 0) + 1
            return pair
        self.counts.unserved += 1
        return None

    async def changed(self) -> None:
        """Wait for the next switch."""
        await self._changed.wait()


class _Link:
    """One client's connection and the one that was made for it."""

    def __init__(self, proxy: FaultProxy, client: asyncio.StreamWriter, own: Fault | None) -> None:
        self.passed = 0  # bytes of the response, since the last switch
        self.lossy = False
        self._proxy, self._own = proxy, own
        self._client = client
        self._writers = [client]

    @property
    def fault(self) -> Fault:
        return self._own or self._proxy.fault

    async def run(self, reader: asyncio.StreamReader) -> None:
        while isinstance(self.fault, BlackHole):
            await self._proxy.changed()
        # Also one that was on its way in when the proxy began to refuse.
        pair = None if isinstance(self.fault, Refuse) else await self._proxy.connect()
        if pair is None:
            self.reset()
            return
        self._writers.append(pair[1])
        for writer in self._writers:
            writer.transport.set_write_buffer_limits(high=0)  # what was drained is on the wire
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(self._pump(reader, pair[1], "up"))
            pumps.create_task(self._pump(pair[0], self._client, "down"))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Literal["up", "down"]
    ) -> None:
        try:
            while piece := await reader.read(CHUNK_BYTES):
                await self._carry(piece, writer, way)
            while isinstance(self.fault, BlackHole) or (way == "down" and isinstance(self.fault, DropReplies)):
                await self._proxy.changed()
            if not writer.is_closing():
                writer.write_eof()
        except OSError:  # one side was reset: so is the other
            self.reset()

    async def _carry(self, piece: bytes, writer: asyncio.StreamWriter, way: Literal["up", "down"]) -> None:
        counts, down = self._proxy.counts, way == "down"
        match self.fault:
            case Delay(latency=latency):
                counts.delayed += 1
                await asyncio.sleep(latency.total_seconds())
                await self._write(piece, writer, way)
            case Throttle(bytes_per_second=rate):
                slice_bytes = max(1, rate // 20)
                for start in range(0, len(piece), slice_bytes):
                    part = piece[start : start + slice_bytes]
                    counts.throttled_bytes += len(part)
                    await asyncio.sleep(len(part) / rate)
                    await self._write(part, writer, way)
            case BlackHole():
                counts.held += 1
                await self._proxy.changed()
                await self._carry(piece, writer, way)
            case DropReplies() if down:
                counts.dropped_bytes += len(piece)
                self.lossy = True
            case Cut(after=after, how=how) if down:
                await self._write(piece[: max(0, after - self.passed)], writer, way)
                if self.passed >= after and not writer.is_closing():
                    counts.cut += 1
                    self.reset() if how == "reset" else self.close()
            case Pass() | Refuse() | DropReplies() | Cut():
                await self._write(piece, writer, way)
            case never:
                assert_never(never)

    async def _write(self, piece: bytes, writer: asyncio.StreamWriter, way: Literal["up", "down"]) -> None:
        if piece and not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            if way == "up":
                self._proxy.counts.bytes_up += len(piece)
            else:
                self.passed += len(piece)
                self._proxy.counts.bytes_down += len(piece)

    def reset(self) -> None:
        """End both connections with RST."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError, AttributeError):  # closed already: by some event loops it is gone then
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def close(self) -> None:
        """End both connections with FIN, after what is on its way."""
        for writer in self._writers:
            writer.close()


def _bound(port: int) -> socket.socket:
    """A socket that owns the port and does not listen yet; another of these may share it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock
