"""Replicas die by `kill -9`, at random, in the middle of whatever they do. Nothing is lost, doubled or stuck."""

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from dalsegno.testing.fleet import Fleet, Served
from tests.acceptance.conftest import Serving
from tests.acceptance.crowd import Crowd
from tests.acceptance.ledger import Ledger
from tests.acceptance.sizes import publish, seconds, size
from tests.acceptance.verdict import World, world_of
from tests.support import wait_until

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(240))]

SESSIONS = 20
SEED = 20260
TURNS_A_KILL = 6
"""So many turns end between two kills, however fast the machine is: few of them meet three."""
AFTER_SECONDS = (0.0, 0.1)


class Blow(NamedTuple):
    """One `kill -9`: which process, when by the clock that the ledger uses, and how many others served."""

    pid: int
    at: float
    others: int


async def test_random_kills_lose_double_and_block_nothing(serving: Serving, ledger: Ledger, database: Path):
    """P1, P2, P5, P7, P8: "An acknowledged message is in its session's log and stays there …, through the crash of any
    number of replicas"; "for one (tenant, session, idempotency key) at most one message is appended"; "every accepted
    turn reaches exactly one end"; "`keyed`: … exactly once if the turn completes. `transactional`: exactly once.
    `once`: at most once"; "reconnecting anywhere with the last cursor yields every later durable event once and in
    order, and the text of every item completely".
    """
    async with serving() as fleet:
        await survive_kills(fleet, size(100, 1000), ledger, database)


async def survive_kills(
    fleet: Fleet, kills: int, ledger: Ledger, database: Path | str, *, enough: Callable[[], bool] = lambda: True
) -> list[Blow]:
    """Everybody talks while replicas are killed, and goes on after it until there is `enough` of what else happens;
    then everything is judged. The kills.
    """
    chance = random.Random(SEED)
    crowd = Crowd(fleet, size=SESSIONS, seed=SEED)
    async with crowd.at_work(within=60):
        await wait_until(lambda: crowd.ended >= SESSIONS, description="everybody has heard an answer", timeout=30)
        before = crowd.ended
        blows = await kill_at_random(fleet, kills, chance, crowd)
        killed = crowd.ended
        await wait_until(
            lambda: crowd.ended >= killed + SESSIONS and enough(),
            description="work goes on after the last kill",
            timeout=30,
        )
    world = world_of(ledger, database)
    violations, ended = await crowd.judged(world)
    poisoned = [end for end in ended if end["type"] == "turn.failed"]
    resumed = sum(seen.resumed for seen in crowd.seen)
    orphans = {line["turn"] for line in ledger.lines("model") if line["attempt"] > 1}
    publish(
        f"{kills} kills, {len(ended)} turns ({killed - before} while killing), {len(orphans)} taken over, "
        f"{resumed} streams resumed, {len(poisoned)} poisoned, {len(violations)} violations"
    )
    assert violations == []
    assert all(end["data"]["error"]["code"] == "poisoned" for end in poisoned)
    assert len(poisoned) <= len(ended) // 10, "turns are short: few of them can meet three kills"
    assert sum(replica.starts for replica in fleet) >= kills + 3
    assert len(orphans) >= kills // 4 and resumed >= kills and killed > before
    assert _something_was_done(world)
    return blows


async def kill_at_random(fleet: Fleet, kills: int, chance: random.Random, crowd: Crowd) -> list[Blow]:
    """Kill a serving replica again and again while a crowd is at work, and start it at once. One kill in ten does not
    care who is left.
    """
    blows: list[Blow] = []
    due = crowd.ended

    def victims() -> list[Served]:
        serving = [replica for replica in fleet if replica.serving and crowd.ended >= due]
        return serving if len(serving) > 1 or (serving and chance.random() < 0.1) else []

    async with asyncio.TaskGroup() as restarts:
        for _ in range(kills):
            victim = chance.choice(await wait_until(victims, description="two replicas serve and work", timeout=30))
            await asyncio.sleep(chance.uniform(*AFTER_SECONDS))  # not at an end of a turn, and no wait for anything
            due = crowd.ended + TURNS_A_KILL
            others = sum(replica.serving for replica in fleet) - 1
            blows.append(Blow(victim.pid, time.monotonic(), others))
            await victim.kill()
            restarts.create_task(victim.start())
    return blows


def _something_was_done(world: World) -> bool:
    return bool(world.keyed and world.times["once"] and world.times["read"] and world.booked)
