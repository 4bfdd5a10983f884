"""One long morning at the shop: many customers at once, three replicas, and somebody who kills replicas all the time.

`play` brings it about and returns what is known of it afterwards. It judges nothing.
"""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx2

from dalsegno.client import TERMINAL, Client, Event, Retry, Transcript, text_of
from dalsegno.testing.fleet import Fleet
from retail.script import QUESTION, YES, opening
from tests.acceptance.retail.killer import Blow, Heard, Killer
from tests.acceptance.retail.lines import lines_of
from tests.acceptance.retail.tasks import ROOT, Task

CLIENTS = 12
STACK_LATE_MS = 500
"""What `Tiers.late_ms` is on the stack of servers, on a machine that has other things to do."""
STUBBORN = Retry(rounds=100, base=timedelta(milliseconds=20), longest=timedelta(milliseconds=300))

Json = dict[str, Any]


@dataclass(frozen=True)
class Tiers:
    """Where the fleet keeps what it knows: options of `serve`, and variables.

    `late_ms`: by how much a replica's idea of the database's clock may be late, when the database was slow to tell it.
    """

    options: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    late_ms: int = 50


@dataclass(frozen=True)
class Show:
    """What is served and how.

    `span`: over how many blows a customer's confirmations are spread: that long the fleet is never without turns.
    `rest`: between how many seconds the killer rests. `within`: after how many seconds somebody has waited too long.
    """

    target: str
    span: float = 32
    rest: tuple[float, float] = (0.1, 0.3)
    within: float = 150


@dataclass(frozen=True)
class Stage:
    """What a show needs around it: variables for all replicas, and for each by its name; and who is heard to speak."""

    environment: Mapping[str, str]
    own: Callable[[str], Mapping[str, str]]
    heard: Callable[[Fleet], Heard]


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
class Morning:
    """What is known afterwards. `journal` is the shop's, in order."""

    visits: list[Visit]
    blows: list[Blow]
    journal: list[Json]
    inventory: list[Json]
    seconds: float


class Front:
    """The shop's front door: customers are brought to their branches, and the books can be looked at."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http

    def enter(self, session: str, branch: int) -> None:
        """The customer of this session is at that branch."""
        self._http.put(f"/visits/{session}", json={"branch": branch}).raise_for_status()

    def inventory(self) -> list[Json]:
        """The books of all branches."""
        books: list[Json] = self._http.get("/books").raise_for_status().json()
        return books


async def play(
    tasks: Sequence[Task], data: Path, folder: Path, *, show: Show, stage: Stage, tiers: Tiers, seed: int
) -> Morning:
    """Serve all tasks to their end. Raises what a customer could not bear, and `TimeoutError`."""
    journal = folder / "journal.ndjson"
    with open_shop(data, journal) as url, httpx2.Client(base_url=url, timeout=60) as http:
        front = Front(http)
        environment = {**paths(), **stage.environment, **tiers.environment, "SHOP_URL": url}
        fleet = Fleet(show.target, folder=folder, options=(*tiers.options, "--log-level", "warning"))
        for replica in fleet:
            replica.environment = {**environment, **stage.own(replica.name)}
        async with fleet, AsyncExitStack() as stack:
            urls = fleet.urls
            clients = [
                await stack.enter_async_context(Client([*urls[n % 3 :], *urls[: n % 3]], retry=STUBBORN))
                for n in range(CLIENTS)
            ]
            started = time.monotonic()
            killer = Killer(fleet, journal, stage.heard(fleet), rest=show.rest, chance=random.Random(seed))
            party = [Customer(task, front, killer, random.Random(f"{seed}/{n}")) for n, task in enumerate(tasks)]
            visits = await _everybody(party, clients, killer, show)
            seconds = time.monotonic() - started
            for each in visits:
                each.log = await clients[0].session(each.session).export()
        inventory = front.inventory()
    return Morning(visits, killer.blows, lines_of(journal), inventory, seconds)


async def _everybody(party: "list[Customer]", clients: list[Client], killer: Killer, show: Show) -> list[Visit]:
    """All visits, side by side, under the killer's blows."""
    try:
        async with asyncio.timeout(show.within), asyncio.TaskGroup() as group:
            rage = group.create_task(killer.rage())
            async with asyncio.TaskGroup() as hall:
                served = [
                    hall.create_task(customer.visit(clients[n % CLIENTS], show)) for n, customer in enumerate(party)
                ]
            killer.tired = True
            await rage
    except TimeoutError as late:
        raise TimeoutError(f"after {show.within} s, (task, turn): {sorted(killer.open)} have no end") from late
    return [task.result() for task in served]


@dataclass(frozen=True)
class Customer:
    """Somebody who wants something, and says yes in their own good time."""

    task: Task
    front: Front
    killer: Killer
    chance: random.Random

    async def visit(self, client: Client, show: Show) -> Visit:
        """Say what one wants, then say yes whenever asked."""
        task = self.task
        session = await client.sessions.create(metadata={"task": task.id})
        self.front.enter(session.id, task.branch)
        seen, transcript = Visit(task, session.id), Transcript()
        writes = sum(action.writes for action in task.actions)
        moments = iter(sorted(self.chance.uniform(0, show.span) for _ in range(writes)))
        text = opening(task)
        for number in count():
            last = ""
            with self.killer.spare((task.id, number)):
                async with aclosing(session.run(text)) as events:
                    async for event in events:
                        seen.events.append(event)
                        transcript.add(event)
                        item = event.data.get("item", {})
                        if event.type == "item.done" and item.get("role") == "assistant":
                            last = text_of(item)
            if seen.ends[-1].type != "turn.completed" or not last.endswith(QUESTION):
                return seen
            await self.killer.struck(next(moments))  # the customer thinks it over
            text = YES
        raise AssertionError("unreachable")


def open_shop(data: Path, journal: Path) -> AbstractContextManager[str]:
    """The shop's process; its URL."""
    return running("retail.shop", "--port", "0", "--data", str(data), "--journal", str(journal))


@contextmanager
def running(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """A process of a Python module, until the end; the last word of the first line that it says."""
    command = [sys.executable, "-m", module, *arguments]
    every = {**paths(), **(environment or {})}
    with subprocess.Popen(command, cwd=ROOT, env=every, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().split()[-1]
        finally:
            process.kill()


def paths() -> Json:
    """What processes inherit, and the way to this repository."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / place) for place in (".", "src", "examples"))}
