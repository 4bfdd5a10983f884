"""Which effects of a turn are undone when it fails or is cancelled, and in which order.

Everything that may have happened is undone, the latest first: what has a completed output; what raised, or did not
finish in its time, since something may have come of it all the same; and what has no output because its replica died
over it. Nothing is undone of a call for which no tool was run, and nothing of a transaction that was not committed.

All of it follows from the turn's journal up to its `turn.undoing`, so every replica that goes on finds the same list,
less what has been undone since.
"""

from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec

from dalsegno.core.event import ToolIntent
from dalsegno.core.ids import undo_key
from dalsegno.core.input import ToolResult
from dalsegno.core.step import Journal

UNDONE_BY_MAX = 3
"""Replicas that may die over undoing before it is given up."""
SHOWN_CHARS = 500
GIVEN_UP = "{} replicas died while this turn was being undone; it was not tried again."
NO_COMPENSATION = "There is no tool named {!r} any more that could undo this."

Outcome: TypeAlias = Literal["completed", "unknown"]


class Owed(msgspec.Struct, frozen=True):
    """A call that is to be undone, under `key`, and what is on record of it."""

    call_id: str
    name: str
    key: str
    effect: str
    outcome: Outcome
    output: str | None


def owed(journal: Journal) -> tuple[Owed, ...]:
    """What is still to be undone, in the order in which it is: the reverse of the order in which it was completed.

    Calls without an output come first: they were under way when all others had been completed.
    """
    return tuple(one for one in _all(journal) if one.call_id not in journal.undone)


def not_undone(journal: Journal) -> tuple[str, ...]:
    """The calls that could not be undone."""
    return tuple(call_id for call_id, made in journal.undone.items() if made.status != "completed")


def hopeless(journal: Journal, *, attempt: int) -> bool:
    """Whether undoing has cost so many replicas their lives that nothing of the user's is run any more."""
    return journal.undoing is not None and attempt - journal.undoing.attempt >= UNDONE_BY_MAX


def note(journal: Journal) -> str:
    """What the model is told about it in later turns."""
    lines = [_line(one, journal) for one in _all(journal) if one.call_id in journal.undone]
    ended = "was cancelled" if journal.undoing is None or journal.undoing.error is None else "failed"
    head = f"This turn {ended}, and what its tools had done was undone, the latest first:"
    return "\n".join((f"[{head}", *lines)) + "]"


def _line(one: Owed, journal: Journal) -> str:
    made = journal.undone[one.call_id]
    known = one.outcome == "completed"
    if made.status == "completed":
        done = "undone" if known else "undone; whether it had happened is not known"
    else:
        done = "NOT undone and is still in effect" if known else "NOT undone; whether it has happened is not known"
    more = "" if made.output in ("", "null") else f": {made.output[:SHOWN_CHARS]}"
    return f"- {one.name} ({one.call_id}) was {done}{more}"


def _all(journal: Journal) -> Iterator[Owed]:
    finished = [call_id for call_id in journal.outputs if call_id in journal.intents]
    open_still = [call_id for call_id in journal.intents if call_id not in journal.outputs]
    for call_id in reversed([*finished, *open_still]):
        intent = journal.intents[call_id][1]
        found = _came_of(journal, intent) if intent.undo else None
        if found is not None:
            outcome, output = found
            yield Owed(call_id, intent.name, undo_key(intent.key), intent.effect, outcome, output)


def _came_of(journal: Journal, intent: ToolIntent) -> tuple[Outcome, str | None] | None:
    """What the call came to; None = nothing can have come of it."""
    item = journal.outputs.get(intent.call_id)
    if item is None:
        return _unfinished(journal, intent)
    if intent.call_id in journal.idle:
        return None
    if item["status"] == "completed":
        return "completed", str(item["output"])
    return None if intent.effect == "transactional" else ("unknown", str(item["output"]))


def _unfinished(journal: Journal, intent: ToolIntent) -> tuple[Outcome, str | None] | None:
    answer = journal.answers.get(intent.call_id)
    if answer is not None and isinstance(answer[1], ToolResult):
        said = answer[1]
        return ("completed", said.output) if said.output is not None else ("unknown", said.error)
    if intent.effect == "transactional":
        return None
    free = journal.freed.get(intent.call_id) if intent.gated else journal.intents[intent.call_id][0]
    died = journal.adopted if journal.undoing is None else journal.undoing.died
    return ("unknown", None) if free is not None and free < died else None
