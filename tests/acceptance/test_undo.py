"""Replicas that die by `kill -9` in the middle of undoing a turn: others go on, and nothing is undone twice."""

from datetime import timedelta
from pathlib import Path

import pytest

from dalsegno.client import Client
from dalsegno.testing.fleet import Fleet
from tests.acceptance.conftest import Serving
from tests.acceptance.crowd import STUBBORN
from tests.acceptance.ledger import Ledger
from tests.acceptance.sizes import seconds, size
from tests.acceptance.verdict import world_of
from tests.support import wait_until

TARGET = "tests.acceptance.undoing:agent"
pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(120))]


async def test_a_fleet_that_is_killed_while_it_undoes(serving: Serving, ledger: Ledger, database: Path):
    """Each turn fails, and each of its effects is undone: once where the key is honoured, exactly once in the
    database, the latest first. One kill a turn, at the first, second or third compensation.
    """
    async with serving(target=TARGET) as fleet:
        await survive_undoing(fleet, size(2, 60), ledger, database)


async def survive_undoing(fleet: Fleet, kills: int, ledger: Ledger, database: Path | str) -> None:
    """Turns that fail, one after another; of each whoever undoes it is killed."""
    async with Client(fleet.urls, retry=STUBBORN) as client:
        for number in range(kills):
            session = await client.sessions.create()
            receipt = await session.send("go")
            begun = await wait_until(
                lambda turn=receipt.turn, place=number % 3: ledger.lines("begun", turn=turn)[place:],  # type: ignore[misc]
                description="it is being undone",
            )
            victim = next(replica for replica in fleet if replica.pid == begun[0]["pid"])
            await victim.kill()
            turn = await session.turn(receipt.turn, wait=timedelta(seconds=20))
            assert (turn["status"], turn["error"]["code"]) == ("failed", "ValueError")
            end = [event async for event in session.stream(after="0", turn=receipt.turn)][-1]
            assert (end.type, "not_undone" in end.data) == ("turn.failed", False)
            undone = [line["label"] for line in ledger.lines("undo", turn=receipt.turn)]
            paid = [line["label"] for line in ledger.lines("pay", turn=receipt.turn)]
            assert list(dict.fromkeys(undone)) == list(reversed(paid))
            await victim.start()
    assert ledger.keys("undo").keys() == ledger.keys("pay").keys()
    assert all(len(keys) == 1 for keys in ledger.keys("undo").values())
    booked = world_of(ledger, database).booked
    assert (len(booked), set(booked.values())) == (2 * kills, {1})
