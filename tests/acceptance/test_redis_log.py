"""The same fleet with all on one Redis or Valkey: the log, under `appendfsync always`, and the hot tier beside it.

Replicas die by `kill -9`, and so does the server; sessions go on.
"""

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dalsegno.testing.servers import redis as servers
from dalsegno.testing.servers.redis import Redis
from tests.acceptance.conftest import Serving
from tests.acceptance.crowd import PATIENT, Crowd
from tests.acceptance.ledger import Ledger
from tests.acceptance.sizes import publish, seconds, size
from tests.acceptance.test_kill import kill_at_random
from tests.acceptance.test_takeover import measure_takeovers
from tests.acceptance.verdict import world_of
from tests.support import wait_until

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(120))]

SESSIONS = 12
TOOLS = ("keyed", "once", "read")
"""A `transactional` tool needs a database with SQL."""


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    program = servers.preferred(os.environ.get("REDIS_PROGRAM"))
    with servers.running(program, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def tiers(server: Redis, tmp_path: Path) -> tuple[str, ...]:
    """Both tiers on the one server, in a namespace of this test's own."""
    url = f"{server.url}?namespace={tmp_path.name}"
    return "--warm", url, "--hot", url, "--cold", f"file://{tmp_path}/cold"


async def test_replicas_and_the_server_are_killed_and_sessions_go_on(
    serving: Serving, ledger: Ledger, database: Path, server: Redis
):
    """P1, P2, P5, P7, P8 on Redis: nothing is lost, doubled or stuck when replicas die, and the server with its disk
    kept; and P5: "After a replica's process dies its turns go on within 1 s".
    """
    kills, crashes = size(8, 300), size(2, 50)
    async with serving() as fleet:
        crowd = Crowd(fleet, size=SESSIONS, seed=7, retry=PATIENT, do=list(TOOLS))
        async with crowd.at_work(within=60):
            await _ended(crowd, SESSIONS)
            await kill_at_random(fleet, kills, random.Random(7), crowd)
            for _ in range(crashes):
                await asyncio.to_thread(server.restart)
                await _ended(crowd, crowd.ended + SESSIONS)
        violations, ended = await crowd.judged(world_of(ledger, database))
        await measure_takeovers(fleet, size(4, 200), ledger)
    poisoned = [end for end in ended if end["type"] == "turn.failed"]
    publish(
        f"on Redis: {kills} kills of replicas, {crashes} of the server, {len(ended)} turns, {len(poisoned)} poisoned; "
        f"refused meanwhile: {dict(crowd.refusals)}; {len(violations)} violations"
    )
    assert violations == []
    assert len(poisoned) <= kills, "turns are short: few of them can meet three kills"
    assert {(status, code) for status, code, _ in crowd.refusals} <= {(503, "store_unavailable"), (503, "draining")}


async def _ended(crowd: Crowd, count: int) -> None:
    await wait_until(lambda: crowd.ended >= count, description=f"{count} turns have ended", timeout=40)
