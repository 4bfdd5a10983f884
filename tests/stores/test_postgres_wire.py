"""The statement that every commit is, straight on libpq: whoever is cancelled in the middle of it leaves it usable."""

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dalsegno.stores.outlast import Certain
from dalsegno.stores.postgres import PostgresLog
from dalsegno.stores.postgres.rows import Change
from dalsegno.stores.postgres.writer import CROWD_MIN, FLIGHTS_MAX, Writer
from dalsegno.testing.conformance.acts import accept, history, session

WORDS = ("before", "while it is prepared", "after", "and again")


@pytest.mark.parametrize("rounds", range(1, 6))
async def test_who_is_cancelled_while_it_is_prepared_leaves_the_connection_usable(database: str, rounds: int):
    """P5: the next writes on that connection are written; those that were cancelled are there, or not, as a whole."""
    log = await PostgresLog.open(database)
    try:
        await accept(log, session(), WORDS[0])
        task = asyncio.create_task(accept(log, session(), WORDS[1]))
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await accept(log, session(), WORDS[2])
        await accept(log, session(), WORDS[3])
        said = b"".join(event.data for event in await history(log, session()))
        assert [said.count(f'"{words}"'.encode()) for words in WORDS if words != WORDS[1]] == [1, 1, 1]
    finally:
        await log.close()


async def test_who_leaves_the_line_writes_nothing_and_keeps_nobody_back(database: str):
    """Commits of one session go in the order in which they came; who is cancelled before its turn was never there."""
    log = await PostgresLog.open(database)
    try:
        await accept(log, session(), WORDS[0])
        tasks = [asyncio.create_task(accept(log, session(), words)) for words in ("one", "two", "three", "four")]
        await asyncio.sleep(0)
        tasks[1].cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(ends[1], asyncio.CancelledError)
        said = b"".join(event.data for event in await history(log, session()))
        assert b'"two"' not in said
        assert said.index(b'"one"') < said.index(b'"three"') < said.index(b'"four"')
    finally:
        await log.close()


async def test_whatever_goes_wrong_with_one_of_many_is_told_to_who_waits(
    database: str, monkeypatch: pytest.MonkeyPatch
):
    """P5: a defect of ours in one commit leaves nobody waiting for ever."""

    async def broken(writer: Writer, change: Change) -> bool:
        raise ValueError("a defect")

    log = await PostgresLog.open(database)
    try:
        monkeypatch.setattr(Writer, "_send_one", broken)
        future: Certain[bool] = Certain()
        with contextlib.suppress(ValueError):
            await log._sessions._writer._one_by_one([(cast(Change, None), future)])
        assert isinstance(future.exception(), ValueError)
    finally:
        await log.close()


async def test_of_a_crowd_nobody_goes_alone():
    """A statement for one costs the server and this process as much as one for many: who comes while many are on their
    way, or have just been, goes with others. Only the first of all cannot know.
    """
    alone: list[Change] = []

    class Near(Writer):
        """One whose statements take a few rounds of the loop."""

        async def _send(self, changes: Sequence[Change]) -> list[int]:
            for _ in range(5):
                await asyncio.sleep(0)
            return []

        async def _send_one(self, change: Change) -> bool:
            alone.append(change)
            await self._send([change])
            return True

    writer, nothing = Near(cast(Any, None), cast(Any, None)), cast(Any, SimpleNamespace(kept=SimpleNamespace(n=1)))

    async def busy() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
            await writer.write(nothing)

    await asyncio.gather(*(busy() for _ in range(CROWD_MIN + 4)))
    assert len(alone) == FLIGHTS_MAX


@pytest.mark.parametrize("rounds", range(5))
@pytest.mark.parametrize("count", [1, 2 * CROWD_MIN])
def test_a_loop_that_ends_leaves_nobody_waiting_for_a_statement_that_had_not_begun(count: int, rounds: int):
    """Who waits to be written hears of no cancellation, but is told when the statement that it was to go with is
    cancelled; and those behind it in the line go next. So a program whose loop ends just then ends.
    """

    class Slow(Writer):
        """One whose statements take long."""

        async def _send(self, changes: Sequence[Change]) -> list[int]:
            await asyncio.sleep(0.1)
            return []

    async def program() -> None:
        writer, nothing = Slow(cast(Any, None), cast(Any, None)), cast(Any, SimpleNamespace(kept=SimpleNamespace(n=1)))
        writer._quiet = False  # as after a crowd: it goes with others
        writing = [asyncio.create_task(writer.write(nothing)) for _ in range(count)]
        for _ in range(rounds):
            await asyncio.sleep(0)
        assert not any(task.done() for task in writing)

    running = threading.Thread(target=lambda: asyncio.run(program()), daemon=True)
    running.start()
    running.join(10)
    assert not running.is_alive()
