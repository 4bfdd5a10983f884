"""Replicas die while an operator archives whatever is idle for a moment: to clients nothing happens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from dalsegno.core.idle import Policy
from dalsegno.ops.tiers import Places, opened
from dalsegno.ports import Member
from dalsegno.runtime.archivist import Archivist, Tally
from dalsegno.runtime.replica import Replica
from tests.acceptance.conftest import Serving
from tests.acceptance.ledger import Ledger
from tests.acceptance.sizes import publish, seconds, size
from tests.acceptance.test_kill import survive_kills

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(240))]

ALWAYS = Policy(archive_after=timedelta(0), sweep_after=timedelta(0))


@asynccontextmanager
async def archiving(database: Path) -> AsyncIterator[Tally]:
    """Walk again and again, beside the fleet, in a process of its own; what all walks came to."""
    whole = Tally()
    where = Places(f"sqlite:///{database}", "memory:", f"file://{database}-cold")
    async with opened(where) as tiers:
        replica = Replica(Member("operator", "operator"), {}, warm=tiers.warm, hot=tiers.hot, blobs=tiers.cold)
        archivist = Archivist(tiers.warm, tiers.cold, eraser=replica.eraser, policy=ALWAYS)

        async def walk() -> None:
            while True:
                if await archivist.go_on():
                    for name in whole.__struct_fields__:
                        setattr(whole, name, getattr(whole, name) + getattr(archivist.tally, name))
                    await asyncio.sleep(0.1)  # the pace of the operator, and no wait for anything

        walking = asyncio.create_task(walk())
        try:
            yield whole
            assert not walking.done(), walking
        finally:
            walking.cancel()
            await asyncio.gather(walking, return_exceptions=True)


async def test_sessions_come_and_go_while_replicas_die(serving: Serving, ledger: Ledger, database: Path):
    """P1, P2, P5, P7, P8 and P9 as in `test_kill`, where every session is archived again and again."""
    async with serving() as fleet, archiving(database) as tally:
        await survive_kills(fleet, size(10, 100), ledger, database, enough=lambda: tally.archived > 5)
        publish(f"archived {tally.archived} times, {tally.removed} objects removed")
    assert tally.failed == 0
