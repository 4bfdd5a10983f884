"""The ports `Log`, `Fleet` and `Transactions` on a SQLite file, for several replica processes of one machine."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from dalsegno.core.append import Decide, Decision, Known
from dalsegno.core.claim import Claimed
from dalsegno.core.event import Event
from dalsegno.core.session import Session
from dalsegno.ports import Member, Page, Query, Ref, Transaction
from dalsegno.stores.sqlite import shelf as shelving
from dalsegno.stores.sqlite.file import clock_ms, prepare, translating
from dalsegno.stores.sqlite.fleet import SqliteFleet
from dalsegno.stores.sqlite.readers import Readers
from dalsegno.stores.sqlite.rows import Rows
from dalsegno.stores.sqlite.tool import transaction
from dalsegno.stores.sqlite.writer import Writer

R = TypeVar("R")
CLAIMED_MAX = 256
READ_NEAR_MAX = 64


class SqliteLog:
    """Sessions and their events in one file, and the replicas that run them. Make it with `open`."""

    def __init__(self, path: Path) -> None:
        prepare(path, product="sqlite")
        self._path = path
        self._rows = Rows()
        with translating():
            self._writer = Writer(path)
            self._readers = Readers(path, self._rows.for_reading())
        self._fleet = SqliteFleet(path, self._writer, self._readers)

    @classmethod
    async def open(cls, path: Path) -> "SqliteLog":
        """Open the file, and make it if there is none. Raises `ConfigError`, `Unreadable` or `Unavailable`."""
        return await asyncio.to_thread(cls, path)

    async def commit(self, ref: Ref, decide: Decide[R], *, digest: bytes | None = None) -> Decision[R]:
        """See port `Log`."""
        carry_out = self._rows.carry_out
        return await self._writer.do(lambda cursor, now: carry_out(cursor, ref, decide, digest, now))

    async def load(self, ref: Ref) -> Session | None:
        """See port `Log`."""
        return await self._readers.near(lambda rows, cursor: rows.load(cursor, ref))

    async def read(self, ref: Ref, *, after: int, limit: int = 1000) -> Sequence[Event]:
        """See port `Log`. A long stretch is read from a thread."""
        first = min(limit, READ_NEAR_MAX)
        events = await self._readers.near(lambda rows, cursor: rows.read(cursor, ref, after, first))
        if len(events) < first or first == limit:
            return events
        last = events[-1].seq
        return events + await self._readers.far(lambda rows, cursor: rows.read(cursor, ref, last, limit - first))

    async def heads(self, refs: Sequence[Ref]) -> Mapping[Ref, int]:
        """See port `Log`. From a thread: nobody waits for it."""
        return await self._readers.far(lambda rows, cursor: rows.heads(cursor, refs))

    async def claim(self, owner: str, *, limit: int, chances: int = 1) -> Sequence[Claimed]:
        """See port `Log`. Finding nothing costs one small read and no transaction."""
        limit = min(limit, CLAIMED_MAX)
        glance = _moment(time.time_ns() // 1_000_000, 1, chances)
        if limit < 1 or not await self._readers.near(lambda rows, cursor: rows.any_claimable(cursor, owner, glance)):
            return ()
        return await self._writer.do(lambda cursor, now: self._rows.claim(cursor, owner, _moment(now, limit, chances)))

    async def list(self, tenant: str, query: Query) -> Page:
        """See port `Log`."""
        return await self._readers.far(lambda rows, cursor: rows.page(cursor, tenant, query))

    async def erase(self, ref: Ref, epoch: int) -> None:
        """See port `Log`. Only a deleted session is erased; in pieces, so that no transaction is long."""
        while await self._writer.do(lambda cursor, now: self._rows.erase_some(cursor, ref, epoch)):
            pass

    async def unerased(self, *, after: Ref | None = None, limit: int) -> Mapping[Ref, int]:
        """See port `Warm`. Finding nothing costs one small read."""
        return await self._readers.near(lambda rows, cursor: rows.unerased(cursor, after, limit))

    async def walk(self, *, after: Ref | None = None, limit: int) -> Sequence[Session]:
        """See port `Warm`."""
        return await self._readers.far(lambda rows, cursor: rows.walk(cursor, after, limit))

    async def keys(self, ref: Ref) -> Mapping[bytes, Known]:
        """See port `Warm`."""
        return await self._readers.far(lambda rows, cursor: rows.keys(cursor, ref))

    async def shelve(self, ref: Ref, shelf: bytes, *, head: int, epoch: int) -> bool:
        """See port `Warm`."""
        return await self._writer.do(lambda cursor, now: shelving.shelve(cursor, ref, shelf, head=head, epoch=epoch))

    async def unshelve(self, ref: Ref, shelf: bytes, events: Sequence[Event]) -> None:
        """See port `Warm`."""
        await self._writer.do(lambda cursor, now: shelving.unshelve(cursor, ref, shelf, events))

    async def join(self, member: Member, *, ttl: timedelta) -> None:
        """See port `Fleet`."""
        await self._fleet.join(member, ttl=ttl)

    async def bury(self) -> Sequence[str]:
        """See port `Fleet`."""
        return await self._fleet.bury()

    async def members(self) -> Sequence[Member]:
        """See port `Fleet`."""
        return await self._fleet.members()

    async def holdings(self, incarnation: str) -> Sequence[Ref]:
        """See port `Fleet`."""
        return await self._fleet.holdings(incarnation)

    async def leave(self) -> None:
        """See port `Fleet`."""
        await self._fleet.leave()

    @property
    def alone(self) -> bool:
        """See port `Transactions`."""
        return True

    def transaction(self, ref: Ref, *, timeout: timedelta) -> AbstractAsyncContextManager[Transaction]:
        """See port `Transactions`."""
        return transaction(self._path, ref, timeout=timeout)

    async def close(self) -> None:
        """Let go of files and threads. Who has not left the fleet is missed at once."""
        await self._fleet.close()
        await self._writer.close()
        await self._readers.close()


def _moment(now: int, limit: int, chances: int) -> dict[str, int]:
    return {"now": now, "clock": clock_ms(), "limit": limit, "chances": chances}
