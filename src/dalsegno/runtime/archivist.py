"""The archivist: walks past all sessions and does what `core.idle` says of those that nobody touches.

Several archivists at once do no harm, since every step is fenced; one suffices, so only the replica whose incarnation
is the smallest walks, and no more than a page of sessions a call.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

import msgspec

from dalsegno.core.append import Decide, Decision, Fenced, Keep, Known, Refusal
from dalsegno.core.archive import Segment, cut, pack, shelf_bytes
from dalsegno.core.event import Event
from dalsegno.core.idle import Policy, due, erase_once_more, fence, swept, unwanted
from dalsegno.core.lifecycle import artifact_of, drop, half
from dalsegno.core.session import Session
from dalsegno.core.tier import folder
from dalsegno.errors import Damaged, Unavailable, Unreadable
from dalsegno.ports import Blobs, Ref, Warm
from dalsegno.runtime.duty import Duty
from dalsegno.runtime.eraser import Eraser
from dalsegno.runtime.reading import pages

log = logging.getLogger("dalsegno.archivist")

R = TypeVar("R")
EVERY = timedelta(minutes=10)
PAUSE = timedelta(seconds=1)
PAGE = 500
AT_ONCE = 16
"""How many of a page's sessions are worked on in one call."""
LISTED = 1000
NOBODY = Ref("", "00000000-0000-0000-0000-000000000000")


class Tally(msgspec.Struct):
    """What a walk has come to so far."""

    seen: int = 0
    archived: int = 0
    swept: int = 0
    removed: int = 0
    """Objects that nothing pointed to."""
    failed: int = 0


