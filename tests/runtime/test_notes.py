"""Notes of an adapter: they go into the log with whatever is written next, and harm nothing that is."""

from typing import Any

import pytest

from dalsegno.core.item import EVENT
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.notes import NOTE_BYTES_MAX
from tests.runtime.fleet import fleet


def note(data: Any) -> Any:
    return {"type": EVENT, "name": "note", "data": data}


@pytest.mark.parametrize(
    "data", [object(), "half a pair: \ud800", "x" * NOTE_BYTES_MAX], ids=["object", "surrogate", "large"]
)
async def test_a_note_that_no_log_can_hold(data: Any):
    """It is the error of who keeps it, and at once: what others have said is recorded, and other notes are."""
    raised: list[Exception] = []

    async def agent(turn: Turn) -> None:
        turn.notes.keep(note(1))
        await turn.say("first")
        try:
            turn.notes.keep(note(data))
        except Exception as error:
            raised.append(error)
        turn.notes.keep(note(2))
        await turn.say("second")

    async with fleet(agent) as world:
        ref = await world.session()
        turn = await world.ask(ref, "go")
        assert turn.status == "completed", turn.error
        assert len(raised) == 1
        items = [done.item for done in await world.data(ref, "item.done")]
        assert [item["data"] for item in items if item["type"] == EVENT] == [1, 2]
        assert [item["type"] for item in items if item["type"] != EVENT] == ["message", "message"]
