"""The mover: takes one session from one store to another, while both serve. Decides nothing (`core.move` does).

Whatever interrupts it, wherever: done again, it goes on from what the two logs say.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import msgspec

from dalsegno.core.append import Refusal
from dalsegno.core.event import Event
from dalsegno.core.move import Luggage, Standing, When, differences, inter, land, readable, seal, standing
from dalsegno.core.session import Session
from dalsegno.errors import LeaseLost, Refused, Unavailable, Unreadable
from dalsegno.ports import Log, Ref, Warm
from dalsegno.runtime.decided import result_of
from dalsegno.runtime.reading import pages

What = Literal["moved", "there", "buried", "movable", "busy", "unavailable", "failed"]


class Route(msgspec.Struct, frozen=True):
    """From which store to which, and what the sessions' logs call the two."""

    source: Warm
    target: Warm
    origin: str
    to: str


class Report(msgspec.Struct, frozen=True):
    """What became of one session.

    `moved`: it lives in the destination now. `there`: it did already. `buried`: it was deleted, and is deleted there.
    Each of these was read again in the destination. `movable`: nothing was tried. `busy`: its turn runs. `unavailable`:
    a store did not answer. `failed`: an operator must look; `detail` says why.
    """

    ref: Ref
    what: What
    events: int = 0
    bytes: int = 0
    detail: str = ""


class Mover:
    """Moves sessions along a route, one a call."""

    def __init__(self, route: Route) -> None:
        self._route = route

    async def move(self, ref: Ref, *, when: When) -> Report:
        """Move the session, or finish moving it, and compare. With `idle`, one whose turn runs is left alone."""
        try:
            there, session = await self._known(ref)
            if session.deleted:
                return await self._bury(ref, session)
            luggage, how = await self._look(ref, session, there)
            if how != "there":
                sealed = await self._seal(ref, luggage, when)
                if sealed is None:
                    return Report(ref, "busy")
                luggage = sealed
                decide = partial(land, luggage=luggage, origin=self._route.origin, after=there.head if there else 0)
                result_of(await self._route.target.commit(ref, decide))
            await self._compare(ref, luggage)
        except Unreadable as error:
            return await self._damaged(ref, error)
        except Refused as error:
            return Report(ref, "unavailable" if error.code == "session_busy" else "failed", detail=error.detail)
        except (Unavailable, LeaseLost) as error:
            return Report(ref, "unavailable", detail=str(error))
        return _report("there" if how == "there" else "moved", ref, luggage)

    async def check(self, ref: Ref) -> Report:
        """Read all of the session, in both stores, and say whether it could be moved. Writes nothing."""
        try:
            there, session = await self._known(ref)
            if session.deleted:
                return Report(ref, "movable")
            luggage, how = await self._look(ref, session, there)
            if how == "there":
                await self._compare(ref, luggage)
        except Unreadable as error:
            return await self._damaged(ref, error)
        except Refused as error:
            return Report(ref, "failed", detail=error.detail)
        except Unavailable as error:
            return Report(ref, "unavailable", detail=str(error))
        return _report("there" if how == "there" else "movable", ref, luggage)

    async def _known(self, ref: Ref) -> tuple[Session | None, Session]:
        """The session in the destination, and here. In this order: what another mover settled there is sealed here."""
        there = await self._route.target.load(ref)
        session = await self._route.source.load(ref)
        if session is None:
            raise Unreadable(f"session {ref.id} vanished")
        return there, session

    async def _look(self, ref: Ref, session: Session, there: Session | None) -> tuple[Luggage, Standing]:
        """What it has in both stores, before anything is written. Raises what makes it impossible to move."""
        events = await _read(self._route.source, ref, through=session.head)
        readable(session, events)
        keys = await self._route.source.keys(ref)
        alive = there is not None and not there.deleted
        theirs = await _read(self._route.target, ref, through=there.head) if there is not None and alive else []
        how = standing(session, events, there, theirs, to=self._route.to)
        if isinstance(how, Refusal):
            raise Refused(how.code, how.detail)
        return Luggage(session, events, keys), how

    async def _seal(self, ref: Ref, luggage: Luggage, when: When) -> Luggage | None:
        """The session as nobody writes it any more, in this store; None if its turn runs and it is to be left alone."""
        source = self._route.source
        decision = await source.commit(ref, partial(seal, to=self._route.to, when=when))
        if isinstance(decision, Refusal):
            return None
        sealed = result_of(decision)
        if sealed is None or sealed.deleted or sealed.moved != self._route.to:
            raise Unavailable("somebody else had it meanwhile", outcome="not_applied")
        rest = await _read(source, ref, through=sealed.head, after=luggage.session.head)
        return Luggage(sealed, [*luggage.events, *rest], await source.keys(ref))

    async def _compare(self, ref: Ref, luggage: Luggage) -> None:
        """Read back what the destination holds now. Raises `Unreadable` for whatever is not the same."""
        target = self._route.target
        there = await target.load(ref)
        if there is None:
            raise Unreadable(f"session {ref.id} is not in the destination")
        if there.deleted:
            return
        events = await _read(target, ref, through=there.head)
        wrong = differences(luggage, Luggage(there, events, await target.keys(ref)))
        if wrong:
            raise Unreadable(f"session {ref.id} is not the same in the destination: {'; '.join(wrong)}")

    async def _bury(self, ref: Ref, grave: Session) -> Report:
        result_of(await self._route.target.commit(ref, partial(inter, grave=grave, origin=self._route.origin)))
        there = await self._route.target.load(ref)
        if there is None or not there.deleted:
            raise Unreadable(f"session {ref.id} is deleted, and is not in the destination")
        return Report(ref, "buried")

    async def _damaged(self, ref: Ref, error: Unreadable) -> Report:
        """What could not be read, or is not the same: unless it was deleted, and erased, while it was being read."""
        try:
            for store in (self._route.source, self._route.target):
                session = await store.load(ref)
                if session is not None and session.deleted:
                    return Report(ref, "unavailable", detail="it was deleted meanwhile")
        except (Unreadable, Unavailable):
            pass
        return Report(ref, "failed", detail=str(error))


async def _read(log: Log, ref: Ref, *, through: int, after: int = 0) -> Sequence[Event]:
    return [event async for page in pages(log.read, ref, through=through, after=after) for event in page]


def _report(what: What, ref: Ref, luggage: Luggage) -> Report:
    return Report(ref, what, len(luggage.events), sum(len(event.data) for event in luggage.events))
