"""The suite can fail: transactions that are wrong on purpose, each with the case that must catch it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dalsegno.errors import DalsegnoError
from dalsegno.stores.memory import log as memory_log
from dalsegno.stores.memory.log import MemoryTransaction
from dalsegno.testing.conformance import TransactionCases, acts
from dalsegno.testing.conformance.memory import MemoryWorld


class WritesAtOnce(MemoryTransaction):
    """The tool's writes do not wait for the commit."""

    async def execute(self, statement: str, parameters: Sequence[object] = ()):
        rows = await super().execute(statement, parameters)
        self._database.scratch.update(self._written)
        return rows


class CommitsInTwoSteps(MemoryTransaction):
    """The tool's writes are kept whatever becomes of the decision."""

    async def commit(self, decide):
        self._database.scratch.update(self._written)
        return await super().commit(decide)


class CommitsTheLogAlone(MemoryTransaction):
    """The record is there, and what it records is not."""

    async def commit(self, decide):
        self._written = {}
        return await super().commit(decide)


class NeverExpires(MemoryTransaction):
    """Has all the time in the world."""

    def expire(self):
        return


class GoesOnAfterCommit(MemoryTransaction):
    """Does not notice that it has ended."""

    async def _arrive(self):
        await asyncio.sleep(0)


class UnderstandsEndings(MemoryTransaction):
    """Lets a tool end the transaction."""

    async def execute(self, statement: str, parameters: Sequence[object] = ()):
        if statement.lower() == "commit":
            self._database.scratch.update(self._written)
            return []
        return await super().execute(statement, parameters)


WRONG: dict[type, Callable[..., Any]] = {
    WritesAtOnce: TransactionCases.test_leaving_without_commit_undoes_everything,
    CommitsInTwoSteps: TransactionCases.test_a_refused_decision_undoes_what_the_tool_wrote,
    CommitsTheLogAlone: TransactionCases.test_both_become_durable_together,
    NeverExpires: TransactionCases.test_time_runs_out,
    GoesOnAfterCommit: TransactionCases.test_nothing_follows_a_commit,
    UnderstandsEndings: TransactionCases.test_nobody_ends_it_behind_our_back,
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
async def test_the_suite_catches(wrong: type, monkeypatch: pytest.MonkeyPatch):
    """Whoever breaks a promise fails the case that quotes it."""
    monkeypatch.setattr(acts, "EVENTUALLY_SECONDS", 0.3)
    monkeypatch.setattr(memory_log, "MemoryTransaction", wrong)
    world = MemoryWorld()
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception, DalsegnoError)):
            await WRONG[wrong](None, world=world)
    finally:
        await world.close()
