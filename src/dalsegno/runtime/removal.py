"""A removal: all sessions of one store go to another, round by round, while both serve."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from functools import partial
from typing import Literal, TypeVar

import msgspec

from dalsegno.core.session import Session
from dalsegno.errors import Damaged, Shelved, Unavailable
from dalsegno.ports import Ref
from dalsegno.runtime.mover import Mover, Report, Route

T = TypeVar("T")
PAGE = 200
PAUSE_SECONDS = 1.0
TRIES = 10
"""How often a store may not answer, with a pause after each, before that is an error."""


class Plan(msgspec.Struct, frozen=True):
    """Which sessions, how many at once, and until when.

    A turn that runs is waited for until `patience` is over; then it is cut off, and goes on in the destination.
    `round`: until a walk finds nothing more to move. `alone`: and nobody serves the source any more. `look`: nothing is
    moved.
    """

    tenant: str | None = None
    concurrency: int = 8
    patience: timedelta = timedelta(seconds=30)
    until: Literal["round", "alone", "look"] = "round"


class Removal:
    """One run. `told` hears what became of each session, whenever something has."""

    def __init__(self, route: Route, plan: Plan, *, told: Callable[[Report], None]) -> None:
        self._route = route
        self._plan = plan
        self._told = told
        self._mover = Mover(route)
        self._room = asyncio.Semaphore(plan.concurrency)
        self._buried: set[Ref] = set()
        self._failed: set[Ref] = set()
        self._tries: dict[Ref, int] = {}
        """Sessions about which a store did not answer, and how often."""
        self._busy_since: dict[Ref, float] = {}

    async def run(self) -> None:
        """Go round until the plan is carried out. Raises `Unavailable` when a store does not come back."""
        rounds = 0
        while True:
            members = await _tried(self._route.source.members)
            moved = await self._round({member.incarnation for member in members}, rounds)
            rounds += 1
            if self._plan.until == "look" or (not moved and not (members and self._plan.until == "alone")):
                return
            if not moved or self._tries or self._busy_since:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _round(self, living: Collection[str], rounds: int) -> bool:
        """Walk past all sessions; whether there were some to be moved."""
        found = 0
        async for page in self._pages():
            mine = [session for session in page if self._is_due(session, rounds)]
            found += len(mine)
            async with asyncio.TaskGroup() as group:
                for session in mine:
                    group.create_task(self._one(session, living))
        return found > 0

    def _is_due(self, session: Session, rounds: int) -> bool:
        """What was sealed before this run is looked at once, and again while a store does not answer."""
        ref = Ref(session.tenant, session.id)
        if self._plan.tenant not in (None, session.tenant) or ref in self._failed:
            return False
        if session.deleted:
            return ref not in self._buried
        return not session.moved or rounds == 0 or ref in self._tries

    async def _one(self, session: Session, living: Collection[str]) -> None:
        ref = Ref(session.tenant, session.id)
        async with self._room:
            if self._plan.until == "look":
                report = await self._mover.check(ref)
            else:
                cut_off = self._is_out_of_patience(ref) or await self._is_orphaned(session, living)
                report = await self._mover.move(ref, when="now" if cut_off else "idle")
        self._note(report)

    def _is_out_of_patience(self, ref: Ref) -> bool:
        since = self._busy_since.get(ref)
        return since is not None and _now() - since >= self._plan.patience.total_seconds()

    async def _is_orphaned(self, session: Session, living: Collection[str]) -> bool:
        """Whether its owner is dead. One that nobody knows may have come since the round began."""
        if session.owner is None or session.owner in living:
            return False
        try:
            members = await self._route.source.members()
        except Unavailable:
            return False
        return all(member.incarnation != session.owner for member in members)

    def _note(self, report: Report) -> None:
        ref = report.ref
        if report.what == "unavailable":
            self._tries[ref] = self._tries.get(ref, 0) + 1
            if self._tries[ref] < TRIES and self._plan.until != "look":
                return
            report = msgspec.structs.replace(report, what="failed")
        if report.what == "busy":
            self._busy_since.setdefault(ref, _now())
            return
        self._tries.pop(ref, None)
        self._busy_since.pop(ref, None)
        if report.what == "buried":
            self._buried.add(ref)
        if report.what == "failed":
            self._failed.add(ref)
        self._told(report)

    async def _pages(self) -> AsyncIterator[Sequence[Session]]:
        """The whole walk. A session that cannot be read is told of, and gone on behind."""
        after: Ref | None = None
        while True:
            try:
                page = await _tried(partial(self._route.source.walk, after=after, limit=PAGE))
            except (Damaged, Shelved) as error:
                after = Ref(error.tenant, error.session)
                if after not in self._failed and self._plan.tenant in (None, after.tenant):
                    self._note(Report(after, "failed", detail=str(error)))
                continue
            if not page:
                return
            yield page
            after = Ref(page[-1].tenant, page[-1].id)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _tried(work: Callable[[], Awaitable[T]]) -> T:
    """Ask until the store answers, for a while."""
    for _ in range(TRIES - 1):
        try:
            return await work()
        except Unavailable:
            await asyncio.sleep(PAUSE_SECONDS)
    return await work()
