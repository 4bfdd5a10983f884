"""One world, from its seed to its verdict."""

import asyncio
import gc
import hashlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from itertools import count
from typing import Any

import msgspec

from dalsegno.core.event import TERMINAL
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Message
from dalsegno.errors import Refused
from dalsegno.ports import Ref
from dalsegno.runtime.service import Service
from dalsegno.testing.world.agent import Stage
from dalsegno.testing.world.errands import DEMANDED, Errands
from dalsegno.testing.world.fleet import Host, Tiers
from dalsegno.testing.world.invariants import broken_promises
from dalsegno.testing.world.ledger import Ledger
from dalsegno.testing.world.loop import WorldLoop
from dalsegno.testing.world.people import Person, Town
from dalsegno.testing.world.remains import left_over
from dalsegno.testing.world.script import Script
from dalsegno.testing.world.trouble import Trouble, point_of
from dalsegno.testing.world.watch import Watch
from dalsegno.testing.world.weather import Weather

TENANT = "acme"
QUIET_SECONDS = 60.0
TIDY_MOST = 3
HOSTS = ("a", "b", "c")
RUIN = Script("ruin", (("paid", "spent"), ("booked",), ("paid",)), words=3, after="raise")
POISON = Script("poison", (("keyed",), ("poison",)), words=3)
LEADS_TO = {
    **dict.fromkeys(("blobs.put:before", "blobs.put:after"), Script("large", (("large",),))),
    **dict.fromkeys((point for point, errand in DEMANDED.items() if errand == "fork"), Script("large", (("large",),))),
    **dict.fromkeys((f"log.{call}:after" for call in ("begin", "execute", "close")), Script("seats", (("tx", "tx"),))),
    "log.commit[turn.failed]:after": Script("fails", (), before="raise"),
    **dict.fromkeys(("undo:before", "undo:effect", "undo:after"), RUIN),
    **dict.fromkeys((f"log.commit[{kind}]:after" for kind in ("turn.undoing", "tool.undone")), RUIN),
}
"""What somebody says first in the worlds of places that few come past."""


class Verdict(msgspec.Struct):
    """What came of a seed. `trace` is a hash over everything that happened, in order; `done` counts what
    somebody did with whole sessions."""

    seed: int
    broken: list[str]
    trace: str
    happened: Counter[str]
    crashed: Counter[str]
    messages: int
    completed: int
    done: Counter[str]
    lines: list[tuple[object, ...]] = []


