"""One long morning at the shop: 114 customers at once, three replicas, and somebody who kills replicas all the time.

`play` brings it about and returns what is known of it afterwards. It judges nothing.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

from dalsegno.client import TERMINAL, Client, Event, Retry, Transcript, text_of
from dalsegno.testing.fleet import Fleet, Served
from tests.acceptance.retail import shop
from tests.acceptance.retail.script import QUESTION, YES, opening
from tests.acceptance.retail.tasks import ROOT, Task
from tests.support import wait_until

AGENT = "tests.acceptance.retail.agent:answer"
SPAN_SECONDS = 26
"""Over how much time a customer's confirmations are spread: that long the fleet is never without turns."""
REST_SECONDS = (0.4, 0.8)
WITHIN_SECONDS = 150
CLIENTS = 12
STUBBORN = Retry(rounds=100, base=timedelta(milliseconds=20), longest=timedelta(milliseconds=300))

Json = dict[str, Any]


@dataclass
class Visit:
    """One customer's conversation, as they saw it."""

    task: Task
    session: str = ""
    events: list[Event] = field(default_factory=list)
    log: bytes = b""

    @property
    def ends(self) -> list[Event]:
        """The last event of each of its turns."""
        return [event for event in self.events if event.type in TERMINAL]


@dataclass(frozen=True)
class Blow:
    """One `kill -9`: which process, when (Unix milliseconds), and what it was waited for."""

    pid: int
    at: int
    moment: str


@dataclass(frozen=True)
class Morning:
    """What is known afterwards. `journal` is the shop's, `witness` the agents'; both in the order of their files."""

    visits: list[Visit]
    blows: list[Blow]
    journal: list[Json]
    witness: list[Json]
    inventory: list[Json]
    seconds: float


@dataclass(frozen=True)
class Tiers:
    """Where the fleet keeps what it knows: options of `serve`, and variables."""

    options: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


async def play(tasks: list[Task], data: Path, folder: Path, *, tiers: Tiers, seed: int) -> Morning:
    """Serve all tasks to their end. Raises what a customer could not bear, and `TimeoutError`."""
    journal, witness = folder / "journal.ndjson", folder / "witness"
    witness.mkdir()
    environment = _environment()
    with open_shop(data, journal, environment) as port:
        environment |= {"RETAIL_DATA": str(data), "RETAIL_WITNESS": str(witness), "RETAIL_SHOP": str(port)}
        environment |= tiers.environment
        options = (*tiers.options, "--log-level", "warning")
        async with (
            Fleet(AGENT, folder=folder, options=options, environment=environment) as fleet,
            AsyncExitStack() as stack,
        ):
            urls = fleet.urls
            clients = [
                await stack.enter_async_context(Client([*urls[n % 3 :], *urls[: n % 3]], retry=STUBBORN))
                for n in range(CLIENTS)
            ]
            started = time.monotonic()
            killer = Killer(fleet, journal, witness, chance=random.Random(seed))
            visits = await _everybody(tasks, clients, killer, seed)
            seconds = time.monotonic() - started
            for each in visits:
                each.log = await clients[0].session(each.session).export()
        inventory = await shop.ask(port, {"name": "inventory"})
    return Morning(visits, killer.blows, lines_of(journal), _all_lines(witness), inventory, seconds)


async def _everybody(tasks: list[Task], clients: list[Client], killer: "Killer", seed: int) -> list[Visit]:
    """All visits, side by side, under the killer's blows."""
    try:
        async with asyncio.timeout(WITHIN_SECONDS), asyncio.TaskGroup() as group:
            rage = group.create_task(killer.rage())
            async with asyncio.TaskGroup() as hall:
                served = [
                    hall.create_task(visit(task, clients[n % CLIENTS], killer, random.Random(f"{seed}/{n}")))
                    for n, task in enumerate(tasks)
                ]
            killer.tired = True
            await rage
    except TimeoutError as late:
        raise TimeoutError(f"after {WITHIN_SECONDS} s, (task, turn): {sorted(killer.open)} have no end") from late
    return [task.result() for task in served]


async def visit(task: Task, client: Client, killer: "Killer", chance: random.Random) -> Visit:
    """Say what one wants, then say yes whenever asked, each time in one's own good time."""
    session = await client.sessions.create(metadata={"task": task.id, "branch": task.branch})
    seen, transcript, came = Visit(task, session.id), Transcript(), time.monotonic()
    writes = sum(action.writes for action in task.actions)
    times = iter(sorted(came + chance.uniform(0, SPAN_SECONDS) for _ in range(writes)))
    text = opening(task)
    for number in count():
        last = ""
        with killer.spare((task.id, number)):
            async with aclosing(session.run(text)) as events:
                async for event in events:
                    seen.events.append(event)
                    transcript.add(event)
                    item = event.data.get("item", {})
                    if event.type == "item.done" and item.get("role") == "assistant":
                        last = text_of(item)
        if seen.ends[-1].type != "turn.completed" or not last.endswith(QUESTION):
            return seen
        await asyncio.sleep(max(0.0, next(times) - time.monotonic()))  # the customer thinks it over
        text = YES
    raise AssertionError("unreachable")