class Archivist:
    """Walks past all sessions, a piece at a time. `warm` must be one that brings back what is shelved."""

    def __init__(
        self, warm: Warm, blobs: Blobs, *, eraser: Eraser, policy: Policy, incarnation: str | None = None
    ) -> None:
        self.tally = Tally()
        """Of the walk under way, or of the last one."""
        self._warm = warm
        self._blobs = blobs
        self._policy = policy
        self._incarnation = incarnation
        self._eraser = eraser
        self._after: Ref | None = None
        self._waiting: list[tuple[Session, int]] = []

    async def may_walk(self) -> bool:
        """Whether it is this replica that walks, if anybody has to."""
        if self._policy.archive_after is None and self._policy.sweep_after is None:
            return False
        members = await self._warm.members()
        return self._incarnation == min((member.incarnation for member in members), default=None)

    async def go_on(self) -> bool:
        """Look at one more page, or work on what the last one left; whether the walk is over. The next begins anew."""
        if not self._waiting and not await self._turn_page():
            self._after = None
            return True
        for _ in range(min(AT_ONCE, len(self._waiting))):
            session, now = self._waiting.pop(0)
            try:
                await self._tend(session, now)
            except Unreadable as error:
                self.tally.failed += 1
                log.error("session %s cannot be archived or swept, an operator must look: %s", session.id, error)
        return False

    async def _turn_page(self) -> bool:
        if self._after is None:
            self.tally = Tally()
        try:
            page = await self._warm.walk(after=self._after, limit=PAGE)
        except Damaged as error:
            self.tally.failed += 1
            self._after = Ref(error.tenant, error.session)
            log.error("session %s cannot be read, an operator must look: %s", error.session, error)
            return True
        if not page:
            return False
        self._after = Ref(page[-1].tenant, page[-1].id)
        self.tally.seen += len(page)
        now = await self._commit(NOBODY, _clock)
        self._waiting = [(session, now) for session in page if due(session, now, self._policy) is not None]
        return True

    async def _tend(self, session: Session, now: int) -> None:
        ref = Ref(session.tenant, session.id)
        if session.deleted:
            await self._commit(ref, erase_once_more)
        elif half(session):
            await self._commit(ref, drop)
        elif due(session, now, self._policy) == "archive":
            await self._archive(ref, session)
        else:
            await self._sweep(ref, session)

    async def _archive(self, ref: Ref, seen: Session) -> None:
        fenced = await self._commit(ref, partial(fence, seen=seen))
        if fenced is None:
            return
        segments: list[Segment] = []
        wanted: set[str] = set()
        async for stretch in self._stretches(ref, fenced.head):
            segment, content = pack(ref, fenced.epoch, stretch)
            await self._blobs.put(segment.name, content)
            segments.append(segment)
            wanted.update(_pointed_to(ref, stretch))
        if await self._warm.shelve(ref, shelf_bytes(segments), head=fenced.head, epoch=fenced.epoch):
            self.tally.archived += 1
            wanted.update(segment.name for segment in segments)
            await self._remove_unwanted(ref, fenced, wanted)
        else:
            # Somebody came. What was put is swept away next time, or now if the session was deleted.
            await self._eraser.again(ref, closing=lambda: True)

    async def _sweep(self, ref: Ref, seen: Session) -> None:
        if not await self._blobs.list(folder(ref.tenant, ref.id), limit=1):
            await self._commit(ref, partial(swept, seen=seen))
            return
        fenced = await self._commit(ref, partial(fence, seen=seen))
        if fenced is None:
            return
        wanted: set[str] = set()
        async for stretch in self._stretches(ref, fenced.head):
            wanted.update(_pointed_to(ref, stretch))
        await self._remove_unwanted(ref, fenced, wanted)
        self.tally.swept += 1

    async def _remove_unwanted(self, ref: Ref, fenced: Session, wanted: set[str]) -> None:
        names = [name async for name in self._objects(ref)]
        for name in unwanted(names, epoch=fenced.epoch, wanted=wanted):
            await self._blobs.delete(name)
            self.tally.removed += 1
        await self._commit(ref, partial(swept, seen=fenced))

    async def _objects(self, ref: Ref) -> AsyncIterator[str]:
        after = ""
        while names := await self._blobs.list(folder(ref.tenant, ref.id), after=after, limit=LISTED):
            for name in names:
                yield name
            after = names[-1]

    async def _stretches(self, ref: Ref, head: int) -> AsyncIterator[Sequence[Event]]:
        """The log up to `head`, in stretches that are a segment each."""
        rest: Sequence[Event] = ()
        async for events in pages(self._warm.read, ref, through=head):
            *whole, rest = cut([*rest, *events])
            for stretch in whole:
                yield stretch
        if rest:
            yield rest

    async def _commit(self, ref: Ref, decide: Decide[R]) -> R:
        decision = await self._warm.commit(ref, decide)
        if isinstance(decision, Refusal | Fenced):
            raise Unavailable(f"session {ref.id}: others write it all the time", outcome="not_applied")
        return decision.result


class Archiving:
    """The archivist at work beside a replica: a piece of a walk every `pause`, and a new walk `every` so long."""

    def __init__(self, archivist: Archivist, *, every: timedelta = EVERY, pause: timedelta = PAUSE) -> None:
        self._archivist = archivist
        self._every = every.total_seconds()
        self._duty = Duty("archive", self._verb, interval=pause)
        self._rests_until = 0.0

    def start(self) -> None:
        """Begin; the first walk comes at once."""
        self._duty.start()

    async def stop(self) -> None:
        """End it behind the piece that is under way."""
        await self._duty.stop()

    async def _verb(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._rests_until:
            return
        if not await self._archivist.may_walk() or await self._archivist.go_on():
            self._rests_until = loop.time() + self._every


def _pointed_to(ref: Ref, events: Sequence[Event]) -> Iterator[str]:
    for event in events:
        artifact = artifact_of(event)
        if artifact is not None:
            yield artifact.name(ref.tenant)


def _clock(session: Session | None, known: Known | None, now: int) -> Decision[int]:
    """The store's clock, which idle times are measured by (law 11)."""
    return Keep(now)