class World:
    """Three replicas in one loop, on the memory stores, behind faulty lines. What happens in it is a story's to
    tell.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.loop = WorldLoop(random.Random(f"{seed}/loop"))
        self.weather = Weather(random.Random(f"{seed}/weather"))
        self.weather.clock = self.loop.time
        self.tiers = Tiers(self.loop, self.weather)
        self.tiers.ids = (self.ref(number).id for number in count(100))
        self.ledger = Ledger()
        self.watch = Watch(self.tiers.database, self.weather)
        self.stage = Stage(self.weather, self.ledger, self.watch)
        self.hosts: list[Host] = []
        self.town = Town(self.hosts, self.watch, self.ledger, random.Random(f"{seed}/people"))
        self.must_complete: dict[Ref, int] = {}
        """Turns that nothing may keep from completing: those that were asked for when everything worked again."""

    def ref(self, number: int) -> Ref:
        """The name of one of its sessions."""
        return Ref(TENANT, f"00000000-0000-7000-8000-{self.seed % 10**6:06d}{number:06d}")

    def run(self, story: Callable[["World"], Coroutine[Any, Any, None]]) -> Verdict:
        """Live through it, and judge."""
        try:
            self.loop.run_until_complete(self._tell(story))
        finally:
            self.loop.end()
        return self._verdict()

    async def quiet(self) -> None:
        """Virtual time passes until nothing runs; it must come to rest by itself."""
        end = self.loop.time() + QUIET_SECONDS
        while not self._at_rest():
            await asyncio.sleep(0.25)
            if self.loop.time() > end:
                self._say_what_is_stuck()
                return

    async def tidy(self) -> None:
        """Whatever a crash left in the cold tier, and half a fork, goes when somebody looks; nothing else does."""
        for host in self.hosts:
            await host.rest()
        for _ in range(TIDY_MOST):
            if not list(left_over(self.watch)):
                return
            await self.hosts[0].tidy()
            await self.quiet()

    async def _tell(self, story: Callable[["World"], Coroutine[Any, Any, None]]) -> None:
        self.hosts += [Host(name, self.tiers, self.stage, self.watch) for name in HOSTS]
        await story(self)

    def _at_rest(self) -> bool:
        rows = self.tiers.database.rows
        if any(row.owner is not None or row.ready_at is not None for row in rows.values()):
            return False
        if any(host.replica.turns for host in self.hosts):
            return False
        if any(row.deleted and not row.erased for row in rows.values()):
            return False
        return not any(self.tiers.database.session(ref, row).open for ref, row in rows.items())

    def _say_what_is_stuck(self) -> None:
        for ref, row in self.tiers.database.rows.items():
            session = self.tiers.database.session(ref, row)
            if session.open or row.owner is not None:
                self.watch.breaks(f"session {ref.id} is stuck: {session.open}, owned by {row.owner}")
            if row.deleted and not row.erased:
                self.watch.breaks(f"session {ref.id} is deleted and never erased")
        for host in self.hosts:
            if host.replica.turns:
                self.watch.breaks(f"{host.process.incarnation} still runs {host.replica.turns} turns")

    def _verdict(self) -> Verdict:
        for error in self.loop.errors:
            self.watch.breaks(f"nobody caught: {error.get('message')}: {error.get('exception')!r}")
        for ref, turn in self.must_complete.items():
            ends = [event.type for event in self.watch.log(ref) if event.turn == turn and event.type in TERMINAL]
            if ends != ["turn.completed"]:
                self.watch.breaks(f"session {ref.id}: turn {turn} was to complete and ended in {ends}")
        broken = list(broken_promises(self.town, self.watch, self.ledger, self.tiers.cache))
        logs = [event.type for ref in self.tiers.database.rows for event in self.watch.log(ref)]
        digest = hashlib.blake2b(digest_size=16)
        for line in self.weather.trace:
            digest.update(repr(line).encode())
        return Verdict(
            seed=self.seed,
            broken=broken,
            trace=digest.hexdigest(),
            happened=self.weather.happened,
            crashed=self.weather.crashed,
            messages=len(self.town.acks),
            completed=logs.count("turn.completed"),
            done=self.weather.done,
            lines=self.weather.trace,
        )


class Story:
    """A few people talk while trouble comes over their world; then it heals, and everybody must be served."""

    def __init__(self, world: World) -> None:
        self.world = world
        chance = world.town.chance
        self.people: list[Person] = []
        for number in range(chance.randint(1, 3)):
            first = POISON if chance.random() < 0.06 else LEADS_TO.get(point_of(world.seed)) if number == 0 else None
            person = Person(world.town, world.ref(number), messages=chance.randint(1, 4), first=first)
            self.people.append(person)
        chance = random.Random(f"{world.seed}/errands")
        self.errands = Errands(world.town, world.tiers, chance, demanded=DEMANDED.get(point_of(world.seed)))

    async def tell(self) -> None:
        """From the first message to the last event that anybody reads."""
        world, watch = self.world, self.world.watch
        trouble = Trouble(world.hosts, world.tiers, watch, random.Random(f"{world.seed}/trouble"), seed=world.seed)
        others = [asyncio.ensure_future(work) for person in self.people for work in (person.decide(), person.read())]
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                refs = [person.ref for person in self.people]
                await asyncio.gather(trouble.run(), self.errands.run(refs), *(person.talk() for person in self.people))
        except TimeoutError:
            watch.breaks("somebody is not served for a minute, although most of the world works most of the time")
        await trouble.heal()
        world.town.hurry = True
        await world.quiet()  # without another word from anybody
        copies = [Person(world.town, ref, messages=0) for ref in self.errands.copies]
        await asyncio.gather(*(self._still_serves(person) for person in (*self.people, *copies)))
        await world.quiet()
        world.town.over = True
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                await asyncio.gather(*others, *(person.gather() for person in self.people))
                await asyncio.gather(*(person.read() for person in copies))
        except TimeoutError:
            watch.breaks("somebody waits for ever for the rest of a stream or for an answer")
        await world.tidy()

    async def _still_serves(self, person: Person) -> None:
        """The liveness floor: after all that, each session still answers; for one that was deleted, a new one."""
        if person.ref in self.world.town.doomed:
            await self._is_gone(person.ref)
            person = Person(self.world.town, Ref(TENANT, next(self.world.tiers.ids)), messages=0)
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                receipt = await person.say(Script("last", (("keyed",),)), on_busy="queue")
        except TimeoutError:
            self.world.watch.breaks(f"session {person.ref.id} accepts nothing any more")
            return
        if receipt is None:
            self.world.watch.breaks(f"session {person.ref.id} refused its last message")
        else:
            self.world.must_complete[person.ref] = receipt.turn

    async def _is_gone(self, ref: Ref) -> None:
        """P11's words, for the deleted: nobody learns that it ever was, on any replica."""
        turn = turn_id(ref.id, 2)
        asks: list[Callable[[Service], Awaitable[object]]] = [
            lambda service: service.get(ref),
            lambda service: service.delete(ref),
            lambda service: service.fork(ref, at=1),
            lambda service: service.update(ref, {}, head=None),
            lambda service: service.items(ref, after=0, limit=10),
            lambda service: service.events(ref, after=0, limit=10),
            lambda service: service.turn(ref, turn),
            lambda service: service.follow(ref, after=None),
            lambda service: service.admit(ref, Message("hello?"), key=self.world.town.sent.get(ref, ["k"])[0]),
            lambda service: service.artifact(ref.tenant, f"{ref.id}.0.{'0' * 64}"),
        ]
        for host in self.world.hosts:
            for ask in asks:
                try:
                    answer = await host.request(ask)
                except Refused as refused:
                    if refused.code == "not_found":
                        continue
                    answer = refused
                self.world.watch.breaks(f"session {ref.id} is deleted, and {host.name} answers {answer!r}")


async def troubles(world: World) -> None:
    """The story of a seed."""
    await Story(world).tell()


async def comings_and_goings(world: World) -> None:
    """The same story where sessions are archived whenever nobody says anything for a moment."""
    world.tiers.archiving = True
    for host in world.hosts:
        host.archive()
    await troubles(world)
    for host in world.hosts:
        await host.rest()
    for _ in range(TIDY_MOST):
        # What was read in the end came back, and left its archive behind.
        await world.hosts[0].tidy()
        await world.quiet()  # it has what is deleted erased once more


def run_seed(seed: int, story: Callable[[World], Coroutine[Any, Any, None]] = troubles) -> Verdict:
    """The verdict over one seed; the same for the same code, whatever ran before in this process."""
    collecting, log = gc.isenabled(), logging.getLogger("dalsegno")
    level = log.level
    gc.disable()
    log.setLevel(logging.CRITICAL + 1)
    try:
        return World(seed).run(story)
    finally:
        log.setLevel(level)
        if collecting:
            gc.enable()
