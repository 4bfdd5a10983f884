"""Reading a log from one number to another."""

import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from dalsegno.core.input import ToolResult
from dalsegno.errors import Refused, Unreadable
from dalsegno.ports import Ref
from dalsegno.runtime import reading
from dalsegno.runtime.reading import pages
from tests.runtime.fleet import fleet

REF = Ref("acme", "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b")


class Log:
    """One with these numbers."""

    def __init__(self, *seqs: int) -> None:
        self.events: list[Any] = [SimpleNamespace(seq=seq) for seq in seqs]

    async def read(self, ref: Ref, *, after: int, limit: int) -> Sequence[Any]:
        return [event for event in self.events if event.seq > after][:limit]


async def numbers(log: Log, *, through: int, after: int = 0) -> list[list[int]]:
    return [[event.seq for event in page] async for page in pages(log.read, REF, through=through, after=after)]


async def test_a_log_is_read_page_by_page(monkeypatch: pytest.MonkeyPatch):
    """Up to the number that is asked for, and no further."""
    monkeypatch.setattr(reading, "PAGE_EVENTS", 2)
    assert await numbers(Log(1, 2, 3, 4, 5, 6), through=5) == [[1, 2], [3, 4], [5]]
    assert await numbers(Log(1, 2, 3, 4), after=2, through=4) == [[3, 4]]
    assert await numbers(Log(1, 2), after=2, through=2) == []


@pytest.mark.parametrize("missing", [1, 3, 4])
async def test_what_is_missing_is_an_error(missing: int, monkeypatch: pytest.MonkeyPatch):
    """P9: "never an empty or older history": at the beginning, where a page begins, and at the end."""
    monkeypatch.setattr(reading, "PAGE_EVENTS", 2)
    log = Log(*(seq for seq in (1, 2, 3, 4) if seq != missing))
    with pytest.raises(Unreadable, match=f"has no event {missing}"):
        await numbers(log, through=4)


async def test_who_has_seen_enough_leaves_nothing_to_a_collection():
    """A look at a turn that has ended, and a decision that comes too late: what reads the log is closed as soon as it
    was told; left lying, it would cost the loop a task.
    """
    begun: list[Any] = []

    async def agent(turn: Any) -> None:
        await turn.say(await turn.ask("which?"))

    async with fleet(agent) as world:
        ref = await world.session()
        waiting = await world.ask(ref, "hi")
        answer = ToolResult(waiting.actions[0].call_id, "this")
        ended = await world.end_of(ref, await world.say(ref, answer))
        await world.ask(ref, "and on")
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=begun.append)
        try:
            assert (await world.any.turn(ref, ended.id)).status == "completed"
            with pytest.raises(Refused, match="already_decided"):
                await world.say(ref, answer)
        finally:
            sys.set_asyncgen_hooks(*hooks)
    assert len(begun) == 2 and all(reading.ag_frame is None for reading in begun)
