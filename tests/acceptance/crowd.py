"""Clients that talk and listen while the fleet is being broken, and remember what they were told."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any

from dalsegno.client import TERMINAL, ApiError, Client, ClientError, Retry, Transcript
from dalsegno.testing.fleet import Fleet
from tests.acceptance.verdict import Said, Seen, World, ends, judge, log_of

STUBBORN = Retry(rounds=200, base=timedelta(milliseconds=20), longest=timedelta(milliseconds=300))
PATIENT = Retry(rounds=200, base=timedelta(milliseconds=20), longest=timedelta(seconds=1))
"""Comes back after the second that a 503 asks for."""
KINDS = ("keyed", "once", "transactional", "read")


class Candid(Client):
    """A client that remembers what went wrong before it tried again."""

    def __init__(self, urls: Sequence[str], *, retry: Retry) -> None:
        super().__init__(urls, retry=retry)
        self.troubles: list[ClientError] = []

    async def _leave(self, replica: int, failures: int, error: ClientError) -> None:
        self.troubles.append(error)
        await super()._leave(replica, failures, error)


class Talker:
    """One client in one session. It says something, hears the turn to its end, and goes on; now and then it says two
    things at once, or the same thing twice.
    """

    def __init__(self, name: str, urls: Sequence[str], *, seed: int, retry: Retry = STUBBORN) -> None:
        self.name = name
        self.chance = random.Random(seed)
        shift = seed % len(urls)
        self.client = Candid([*urls[shift:], *urls[:shift]], retry=retry)
        self.listener = Candid([*urls[shift:], *urls[:shift]], retry=retry)
        self.seen: Seen | None = None
        self.ended = 0
        """How many turns it has heard the end of."""
        self._ended: dict[str, asyncio.Event] = {}
        self._count = 0

    async def talk(self, while_: Callable[[], bool], **script: Any) -> None:
        """Talk as long as that is true; then hear everything to its end."""
        async with self.client, self.listener:
            session = await self.client.sessions.create(metadata={"name": self.name})
            self.seen = seen = Seen(session)
            async with asyncio.TaskGroup() as group:
                hearing = group.create_task(self._hear(seen))
                while while_():
                    for _ in range(self.chance.choice((1, 1, 1, 2))):
                        await self._say(seen, script)
                    await self._ended_of(seen.said[-1].receipt.turn).wait()
                hearing.cancel()

    def _script(self, options: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        do = self.chance.choices(KINDS, k=self.chance.randint(0, 2))
        voice = self.chance.choice(("same", "own"))
        return {"id": f"{self.name}-{self._count}", "do": do, "words": 8, "pace_ms": 5, "voice": voice, **options}

    async def _say(self, seen: Seen, options: dict[str, Any]) -> None:
        script = self._script(options)
        text, key = json.dumps(script), f"key {script['id']}"
        receipt = await seen.session.send(text, key=key)
        if self.chance.random() < 0.2:
            again = await seen.session.send(text, key=key)
            assert (again.seq, again.turn, again.replayed) == (receipt.seq, receipt.turn, True)
        seen.said.append(Said(script, receipt))

    async def _hear(self, seen: Seen) -> None:
        """Follow the session from its beginning; every event has to follow the one before it."""
        transcript = Transcript()
        async with aclosing(self.listener.session(seen.session.id).stream(after=0)) as events:
            async for event in events:
                transcript.add(event)
                seen.events.append(event)
                seen.texts, seen.resumed = transcript.texts, self.listener._replica
                if event.type in TERMINAL:
                    self.ended += 1
                    self._ended_of(str(event.turn)).set()

    def _ended_of(self, turn: str) -> asyncio.Event:
        return self._ended.setdefault(turn, asyncio.Event())


class Crowd:
    """Talkers, each in a session of its own."""

    def __init__(self, fleet: Fleet, *, size: int, seed: int, retry: Retry = STUBBORN, **script: Any) -> None:
        self.talkers = [
            Talker(f"s{number}", fleet.urls, seed=seed * 1000 + number, retry=retry) for number in range(size)
        ]
        self.talking = True
        self._urls = fleet.urls
        self._script = script

    @property
    def seen(self) -> list[Seen]:
        """What each of them knows."""
        return [talker.seen for talker in self.talkers if talker.seen is not None]

    @property
    def ended(self) -> int:
        """How many turns somebody has heard the end of."""
        return sum(talker.ended for talker in self.talkers)

    @property
    def refusals(self) -> Counter[tuple[int, str, str]]:
        """What they were refused before they tried again, by status, code and outcome."""
        troubles = [error for talker in self.talkers for error in (*talker.client.troubles, *talker.listener.troubles)]
        return Counter((error.status, error.code, error.outcome) for error in troubles if isinstance(error, ApiError))

    async def judged(self, world: World) -> tuple[list[str], list[dict[str, Any]]]:
        """What is wrong with their sessions now, and the ends of all turns."""
        violations, ended = list[str](), list[dict[str, Any]]()
        async with Client(self._urls) as client:
            for seen in self.seen:
                log = await log_of(client.session(seen.session.id))
                violations += judge(seen, log, world)
                ended += ends(log).values()
        return violations, ended

    @asynccontextmanager
    async def at_work(self, *, within: float) -> AsyncIterator[None]:
        """They talk inside; at the end they fall silent, and everything that was accepted ends `within` seconds."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(talker.talk(lambda: self.talking, **self._script), name=talker.name)
                for talker in self.talkers
            ]
            try:
                yield
            finally:
                self.talking = False
            _, late = await asyncio.wait(tasks, timeout=within)
            assert not late, f"stuck: {within} s later turns of {sorted(task.get_name() for task in late)} have no end"
