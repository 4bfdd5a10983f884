"""One replica's handle of a memory database: the ports `Log`, `Fleet` and `Transactions`.

A handle yields to the event loop where a database would be waited for: before and after the atomic part, never inside
it. So the races that exist on a real database exist here, and a schedule of the loop decides them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypeVar

import msgspec

from dalsegno.core.append import Decide, Decision, Known, Write
from dalsegno.core.claim import Claimed
from dalsegno.core.event import Event
from dalsegno.core.session import Session
from dalsegno.errors import Refused, TookTooLong, Unavailable
from dalsegno.ports import Member, Page, Query, Ref, Transaction
from dalsegno.stores.memory.database import MemoryDatabase

R = TypeVar("R")
Beat = Callable[[Callable[[], None], timedelta], Coroutine[None, None, None]]
"""(renew, every): call `renew` so often, until cancelled."""


async def beat_on_loop(renew: Callable[[], None], every: timedelta) -> None:
    """The beat of a replica whose event loop is its only thread."""
    while True:
        await asyncio.sleep(every.total_seconds())
        renew()


class MemoryLog:
    """One replica's handle of a database: the ports `Warm` and `Transactions`."""

    def __init__(self, database: MemoryDatabase, *, beat: Beat = beat_on_loop) -> None:
        self.database = database
        self.member: Member | None = None
        self._beat = beat
        self._beating: asyncio.Task[None] | None = None
        self._closed = False

    async def commit(self, ref: Ref, decide: Decide[R], *, digest: bytes | None = None) -> Decision[R]:
        await self._arrive()
        decision = self.database.decide(ref, decide, digest=digest)
        await asyncio.sleep(0)
        return decision

    async def load(self, ref: Ref) -> Session | None:
        await self._arrive()
        row = self.database.rows.get(ref)
        session = None if row is None else self.database.session(ref, row)
        await asyncio.sleep(0)
        return session

    async def read(self, ref: Ref, *, after: int, limit: int = 1000) -> Sequence[Event]:
        await self._arrive()
        row = self.database.rows.get(ref)
        events = [] if row is None else self.database.events(ref, row, after=after, limit=limit)
        await asyncio.sleep(0)
        return events

    async def heads(self, refs: Sequence[Ref]) -> Mapping[Ref, int]:
        await self._arrive()
        heads = {ref: self.database.rows[ref].head for ref in refs if ref in self.database.rows}
        await asyncio.sleep(0)
        return heads

    async def claim(self, owner: str, *, limit: int, chances: int = 1) -> Sequence[Claimed]:
        await self._arrive()
        claimed = self.database.claim(owner, limit=limit, chances=chances)
        await asyncio.sleep(0)
        return claimed

    async def list(self, tenant: str, query: Query) -> Page:
        await self._arrive()
        page = self.database.page(tenant, query)
        await asyncio.sleep(0)
        return page

    async def erase(self, ref: Ref, epoch: int) -> None:
        """Only a deleted session is erased; for any other this does nothing. In pieces, as a database would."""
        await self._arrive()
        while self.database.erase_some(ref, epoch):
            await self._arrive()
        await asyncio.sleep(0)

    async def unerased(self, *, after: Ref | None = None, limit: int) -> Mapping[Ref, int]:
        await self._arrive()
        found = self.database.unerased(after, limit)
        await asyncio.sleep(0)
        return found

    async def walk(self, *, after: Ref | None = None, limit: int) -> Sequence[Session]:
        await self._arrive()
        found = self.database.walk(after, limit)
        await asyncio.sleep(0)
        return found

    async def keys(self, ref: Ref) -> Mapping[bytes, Known]:
        await self._arrive()
        known = self.database.keys(ref)
        await asyncio.sleep(0)
        return known

    async def shelve(self, ref: Ref, shelf: bytes, *, head: int, epoch: int) -> bool:
        await self._arrive()
        done = self.database.shelve(ref, shelf, head=head, epoch=epoch)
        await asyncio.sleep(0)
        return done

    async def unshelve(self, ref: Ref, shelf: bytes, events: Sequence[Event]) -> None:
        await self._arrive()
        self.database.unshelve(ref, shelf, events)
        await asyncio.sleep(0)

    async def join(self, member: Member, *, ttl: timedelta) -> None:
        await self._arrive()
        self._stop_beating()
        self.member = member
        self.database.renew(member, ttl)
        self._beating = asyncio.create_task(self._beat(lambda: self.database.renew(member, ttl), ttl / 3))

    async def bury(self) -> Sequence[str]:
        await self._arrive()
        return self.database.bury()

    async def members(self) -> Sequence[Member]:
        await self._arrive()
        records = self.database.members.items()
        return [record.member for incarnation, record in records if self.database.alive(incarnation)]

    async def holdings(self, incarnation: str) -> Sequence[Ref]:
        await self._arrive()
        return [ref for ref, row in self.database.rows.items() if row.owner == incarnation]

    async def leave(self) -> None:
        await self._arrive()
        self._stop_beating()
        if self.member is not None:
            self.database.members.pop(self.member.incarnation, None)
            self.member = None

    async def close(self) -> None:
        """Stop beating. A member that did not leave first is missed when its time to live is over."""
        self._stop_beating()
        self._closed = True

    @property
    def alone(self) -> bool:
        return False

    @asynccontextmanager
    async def transaction(self, ref: Ref, *, timeout: timedelta) -> AsyncIterator[Transaction]:
        """The scratch table of the database, for one transaction at a time; see `MemoryTransaction`."""
        await self._arrive()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout.total_seconds()
        try:
            async with asyncio.timeout_at(deadline):
                await self.database.scratch_lock.acquire()
        except TimeoutError:
            raise Unavailable("the database is busy with another transaction", outcome="not_applied") from None
        transaction = MemoryTransaction(self.database, ref)
        timer = loop.call_at(deadline, transaction.expire)
        try:
            yield transaction
        finally:
            timer.cancel()
            transaction.undo()

    async def _arrive(self) -> None:
        await asyncio.sleep(0)
        if self._closed:
            raise Unavailable("this handle is closed", outcome="not_applied")

    def _stop_beating(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None


class MemoryTransaction:
    """A tool's transaction. The database has one table of names, and understands three statements:

    `get` (name) gives its value, if it has one; `set` (name, value); `add` (name, amount) gives the new sum. Values are
    what MessagePack can hold. The lock on the table is held until commit, undo or expiry.
    """

    def __init__(self, database: MemoryDatabase, ref: Ref) -> None:
        self._database = database
        self._ref = ref
        self._written: dict[str, bytes] = {}
        self._open = True
        self._expired = False

    async def execute(self, statement: str, parameters: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        await self._arrive()
        match statement, *parameters:
            case "get", str(name):
                return [(value,) for value in self._look(name)]
            case "set", str(name), value:
                self._written[name] = msgspec.msgpack.encode(value)
                return []
            case "add", str(name), int(amount):
                total = amount + sum(value for value in self._look(name) if isinstance(value, int))
                self._written[name] = msgspec.msgpack.encode(total)
                return [(total,)]
            case _:
                raise Refused("invalid_request", f"memory knows get, set and add, not {statement!r} with these values")

    async def commit(self, decide: Decide[R]) -> Decision[R]:
        await self._arrive()
        try:
            decision = self._database.decide(self._ref, decide)
            if isinstance(decision, Write):
                self._database.scratch.update(self._written)
        finally:
            self.undo()
        await asyncio.sleep(0)
        return decision

    def undo(self) -> None:
        """Forget what was not committed and let others begin."""
        if self._open:
            self._open = False
            self._written = {}
            self._database.scratch_lock.release()

    def expire(self) -> None:
        """The time is over."""
        self._expired = self._open
        self.undo()

    def _look(self, name: str) -> Sequence[object]:
        content = self._written.get(name, self._database.scratch.get(name))
        return [] if content is None else [msgspec.msgpack.decode(content)]

    async def _arrive(self) -> None:
        await asyncio.sleep(0)
        if self._expired:
            raise TookTooLong()
        if not self._open:
            raise Refused("invalid_request", "the transaction has ended")
