"""What somebody does with whole sessions while people talk in them: delete one, fork one, take a copy of one along.

Whoever does it believes nothing, either: what is exported is compared with what was ever written, and what was asked
for twice, because an answer was lost, may have been done twice.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from dalsegno.core.event import Event
from dalsegno.core.lifecycle import missing_text
from dalsegno.errors import Refused, Unavailable, Unreadable
from dalsegno.ports import Ref
from dalsegno.runtime.service import Service
from dalsegno.testing.world.fleet import ConnectionLost, Tiers
from dalsegno.testing.world.people import Town

T = TypeVar("T")
replace = msgspec.structs.replace
SECONDS = 7.0
ERRANDS = ("delete", "fork", "fork", "copy", "both")
DONE = ("deleted", "forked", "copied")
"""What must have come off somewhere in a run of worlds."""
DEMANDED = {
    **dict.fromkeys(("log.commit[session.created]:after", "blobs.get:before", "blobs.get:after"), "fork"),
    **dict.fromkeys(("log.erase:before", "log.erase:after", "blobs.delete:before", "blobs.delete:after"), "delete"),
    "log.commit[session.deleted]:after": "delete",
}
"""What is certainly done in the worlds of places that nothing else leads past."""


class Errands:
    """One world's. `demanded` is done in any case, in the first session, when most has been said there."""

    def __init__(self, town: Town, tiers: Tiers, chance: random.Random, *, demanded: str | None) -> None:
        self.copies: list[Ref] = []
        """Forks and imports that somebody knows of, and may go on in."""
        self._town = town
        self._tiers = tiers
        self._chance = chance
        self._demanded = demanded

    async def run(self, refs: Sequence[Ref]) -> None:
        """A few errands, at any moment, in any of these sessions and of those that came of them."""
        loop, chance = self._tiers.loop, self._chance
        plan = [(SECONDS * chance.random(), chance.choice(ERRANDS)) for _ in range(chance.choice((0, 0, 1, 2)))]
        if self._demanded is not None:
            plan.append((0.6 * SECONDS, self._demanded))
        for number, (when, errand) in enumerate(sorted(plan)):
            await asyncio.sleep(max(0.0, when - loop.time()))
            ref = refs[0] if errand == self._demanded else chance.choice([*refs, *self.copies])
            if not self._town.watch.log(ref):
                continue
            match errand:
                case "delete":
                    await self._in_the_middle(ref)
                    await self.delete(ref)
                case "both":
                    await asyncio.gather(self.fork(ref, at=None), self.copy(ref), self.delete(ref))
                case "fork":
                    await self.fork(ref, at=chance.randint(1, len(self._town.watch.log(ref))) if number % 2 else None)
                case _:
                    await self.copy(ref)

    async def delete(self, ref: Ref) -> None:
        """Ask until it is acknowledged. An answer that was lost makes the next one a 404."""
        town = self._town
        town.doomed.add(ref)
        await self._ask(ref, lambda service: service.delete(ref))
        town.gone[ref] = self._tiers.weather.clock()
        self._tiers.weather.did("deleted", ref)

    async def _in_the_middle(self, ref: Ref) -> None:
        """Wait a moment for somebody to work on it, and have them paused: they do not hear of what comes now."""
        loop, rows = self._tiers.loop, self._tiers.database.rows
        for _ in range(100):
            step = self._tiers.cache.find(ref)
            working = [host for host in self._town.hosts if host.up and host.process.incarnation == rows[ref].owner]
            if working and step is not None and step.pieces:
                self._tiers.weather.count("short pause")
                working[0].stop()
                loop.call_later(0.2 + self._chance.random(), loop.resume, working[0].process)
                return
            await asyncio.sleep(0.02)

    async def fork(self, ref: Ref, *, at: int | None) -> None:
        """Fork it as it is, or at any event. Asked again, that is another fork."""
        made = await self._ask(ref, lambda service: service.fork(ref, at=at))
        if made is not None:
            self.copies.append(Ref(made.tenant, made.id))
            self._tiers.weather.did("forked", ref)

    async def copy(self, ref: Ref) -> None:
        """Export it page by page, and import that under a name of one's own."""
        events = await self._export(ref)
        if events is None:
            return
        copy = Ref(ref.tenant, next(self._tiers.ids))
        self._town.imported[copy] = events
        try:
            await self._ask(copy, lambda service: service.restore(copy.tenant, events, id=copy.id))
        except Refused as refused:
            if refused.code != "session_exists":
                raise
        self.copies.append(copy)
        self._tiers.weather.did("copied", ref)

    async def _export(self, ref: Ref) -> Sequence[Event] | None:
        """All its events so far; None if it was deleted meanwhile."""
        events: list[Event] = []
        limit = self._chance.choice((3, 20, 1000))
        while len(events) % limit == 0:
            page = await self._ask(ref, partial(_page, ref, len(events), limit))
            if page is None or any(event.type == "session.deleted" for event in page):
                return None
            if not page:
                break
            events += page
        for event, written in zip(events, self._town.watch.log(ref), strict=False):
            whole = replace(written, data=event.data) if missing_text(written) is not None else written
            if event != whole or missing_text(event) is not None:
                self._town.watch.breaks(f"session {ref.id}: event {written.seq} was exported as {event}")
        return events

    async def _ask(self, ref: Ref, ask: Callable[[Service], Awaitable[T]]) -> T | None:
        """The answer; None where the session is deleted, or may be."""
        while True:
            try:
                return await self._town.somewhere().request(ask)
            except Refused as refused:
                if refused.code != "not_found":
                    raise
                if ref not in self._town.doomed:
                    self._town.watch.breaks(f"session {ref.id} was not found")
                return None
            except Unreadable as error:
                self._town.watch.breaks(f"session {ref.id}: {error}")
                return None
            except (ConnectionLost, Unavailable):
                await asyncio.sleep(0.05 + 0.2 * self._chance.random())


async def _page(ref: Ref, after: int, limit: int, service: Service) -> Sequence[Event]:
    return await service.events(ref, after=after, limit=limit)
