"""A fleet on SQLite becomes one on PostgreSQL while people talk to it, and goes back; its copier is killed, too."""

import asyncio
import dataclasses
import json
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from dalsegno.client import Client
from dalsegno.testing.fleet import Fleet
from dalsegno.testing.servers.postgres import Postgres
from tests.acceptance import agents
from tests.acceptance.conftest import TARGET
from tests.acceptance.crowd import PATIENT, Crowd
from tests.acceptance.ledger import Ledger
from tests.acceptance.sizes import publish, seconds, size
from tests.acceptance.verdict import log_of, world_of
from tests.support import wait_until

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(180))]

TALKERS = 8
IDLE = 40
SEED = 19
MOVED = "SELECT count(*) FROM dalsegno_event WHERE kind = 14"


class Copier:
    """`dalsegno sessions copy`, as a process."""

    def __init__(self, source: str, target: str, *, cold: str, environment: Mapping[str, str]) -> None:
        self._words = ("sessions", "copy", "--from", source, "--to", target, "--cold", cold)
        self._environment = dict(environment)
        self._process: Process | None = None

    async def start(self, *options: str) -> None:
        """Begin, or go on."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dalsegno", *self._words, *options, stdout=PIPE, stderr=PIPE, env=self._environment
        )

    async def kill(self) -> None:
        """End it as hard as the system can."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    async def done(self) -> str:
        """Wait until it says that it is done; what it printed."""
        assert self._process is not None
        out, err = await asyncio.wait_for(self._process.communicate(), timeout=60)
        assert self._process.returncode == 0, (out + err).decode()
        return out.decode()


async def test_a_fleet_moves_to_another_store_and_back_while_it_serves(
    tmp_path: Path, database: Path, server: Postgres, environment: dict[str, str], ledger: Ledger
):
    """P1, P2, P5, P7, P8 across two stores: no message lost or doubled, effects as ever, streams without gap or
    repetition, whichever replica is asked; and every log is the other's beginning.
    """
    target = server.database()
    with closing(_postgres(target)) as raw:
        raw.execute("CREATE TABLE bookings (label TEXT, key TEXT)")
    source, cold = f"sqlite:///{database}", f"file://{tmp_path}/cold"
    a = _fleet(tmp_path / "a", ("--warm", source, "--cold", cold), environment)
    b = _fleet(
        tmp_path / "b", ("--warm", target, "--cold", cold), {**environment, agents.PARAMSTYLE: "format"}, "--settling"
    )
    both: Any = SimpleNamespace(urls=[*a.urls, *b.urls])
    there = Copier(source, target, cold=cold, environment=environment)
    back = Copier(target, source, cold=cold, environment=environment)
    crowd = Crowd(both, size=TALKERS, seed=SEED, retry=PATIENT)
    try:
        async with a, b:
            idle = await _prepared(a)
            async with crowd.at_work(within=60):
                await _work_goes_on(crowd)
                kills = await _killed_again_and_again(there, database)
                said = await _travel(there, crowd, a, b, lambda: _count(database) >= IDLE + TALKERS)
                for replica in a:
                    replica.arguments = (*replica.arguments, "--settling")
                await a.start()
                said += await _travel(back, crowd, b, a, lambda: _count_postgres(target) >= 2 * (IDLE + TALKERS))
            world = dataclasses.replace(
                world_of(ledger, database),
                booked=world_of(ledger, database).booked + world_of(ledger, target).booked,
            )
            violations, ended = await crowd.judged(world)
            wrong = await _altered(a, idle)
    finally:
        await there.kill()
        await back.kill()
        server.drop(target)
    refused = {code for _, code, _ in crowd.refusals}
    publish(
        f"{IDLE + TALKERS} sessions there and back, {kills} kills of the copier, {len(ended)} turns meanwhile, "
        f"{sum(crowd.refusals.values())} answers to come again, {len(violations)} violations\n{said}"
    )
    assert violations == [] and wrong == []
    assert kills >= 3 and len(ended) > 5 * TALKERS
    assert refused <= {"store_unavailable", "draining", "session_exists"}


def _fleet(folder: Path, tiers: Sequence[str], environment: Mapping[str, str], *options: str) -> Fleet:
    folder.mkdir()
    return Fleet(TARGET, folder=folder, replicas=2, options=(*tiers, *options), environment=environment)


async def _prepared(fleet: Fleet) -> dict[str, list[dict[str, Any]]]:
    """Sessions that nobody talks to any more, and their logs; some with what is too large for a log."""
    logs = {}
    async with Client(fleet.urls, retry=PATIENT) as client:
        for number in range(IDLE):
            session = await client.sessions.create()
            script = {"id": f"idle{number}", "do": ["large"] if number % 20 == 0 else [], "words": 2, "pace_ms": 0}
            receipt = await session.send(json.dumps(script), key=f"idle {number}")
            turn = await session.turn(receipt.turn, wait=timedelta(seconds=20))
            assert turn["status"] == "completed", turn
            logs[session.id] = list(await log_of(session))
    return logs


async def _killed_again_and_again(copier: Copier, database: Path) -> int:
    """Kill it after some sessions were sealed, while others are on their way."""
    kills = size(3, 50)
    for number in range(kills):
        before = _count(database)
        await copier.start("--concurrency", "2", "--patience", "100ms")
        wanted = min(before + 1 + (IDLE - 10) // kills, IDLE)
        await wait_until(
            lambda wanted=wanted: _count(database) >= wanted,  # type: ignore[misc]
            description=f"the copier has sealed {wanted} sessions, kill {number}",
            timeout=40,
        )
        await copier.kill()
    return kills


async def _altered(fleet: Fleet, logs: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Which of the idle sessions are not what they were, or answer their keys otherwise."""
    wrong = []
    async with Client(fleet.urls, retry=PATIENT) as client:
        for number, (name, log) in enumerate(logs.items()):
            now = await log_of(client.session(name))
            if now[: len(log)] != log:
                wrong.append(f"{name}: its log is not what it was")
            types = [event["type"] for event in now[len(log) :]]
            if types != ["session.moved", "session.settled"] * 2:
                wrong.append(f"{name}: after it came {types}")
            text = log[1]["data"]["input"]["content"]
            if not (await client.session(name).send(text, key=f"idle {number}")).replayed:
                wrong.append(f"{name}: its key is not known any more")
    return wrong


async def _travel(copier: Copier, crowd: Crowd, old: Fleet, new: Fleet, arrived: Callable[[], bool]) -> str:
    """All sessions go from the old replicas' store to the new ones', and the old ones leave; what the copier said."""
    await copier.start("--follow", "--patience", "500ms")
    await wait_until(arrived, description="all sessions live in the other store", timeout=40)
    await _work_goes_on(crowd)
    assert await asyncio.gather(*(replica.leave() for replica in old)) == [0, 0]
    said = await copier.done()
    for replica in new:
        await replica.leave()
        replica.arguments = tuple(word for word in replica.arguments if word != "--settling")
        await replica.start()
    await _work_goes_on(crowd)
    return said


async def _work_goes_on(crowd: Crowd) -> None:
    ended = crowd.ended
    await wait_until(lambda: crowd.ended >= ended + 2 * TALKERS, description="everybody hears answers", timeout=40)


def _count(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute(MOVED).fetchone()[0])


def _count_postgres(url: str) -> int:
    with closing(_postgres(url)) as connection:
        ((count,),) = connection.execute(MOVED).fetchall()
        return int(count)


def _postgres(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True)
