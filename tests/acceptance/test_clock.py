"""Replicas whose wall clocks disagree by minutes or days. Order, leases and take-over do not care."""

import shutil
from pathlib import Path

import pytest

from dalsegno.client import Client
from dalsegno.testing.fleet import Fleet, Served
from tests.acceptance.conftest import Serving
from tests.acceptance.crowd import STUBBORN, Crowd
from tests.acceptance.ledger import Ledger
from tests.acceptance.sizes import publish, seconds
from tests.acceptance.verdict import judge, log_of, world_of
from tests.support import wait_until

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(90))]

# The agent's module is loaded before the replica serves: here it moves every wall clock that Python asks, and jumps.
SKEWED = """
import itertools, os, time
shifts, real, real_ns = itertools.cycle(eval(os.environ["ACCEPTANCE_SHIFTS"])), time.time, time.time_ns
time.time = lambda: real() + next(shifts)
time.time_ns = lambda: real_ns() + int(next(shifts) * 1e9)
from tests.acceptance.agents import agent
"""
SHIFTS = ("[45]", "[-86400]", "[0, 3600, -3600]")
"""Seconds by which the clocks of the three replicas are wrong; the third one's jumps back and forth."""


async def test_wrong_clocks_change_nothing(serving: Serving, ledger: Ledger, database: Path, tmp_path: Path):
    """P4: "whatever its clock says"; law 11: "The store's clock decides leases; a replica's clock only measures
    durations." Three replicas are 45 s ahead, a day behind, and jumping; each is killed once.
    """
    (tmp_path / "skewed.py").write_text(SKEWED)
    async with serving(target="skewed.py:agent", options=("--lease-ttl", "1s"), ACCEPTANCE_SHIFTS="[0]") as fleet:
        for replica, shifts in zip(fleet, SHIFTS, strict=True):
            await again(replica, shifts)
        violations, days = await judged(fleet, ledger, database)
    publish(f"{len(days)} different dates in the logs, {len(violations)} violations")
    assert violations == []
    assert len(days) >= 2, "the clocks were wrong"


@pytest.mark.skipif(
    shutil.which("faketime") is None, reason="faketime is not installed: the C library's clock stays right"
)
async def test_a_wrong_clock_of_the_system_changes_nothing(serving: Serving, ledger: Ledger, database: Path):
    """The same with libfaketime, which moves the clock for SQLite, OpenSSL and everybody else in the process."""
    libraries = sorted(Path("/usr/lib").rglob("libfaketime.so.1"))
    variables = {"LD_PRELOAD": str(libraries[0]), "DONT_FAKE_MONOTONIC": "1"}
    async with serving(options=("--lease-ttl", "1s"), FAKETIME="+45s", **variables) as fleet:
        await again(fleet["r2"], "[0]", FAKETIME="-1d")
        violations, days = await judged(fleet, ledger, database)
    assert violations == []
    assert len(days) >= 2, "the clocks were wrong"


async def again(replica: Served, shifts: str, **variables: str) -> None:
    """Start the replica again with another clock."""
    await replica.kill()
    replica.environment = {**(replica.environment or {}), "ACCEPTANCE_SHIFTS": shifts, **variables}
    await replica.start()


async def judged(fleet: Fleet, ledger: Ledger, database: Path) -> tuple[list[str], set[str]]:
    """What is wrong after everybody has talked and each replica has died once; and the dates that were written."""
    crowd = Crowd(fleet, size=9, seed=12)
    async with crowd.at_work(within=30):
        await wait_until(lambda: crowd.ended >= 9, description="everybody has heard an answer", timeout=30)
        for replica in fleet:
            before = crowd.ended
            await replica.kill()
            await wait_until(lambda before=before: crowd.ended >= before + 9, description="work goes on", timeout=30)  # type: ignore[misc]
            await replica.start()
    world, violations, days = world_of(ledger, database), list[str](), set[str]()
    async with Client(fleet.urls, retry=STUBBORN) as client:
        for seen in crowd.seen:
            log = await log_of(client.session(seen.session.id))
            violations += judge(seen, log, world)
            days |= {event["at"][:10] for event in log}
    return violations, days
