"""One world, from its seed to its verdict."""

import asyncio
import gc
import hashlib
import logging
import random
from collections import Counter

import msgspec

from dalsegno.core.event import TERMINAL
from dalsegno.ports import Ref
from dalsegno.testing.world.agent import Stage
from dalsegno.testing.world.fleet import Host, Tiers
from dalsegno.testing.world.invariants import broken_promises
from dalsegno.testing.world.ledger import Ledger
from dalsegno.testing.world.loop import WorldLoop
from dalsegno.testing.world.people import Person, Town
from dalsegno.testing.world.script import Script
from dalsegno.testing.world.trouble import Trouble
from dalsegno.testing.world.watch import Watch
from dalsegno.testing.world.weather import Weather

TENANT = "acme"
QUIET_SECONDS = 60.0
HOSTS = ("a", "b", "c")


class Verdict(msgspec.Struct):
    """What came of a seed. `trace` is a hash over everything that happened, in order."""

    seed: int
    broken: list[str]
    trace: str
    happened: Counter[str]
    passed: Counter[str]
    crashed: Counter[str]
    seconds: float
    steps: int
    messages: int
    completed: int
    lines: list[tuple[object, ...]] = []


class World:
    """Three replicas, a few people, and trouble; all of it drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.loop = WorldLoop(random.Random(f"{seed}/loop"))
        self.weather = Weather(random.Random(f"{seed}/weather"))
        self.weather.clock = self.loop.time
        self.tiers = Tiers(self.loop, self.weather)
        self.ledger = Ledger()
        self.watch = Watch(self.tiers.database, self.weather)
        self.stage = Stage(self.weather, self.ledger, self.watch)
        self.people: list[Person] = []
        self._last: dict[Ref, int] = {}

    def run(self) -> Verdict:
        """Live through it, and judge."""
        try:
            self.loop.run_until_complete(self._live())
        finally:
            self.loop.end()
        return self._verdict()

    async def _live(self) -> None:
        chance = random.Random(f"{self.seed}/people")
        hosts = [Host(name, self.tiers, self.stage, self.watch) for name in HOSTS]
        town = self.town = Town(hosts, self.watch, self.ledger, chance)
        trouble = Trouble(hosts, self.tiers, self.watch, random.Random(f"{self.seed}/trouble"), seed=self.seed)
        for number in range(chance.randint(1, 3)):
            ref = Ref(TENANT, f"00000000-0000-7000-8000-{self.seed % 10**6:06d}{number:06d}")
            poison = Script(f"p{number}", (("keyed",), ("poison",)), words=3) if chance.random() < 0.06 else None
            self.people.append(Person(town, ref, messages=chance.randint(1, 4), first=poison))
        others = [asyncio.ensure_future(work) for person in self.people for work in (person.decide(), person.read())]
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                await asyncio.gather(trouble.run(), *(person.talk() for person in self.people))
        except TimeoutError:
            self.watch.breaks("somebody is not served for a minute, although most of the world works most of the time")
        await trouble.heal()
        town.hurry = True
        await asyncio.gather(*(self._still_serves(person) for person in self.people))
        await self._quiet(hosts)
        town.over = True
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                await asyncio.gather(*others, *(person.gather() for person in self.people))
        except TimeoutError:
            self.watch.breaks("somebody waits for ever for the rest of a stream or for an answer")

    async def _still_serves(self, person: Person) -> None:
        """The liveness floor: after all that, each session still answers."""
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                receipt = await person.say(Script("last", (("keyed",),)), on_busy="queue")
        except TimeoutError:
            self.watch.breaks(f"session {person.ref.id} accepts nothing any more")
            return
        if receipt is None:
            self.watch.breaks(f"session {person.ref.id} refused its last message")
        else:
            self._last[person.ref] = receipt.turn

    async def _quiet(self, hosts: list[Host]) -> None:
        """Virtual time passes until nothing runs; it must come to rest by itself."""
        end = self.loop.time() + QUIET_SECONDS
        while self.loop.time() < end:
            await asyncio.sleep(0.25)
            rows = self.tiers.database.rows
            idle = all(row.owner is None and row.ready_at is None for row in rows.values())
            open_turns = any(self.tiers.database.session(ref, row).open for ref, row in rows.items())
            if idle and not open_turns and not any(host.replica.turns for host in hosts):
                return
        for ref, row in self.tiers.database.rows.items():
            session = self.tiers.database.session(ref, row)
            if session.open or row.owner is not None:
                self.watch.breaks(f"session {ref.id} is stuck: {session.open}, owned by {row.owner}")
        for host in hosts:
            if host.replica.turns:
                self.watch.breaks(f"{host.process.incarnation} still runs {host.replica.turns} turns")

    def _verdict(self) -> Verdict:
        for error in self.loop.errors:
            self.watch.breaks(f"nobody caught: {error.get('message')}: {error.get('exception')!r}")
        for ref, turn in self._last.items():
            ends = [event.type for event in self.watch.log(ref) if event.turn == turn and event.type in TERMINAL]
            if ends != ["turn.completed"]:
                self.watch.breaks(f"session {ref.id}: its last turn was to complete and ended in {ends}")
        broken = list(broken_promises(self.town, self.watch, self.ledger))
        logs = [event.type for ref in self.tiers.database.rows for event in self.watch.log(ref)]
        digest = hashlib.blake2b(digest_size=16)
        for line in self.weather.trace:
            digest.update(repr(line).encode())
        return Verdict(
            seed=self.seed,
            broken=broken,
            trace=digest.hexdigest(),
            happened=self.weather.happened,
            passed=self.weather.passed,
            crashed=self.weather.crashed,
            seconds=self.loop.time(),
            steps=self.loop.steps,
            messages=len(self.town.acks),
            completed=logs.count("turn.completed"),
            lines=self.weather.trace,
        )


def run_seed(seed: int) -> Verdict:
    """The verdict over one seed; the same for the same code, whatever ran before in this process."""
    collecting, level = gc.isenabled(), logging.getLogger("dalsegno").level
    gc.disable()
    logging.getLogger("dalsegno").setLevel(logging.CRITICAL + 1)
    try:
        return World(seed).run()
    finally:
        logging.getLogger("dalsegno").setLevel(level)
        if collecting:
            gc.enable()
