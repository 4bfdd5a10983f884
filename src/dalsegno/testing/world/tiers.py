"""The log as one replica of the world meets it: the memory store behind everything that can go wrong on the way.

A port's promises are kept here, and no more than them: an answer may be lost, a call may take long or fail. A call of a
replica that died returns to nobody. In one thing it is harsher than the port: a commit that is late may arrive after
its caller was cancelled and told so (`Log`, 8).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

from dalsegno.core.append import Decide, Decision, Known, Write
from dalsegno.core.claim import Claimed
from dalsegno.core.event import Event
from dalsegno.core.session import Session
from dalsegno.errors import DalsegnoError, LeaseLost, Unavailable
from dalsegno.ports import Member, Page, Query, Ref, Transaction
from dalsegno.stores.memory import MemoryLog
from dalsegno.testing.world.loop import Process
from dalsegno.testing.world.weather import Weather

R = TypeVar("R")
HOT_SECONDS = 0.25


class Line:
    """The way from one replica to one tier."""

    def __init__(self, tier: str, process: Process, weather: Weather) -> None:
        self.tier = tier
        self.process = process
        self.weather = weather
        self.late: list[asyncio.Task[None]] = []

    async def call(self, name: str, work: Callable[[], Awaitable[R]]) -> R:
        """Carry one call there and its answer back, or what the weather makes of it."""
        weather, point = self.weather, f"{self.tier}.{name}"
        await self.reach(f"{point}:before")
        fault = weather.strikes(self.process, point) if weather.armed else None
        await asyncio.sleep(
            weather.chance.random() * 0.004 + weather.slow.get(self.tier, 0.0) * weather.chance.random()
        )
        if self.broken():
            if self.tier == "hot":
                await asyncio.sleep(HOT_SECONDS)
            raise Unavailable(f"no way to {self.tier}", outcome="not_applied")
        if fault is not None:
            return await self._struck(fault, point, work)
        result = await work()
        if self.broken():
            raise Unavailable(f"no way back from {self.tier}", outcome="unknown")
        if name == "commit":
            await self.reach(f"{point}[{_written(result)}]:after")
        await self.reach(f"{point}:after")
        return result

    def broken(self) -> bool:
        """Whether nothing gets through now."""
        weather = self.weather
        if self.tier in weather.down:
            return True
        return self.tier == "log" and self.process.incarnation in weather.cut

    async def reach(self, point: str) -> None:
        """Come past a crash point, and stay there for ever if it was deadly."""
        self.weather.reaches(self.process, point)
        if self.process.dead:
            await asyncio.get_running_loop().create_future()

    async def _struck(self, fault: str, point: str, work: Callable[[], Awaitable[R]]) -> R:
        if fault == "late" and point == "log.join":
            # the beat that follows a join is the process's own: it must not begin after the process's death
            fault = "lost on the way"
        self.weather.count(fault)
        self.weather.note(fault, self.process.incarnation, point)
        match fault:
            case "not applied":
                raise Unavailable("refused by the weather", outcome="not_applied")
            case "lost on the way":
                raise Unavailable("lost on the way", outcome="unknown")
            case "answer lost":
                await work()
                raise Unavailable("the answer was lost", outcome="unknown")
            case "late":
                # the request arrives long after its sender gave up, and perhaps after it lost its lease
                loop = asyncio.get_running_loop()
                seconds = 0.2 + 2.5 * self.weather.chance.random()
                server = Process(f"log for {self.process.name}", self.process.incarnation)
                self.late.append(loop.create_task(_later(work, seconds), context=server.context))
                await asyncio.sleep(0.3)
                raise Unavailable("no answer in time", outcome="unknown")
            case _:
                raise AssertionError(fault)


async def _later(work: Callable[[], Awaitable[R]], seconds: float) -> None:
    await asyncio.sleep(seconds)
    try:
        await work()
    except (DalsegnoError, LeaseLost):
        return  # an answer that nobody waits for any more


def _written(result: object) -> str:
    if isinstance(result, Write) and result.events:
        return result.events[-1].type
    return "nothing"


class FaultyLog:
    """A replica's handle of the log: the ports `Warm` and `Transactions`."""

    def __init__(self, inner: MemoryLog, line: Line) -> None:
        self._inner = inner
        self._line = line

    async def commit(self, ref: Ref, decide: Decide[R], *, digest: bytes | None = None) -> Decision[R]:
        return await self._line.call("commit", lambda: self._inner.commit(ref, decide, digest=digest))

    async def load(self, ref: Ref) -> Session | None:
        return await self._line.call("load", lambda: self._inner.load(ref))

    async def read(self, ref: Ref, *, after: int, limit: int = 1000) -> Sequence[Event]:
        return await self._line.call("read", lambda: self._inner.read(ref, after=after, limit=limit))

    async def heads(self, refs: Sequence[Ref]) -> Mapping[Ref, int]:
        return await self._line.call("heads", lambda: self._inner.heads(refs))

    async def claim(self, owner: str, *, limit: int, chances: int = 1) -> Sequence[Claimed]:
        return await self._line.call("claim", lambda: self._inner.claim(owner, limit=limit, chances=chances))

    async def list(self, tenant: str, query: Query) -> Page:
        return await self._line.call("list", lambda: self._inner.list(tenant, query))

    async def erase(self, ref: Ref, epoch: int) -> None:
        return await self._line.call("erase", lambda: self._inner.erase(ref, epoch))

    async def unerased(self, *, after: Ref | None = None, limit: int) -> Mapping[Ref, int]:
        return await self._line.call("unerased", lambda: self._inner.unerased(after=after, limit=limit))

    async def walk(self, *, after: Ref | None = None, limit: int) -> Sequence[Session]:
        return await self._line.call("walk", lambda: self._inner.walk(after=after, limit=limit))

    async def keys(self, ref: Ref) -> Mapping[bytes, Known]:
        return await self._line.call("keys", lambda: self._inner.keys(ref))

    async def shelve(self, ref: Ref, shelf: bytes, *, head: int, epoch: int) -> bool:
        return await self._line.call("shelve", lambda: self._inner.shelve(ref, shelf, head=head, epoch=epoch))

    async def unshelve(self, ref: Ref, shelf: bytes, events: Sequence[Event]) -> None:
        return await self._line.call("unshelve", lambda: self._inner.unshelve(ref, shelf, events))

    async def join(self, member: Member, *, ttl: timedelta) -> None:
        return await self._line.call("join", lambda: self._inner.join(member, ttl=ttl))

    async def bury(self) -> Sequence[str]:
        return await self._line.call("bury", self._inner.bury)

    async def members(self) -> Sequence[Member]:
        return await self._line.call("members", self._inner.members)

    async def holdings(self, incarnation: str) -> Sequence[Ref]:
        return await self._line.call("holdings", lambda: self._inner.holdings(incarnation))

    async def leave(self) -> None:
        return await self._line.call("leave", self._inner.leave)

    async def close(self) -> None:
        return await self._inner.close()

    @property
    def alone(self) -> bool:
        return self._inner.alone

    @asynccontextmanager
    async def transaction(self, ref: Ref, *, timeout: timedelta) -> AsyncIterator[Transaction]:
        """A transaction is the server's: when its client dies or is silent, the server undoes it."""
        server = Process(f"log for {self._line.process.name}", self._line.process.incarnation)
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[Transaction] = loop.create_future()
        over = asyncio.Event()

        async def hold() -> None:
            try:
                async with self._inner.transaction(ref, timeout=timeout) as transaction:
                    if not begun.done():
                        begun.set_result(transaction)
                    while not over.is_set() and not self._line.process.dead:
                        try:
                            await asyncio.wait_for(over.wait(), 0.1)
                        except TimeoutError:
                            continue
            except Unavailable as error:
                if not begun.done():
                    begun.set_exception(error)

        async def begin() -> Transaction:
            self._line.late.append(loop.create_task(hold(), context=server.context))
            return await begun

        try:
            yield FaultyTransaction(await self._line.call("begin", begin), self._line, server)
        finally:
            over.set()


class FaultyTransaction:
    """A tool's transaction, statement by statement over the same line."""

    def __init__(self, inner: Transaction, line: Line, server: Process) -> None:
        self._inner = inner
        self._line = line
        self._server = server

    async def execute(self, statement: str, parameters: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        return await self._line.call(
            "execute", lambda: self._at_server(lambda: self._inner.execute(statement, parameters))
        )

    async def commit(self, decide: Decide[R]) -> Decision[R]:
        return await self._line.call("close", lambda: self._at_server(lambda: self._inner.commit(decide)))

    async def _at_server(self, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        task = asyncio.get_running_loop().create_task(work(), context=self._server.context)
        task.add_done_callback(_seen, context=self._server.context)
        return await task


def _seen(task: "asyncio.Task[Any]") -> None:
    """A client that went away does not ask what became of its statement."""
    if not task.cancelled():
        task.exception()