class Killer:
    """Kills a random replica every second or so and starts it again, until it is `tired`. `open` are the turns that a
    customer has begun and not heard the end of.

    It never deals a third blow within one turn: before each it waits until every turn that was open at the last but one
    has ended. A turn that dies three times is `poisoned`, so this is what makes that impossible here instead of
    improbable. Two of three blows wait for a moment that matters, whoever's it is: a model has just begun to speak, or
    the shop has just changed its books and has not answered yet. The third falls on anybody at any time.
    """

    def __init__(self, fleet: Fleet, journal: Path, witness: Path, *, chance: random.Random) -> None:
        self.tired = False
        self.blows: list[Blow] = []
        self._fleet, self._journal, self._witness, self._chance = fleet, journal, witness, chance
        self.open: set[tuple[str, int]] = set()
        self._at_blow: list[frozenset[tuple[str, int]]] = []

    @contextmanager
    def spare(self, turn: tuple[str, int]) -> Iterator[None]:
        """A turn is open as long as this is."""
        self.open.add(turn)
        try:
            yield
        finally:
            self.open.discard(turn)

    async def rage(self) -> None:
        """Until tired. Whatever was killed is started again."""
        async with asyncio.TaskGroup() as restarts:
            for number in count():
                await asyncio.sleep(self._chance.uniform(*REST_SECONDS))  # the pace of the violence
                await self._mercy()
                if self.tired:
                    return
                moment = ("changing", "speaking", "any")[number % 3]
                victim = await {"changing": self._changing, "speaking": self._speaking, "any": self._any}[moment]()
                self._at_blow.append(frozenset(self.open))
                self.blows.append(Blow(victim.pid, time.time_ns() // 10**6, moment))
                await victim.kill()
                restarts.create_task(victim.start())

    async def _mercy(self) -> None:
        met = self._at_blow[-2] if len(self._at_blow) > 1 else frozenset()
        await wait_until(
            lambda: not met & self.open and sum(replica.serving for replica in self._fleet) > 1,
            description="the turns that met two blows have ended, and two replicas serve",
            timeout=60,
        )

    async def _any(self) -> Served:
        return self._chance.choice([replica for replica in self._fleet if replica.serving])

    async def _speaking(self) -> Served:
        before = {replica.pid: self._size(replica) for replica in self._fleet if replica.serving}
        found: list[Served] = []

        def spoke() -> bool:
            found[:] = [r for r in self._fleet if r.serving and self._size(r) > before.get(r.pid, 0)]
            return bool(found)

        await self._soon(spoke)
        await asyncio.sleep(self._chance.uniform(0, 0.05))  # somewhere in its sentence
        return self._chance.choice(found) if found else await self._any()

    async def _changing(self) -> Served:
        size = self._journal.stat().st_size
        found: list[Served] = []

        def changed() -> bool:
            for line in lines_of(self._journal, after=size):
                replica = self._fleet.by_pid(line["pid"])
                if line["outcome"] == "applied" and replica is not None and replica.serving:
                    found.append(replica)
            return bool(found)

        await self._soon(changed)
        return found[-1] if found else await self._any()

    def _size(self, replica: Served) -> int:
        file = self._witness / f"{replica.pid}.ndjson"
        return file.stat().st_size if file.exists() else 0

    async def _soon(self, predicate: Callable[[], bool]) -> None:
        """Until that is so, but not for long: a moment that does not come is no reason to spare anybody."""
        until = time.monotonic() + 1
        while not predicate() and time.monotonic() < until and not self.tired:
            await asyncio.sleep(0.003)


@contextmanager
def open_shop(data: Path, journal: Path, environment: Json) -> Iterator[int]:
    """The shop's process; its port."""
    command = [sys.executable, "-m", shop.__name__, str(data), str(journal)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def lines_of(path: Path, *, after: int = 0) -> list[Json]:
    """The whole lines of a file. The last one may be torn, if its writer was killed: that one is left out."""
    with path.open("rb") as file:
        file.seek(after)
        return [json.loads(line) for line in file.read().split(b"\n")[:-1]]


def _all_lines(folder: Path) -> list[Json]:
    return [line for path in sorted(folder.iterdir()) for line in lines_of(path)]


def _environment() -> Json:
    """What processes inherit, and the way to this repository."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
