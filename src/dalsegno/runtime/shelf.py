"""The warm tier with its archive: what was shelved comes back from the cold tier when somebody needs it.

Wraps a `Warm`, so that nobody behind it sees a difference but the time that it takes. Bringing back is done by whoever
needs it first, on any replica, and by several at once without harm.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from typing import TypeVar

from dalsegno.core.append import Decide, Decision, Known
from dalsegno.core.archive import Segment, parse_shelf, unpack
from dalsegno.core.claim import Claimed
from dalsegno.core.event import Event
from dalsegno.core.idle import comes_back
from dalsegno.core.session import Session
from dalsegno.errors import Shelved, Unavailable, Unreadable
from dalsegno.ports import Blobs, Member, Page, Query, Ref, Transaction, Transactions, Warm

log = logging.getLogger("dalsegno.shelf")

R = TypeVar("R")
TOGETHER_MAX = 4
"""Sessions that one process brings back at the same time: each may be large."""


class Shelf:
    """A warm tier whose archived events are in `blobs`. Every promise is the inner store's.

    A segment that is missing or damaged is `Unreadable`; a cold tier that does not answer is `Unavailable`.
    """

    def __init__(self, inner: Warm, blobs: Blobs) -> None:
        self._inner = inner
        self._blobs = blobs
        self._room = asyncio.Semaphore(TOGETHER_MAX)
        self._coming: dict[tuple[Ref, bytes], asyncio.Task[None]] = {}

    async def commit(self, ref: Ref, decide: Decide[R], *, digest: bytes | None = None) -> Decision[R]:
        return await self._served(lambda: self._inner.commit(ref, decide, digest=digest))

    async def load(self, ref: Ref) -> Session | None:
        return await self._served(lambda: self._inner.load(ref))

    async def read(self, ref: Ref, *, after: int, limit: int = 1000) -> Sequence[Event]:
        return await self._served(lambda: self._inner.read(ref, after=after, limit=limit))

    async def heads(self, refs: Sequence[Ref]) -> Mapping[Ref, int]:
        return await self._inner.heads(refs)

    async def claim(self, owner: str, *, limit: int, chances: int = 1) -> Sequence[Claimed]:
        return await self._served(lambda: self._inner.claim(owner, limit=limit, chances=chances))

    async def list(self, tenant: str, query: Query) -> Page:
        return await self._served(lambda: self._inner.list(tenant, query))

    async def walk(self, *, after: Ref | None = None, limit: int) -> Sequence[Session]:
        return await self._served(lambda: self._inner.walk(after=after, limit=limit))

    async def erase(self, ref: Ref, epoch: int) -> None:
        await self._inner.erase(ref, epoch)

    async def unerased(self, *, after: Ref | None = None, limit: int) -> Mapping[Ref, int]:
        return await self._inner.unerased(after=after, limit=limit)

    async def keys(self, ref: Ref) -> Mapping[bytes, Known]:
        return await self._inner.keys(ref)

    async def shelve(self, ref: Ref, shelf: bytes, *, head: int, epoch: int) -> bool:
        return await self._inner.shelve(ref, shelf, head=head, epoch=epoch)

    async def unshelve(self, ref: Ref, shelf: bytes, events: Sequence[Event]) -> None:
        await self._inner.unshelve(ref, shelf, events)

    async def join(self, member: Member, *, ttl: timedelta) -> None:
        await self._inner.join(member, ttl=ttl)

    async def bury(self) -> Sequence[str]:
        return await self._inner.bury()

    async def members(self) -> Sequence[Member]:
        return await self._inner.members()

    async def holdings(self, incarnation: str) -> Sequence[Ref]:
        return await self._inner.holdings(incarnation)

    async def leave(self) -> None:
        await self._inner.leave()

    async def close(self) -> None:
        await self._inner.close()

    async def _served(self, ask: Callable[[], Awaitable[R]]) -> R:
        """The answer; as often as it takes events that are shelved, they are brought back first."""
        before: tuple[Ref, bytes] | None = None
        while True:
            try:
                return await ask()
            except Shelved as told:
                wanted = Ref(told.tenant, told.session), told.shelf
                if wanted == before:
                    raise Unreadable(f"session {told.session}: its archive does not hold what its log lacks") from told
                before = wanted
            await self._bring_back(*wanted)

    async def _bring_back(self, ref: Ref, shelf: bytes) -> None:
        """One does it for all that ask meanwhile, and goes on when who asked first goes away."""
        coming = self._coming.get((ref, shelf))
        if coming is None:
            coming = self._coming[ref, shelf] = asyncio.get_running_loop().create_task(self._unshelve(ref, shelf))
            coming.add_done_callback(partial(self._came, ref, shelf))
        await asyncio.wait((coming,))
        coming.result()

    def _came(self, ref: Ref, shelf: bytes, task: asyncio.Task[None]) -> None:
        del self._coming[ref, shelf]
        if not task.cancelled():
            # Whoever asked may have gone away.
            task.exception()

    async def _unshelve(self, ref: Ref, shelf: bytes) -> None:
        async with self._room:
            try:
                events = [event for segment in parse_shelf(ref, shelf) for event in await self._fetch(ref, segment)]
            except Unreadable:
                if await self._still(ref, shelf):
                    raise
                return
            try:
                # First, so that the archive is swept away also if we die in between.
                await self._inner.commit(ref, comes_back)
                await self._inner.unshelve(ref, shelf, events)
            except Unavailable as error:
                # Whether the events came back or not: what was asked for was not done.
                raise Unavailable(error.detail, outcome="not_applied") from error
        log.info("session %s came back from the archive with %d events", ref.id, len(events))

    async def _fetch(self, ref: Ref, segment: Segment) -> Sequence[Event]:
        content = await self._blobs.get(segment.name)
        if content is None:
            raise Unreadable(f"session {ref.id}: its archived segment {segment.name} is missing")
        return unpack(ref, segment, content)

    async def _still(self, ref: Ref, shelf: bytes) -> bool:
        """Whether the events are still on that shelf: somebody else may have brought them back, or deleted them."""
        try:
            await self._inner.read(ref, after=0, limit=1)
        except Shelved as told:
            return told.shelf == shelf
        return False


class TransactionalShelf(Shelf):
    """The same of a warm tier whose database tools may share."""

    def __init__(self, inner: Warm, transactions: Transactions, blobs: Blobs) -> None:
        super().__init__(inner, blobs)
        self._transactions = transactions

    @property
    def alone(self) -> bool:
        return self._transactions.alone

    def transaction(self, ref: Ref, *, timeout: timedelta) -> AbstractAsyncContextManager[Transaction]:
        return self._transactions.transaction(ref, timeout=timeout)


def with_shelf(warm: Warm, blobs: Blobs) -> Warm:
    """The same tier with its archive; it offers transactions if and only if it did before."""
    if isinstance(warm, Transactions):
        return TransactionalShelf(warm, warm, blobs)
    return Shelf(warm, blobs)
