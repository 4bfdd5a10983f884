"""What happens to a whole fleet: rolling restarts, a turn that kills whoever runs it, and everything down at once."""

import json
import os
import signal
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from dalsegno.client import Client
from dalsegno.testing.fleet import Fleet, supervised
from tests.acceptance.conftest import TARGET, Serving
from tests.acceptance.crowd import STUBBORN, Crowd
from tests.acceptance.ledger import Ledger
from tests.acceptance.sizes import publish, seconds, size
from tests.acceptance.verdict import Said, Seen, judge, log_of, world_of
from tests.support import wait_until

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(120))]

DRAIN_SECONDS = 5.0
DRAIN = ("--drain-timeout", f"{DRAIN_SECONDS:g}s")
BYSTANDERS = 12


async def test_a_rolling_restart_fails_no_request(serving: Serving, ledger: Ledger, database: Path):
    """Rolling restart under load: every request succeeds after the client's retry, every replica leaves within its
    time and with exit code 0, and P1, P2, P5, P7 and P8 hold meanwhile.
    """
    async with serving(options=DRAIN) as fleet:
        await survive_restarts(fleet, size(3, 50), ledger, database)


async def survive_restarts(fleet: Fleet, cycles: int, ledger: Ledger, database: Path | str) -> None:
    """Everybody talks while one replica after another leaves and is started again; then everything is judged."""
    codes, leaves = list[int](), list[float]()
    crowd = Crowd(fleet, size=12, seed=6, words=20, pace_ms=5)
    async with crowd.at_work(within=30):
        await wait_until(lambda: crowd.ended >= 12, description="everybody has heard an answer", timeout=30)
        for _ in range(cycles):
            for replica in fleet:
                before, began = crowd.ended, time.monotonic()
                codes.append(await replica.leave())
                leaves.append(time.monotonic() - began)
                await replica.start()
                await wait_until(lambda before=before: crowd.ended > before, description="work goes on", timeout=10)  # type: ignore[misc]
    violations, turns = await crowd.judged(world_of(ledger, database))
    failed = [end for end in turns if end["type"] == "turn.failed"]
    publish(
        f"{cycles} rolling restarts: {len(codes)} replicas left, the slowest in {max(leaves):.2f} s; "
        f"{len(turns)} turns, {sum(seen.resumed for seen in crowd.seen)} streams resumed, {len(failed)} failed, "
        f"{len(violations)} violations"
    )
    assert codes == [0] * 3 * cycles
    assert violations == [] and failed == []
    assert max(leaves) < DRAIN_SECONDS + 2


async def test_everything_acknowledged_goes_on_after_the_whole_fleet_died(
    serving: Serving, ledger: Ledger, database: Path
):
    """P1, P5: all replicas are killed at the same moment and started again; every turn that was accepted ends."""
    rounds, sessions, seen_by = size(10, 50), 8, list[Seen]()
    async with serving() as fleet, Client(fleet.urls, retry=STUBBORN) as client:
        for number in range(rounds):
            now = [Seen(await client.sessions.create()) for _ in range(sessions)]
            for place, seen in enumerate(now):
                for turn in range(2):
                    name = f"f{number}-{place}-{turn}"
                    script = {"id": name, "do": ["keyed", "transactional"], "words": 12, "pace_ms": 2, "voice": "same"}
                    seen.said.append(Said(script, await seen.session.send(json.dumps(script), key=name)))
            busy = len(ledger.lines("model"))
            for replica in fleet:
                replica.send(signal.SIGKILL)
            for replica in fleet:
                await replica.ended()
            assert busy, "something was under way"
            await fleet.start()
            for seen in now:
                for said in seen.said:
                    end = await seen.session.turn(said.receipt.turn, wait=timedelta(seconds=30))
                    assert end["status"] == "completed", end
            seen_by += now
        world = world_of(ledger, database)
        violations = [found for seen in seen_by for found in judge(seen, await log_of(seen.session), world)]
    taken = {line["turn"] for line in ledger.lines("model") if line["attempt"] > 1}
    publish(
        f"{rounds} times all replicas were killed, {len(taken)} turns were taken over, {len(violations)} violations"
    )
    assert violations == []
    assert len(taken) >= rounds


async def test_a_turn_that_kills_three_replicas_fails_and_harms_nobody(
    tmp_path: Path, ledger: Ledger, database: Path, environment: dict[str, str]
):
    """P5: "A turn that kills three replicas fails as `poisoned`, and its session stays usable." The supervisor starts
    the replicas again, and the turns that ran beside it end as they would have.
    """
    options = ("--warm", f"sqlite:///{database}")
    async with supervised(TARGET, folder=tmp_path, options=options, environment=environment) as fleet:
        async with Client(fleet.ready[0].url, retry=STUBBORN) as client:
            others = [await client.sessions.create() for _ in range(BYSTANDERS)]
            pace = {"words": 30, "first_pace_ms": 25, "pace_ms": 8}
            long = [{"id": f"b{number}", "do": ["keyed"], **pace} for number in range(BYSTANDERS)]
            beside = [await other.send(json.dumps(script)) for other, script in zip(others, long, strict=True)]
            session = await client.sessions.create()
            receipt = await session.send(json.dumps({"id": "p", "do": ["poison"], "words": 1}))
            turn = await session.turn(receipt.turn, wait=timedelta(seconds=30))
            assert (turn["status"], turn["error"]["code"], turn["attempt"]) == ("failed", "poisoned", 3), turn
            assert len({line["pid"] for line in ledger.lines("poison")}) == 3
            assert await session.ask("and now?") == "and now?"
            ends = Counter[str]()
            for other, said in zip(others, beside, strict=True):
                end = await other.turn(said.turn, wait=timedelta(seconds=30))
                ends[end["status"] if end["error"] is None else end["error"]["code"]] += 1
            await fleet.until_ready(6)
            pids = {ready.pid for ready in fleet.ready}
            alive = [pid for pid in pids if _lives(pid)]
            publish(f"the turns beside it: {dict(ends)}; {len(pids)} processes, {len(alive)} alive")
            assert ends == {"completed": BYSTANDERS}
            assert len(alive) == 3 and len(pids) == 6
        assert await fleet.leave() == 0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
