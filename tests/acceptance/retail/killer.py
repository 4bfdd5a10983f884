"""Somebody who kills replicas all the time, and when: while a model speaks, while the shop changes its books, whenever.

Knows processes and files that grow; nothing of sessions.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeAlias

from dalsegno.testing.fleet import Fleet, Served
from tests.acceptance.retail.lines import lines_of
from tests.support import wait_until

Heard: TypeAlias = Callable[[], Mapping[str, int]]
"""How often a model was asked so far, by the name of the replica that asked."""

MEET_TWO_MAX = 12


@dataclass(frozen=True)
class Blow:
    """One `kill -9`: which process, when (Unix milliseconds), and what it was waited for."""

    pid: int
    at: int
    moment: str


class Killer:
    """Kills a random replica twice a second or so and starts it again, until it is `tired`. `open` are the turns that a
    customer has begun and not heard the end of.

    It never deals a third blow within one turn: before each it waits until every turn that was open at the last but one
    has ended. A turn that dies three times is `poisoned`, so this is what makes that impossible here instead of
    improbable. And only a few turns meet a second: a replica takes up one such turn after another, lest one of them
    kills it and the others with it, and to wait for many takes long.

    Two of three blows wait for a moment that matters, whoever's it is: a model has just begun to speak, or the shop has
    just changed its books and has not answered yet. The third falls on anybody at any time.
    """

    def __init__(
        self, fleet: Fleet, journal: Path, heard: Heard, *, rest: tuple[float, float], chance: random.Random
    ) -> None:
        self.tired = False
        self.blows: list[Blow] = []
        self.open: set[tuple[str, int]] = set()
        self._fleet, self._journal, self._heard, self._rest, self._chance = fleet, journal, heard, rest, chance
        self._at_blow: list[frozenset[tuple[str, int]]] = []
        self._halves, self._news = 0, asyncio.Condition()

    @contextmanager
    def spare(self, turn: tuple[str, int]) -> Iterator[None]:
        """A turn is open as long as this is."""
        self.open.add(turn)
        try:
            yield
        finally:
            self.open.discard(turn)

    async def struck(self, blows: float) -> None:
        """Until so many blows have fallen. In halves: a blow has half fallen as soon as it is about to. So there is
        work whenever a blow falls, however long the mercy before it, and however slow the machine.
        """
        async with self._news:
            await self._news.wait_for(lambda: self._halves >= 2 * blows)

    async def rage(self) -> None:
        """Until tired. Whatever was killed is started again."""
        async with asyncio.TaskGroup() as restarts:
            for number in count():
                await asyncio.sleep(self._chance.uniform(*self._rest))  # the pace of the violence
                await self._mercy()
                if self.tired:
                    return
                await self._tick()
                moment = ("changing", "speaking", "any")[number % 3]
                victim = await {"changing": self._changing, "speaking": self._speaking, "any": self._any}[moment]()
                self._at_blow.append(frozenset(self.open))
                self.blows.append(Blow(victim.pid, time.time_ns() // 10**6, moment))
                await victim.kill()
                restarts.create_task(victim.start())
                await self._tick()

    async def _tick(self) -> None:
        async with self._news:
            self._halves += 1
            self._news.notify_all()

    async def _mercy(self) -> None:
        met, last = [frozenset[tuple[str, int]](), frozenset[tuple[str, int]](), *self._at_blow][-2:]
        await wait_until(
            lambda: (
                not met & self.open
                and len(last & self.open) <= MEET_TWO_MAX
                and sum(replica.serving for replica in self._fleet) > 1
            ),
            description="the turns that met two blows have ended, most that met one too, and two replicas serve",
            timeout=60,
        )

    async def _any(self) -> Served:
        await asyncio.sleep(self._chance.uniform(0, 0.1))
        return self._chance.choice([replica for replica in self._fleet if replica.serving])

    async def _speaking(self) -> Served:
        before = self._heard()
        found: list[Served] = []

        def spoke() -> bool:
            now = self._heard()
            found[:] = [r for r in self._fleet if r.serving and now.get(r.name, 0) > before.get(r.name, 0)]
            return bool(found)

        await self._soon(spoke)
        await asyncio.sleep(self._chance.uniform(0, 0.05))  # somewhere in its sentence
        return self._chance.choice(found) if found else await self._any()

    async def _changing(self) -> Served:
        size = self._journal.stat().st_size
        found: list[Served] = []

        def changed() -> bool:
            for line in lines_of(self._journal, after=size):
                replica = self._fleet.by_pid(pid_of(line["client"]))
                if line["outcome"] == "applied" and replica is not None and replica.serving:
                    found.append(replica)
            return bool(found)

        await self._soon(changed)
        return found[-1] if found else await self._any()

    async def _soon(self, predicate: Callable[[], bool]) -> None:
        """Until that is so, but not for long: a moment that does not come is no reason to spare anybody."""
        until = time.monotonic() + 1
        while not predicate() and time.monotonic() < until and not self.tired:
            await asyncio.sleep(0.003)


def pid_of(client: str) -> int:
    """Which process has named itself so to the shop."""
    return int(client.rpartition("/")[2])
