"""What must be true in the end of effects that can be undone: of a turn that failed or was cancelled each is undone
once, the latest first; of a completed one none is. Told by the ledger and the log, not by the core's own list.
"""

from collections.abc import Iterator, Sequence

import msgspec

from dalsegno.core import codec
from dalsegno.core.event import (
    TERMINAL,
    Event,
    ItemDone,
    ToolIntent,
    ToolUndone,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
)
from dalsegno.core.ids import turn_id
from dalsegno.core.item import OUTPUT
from dalsegno.ports import Ref
from dalsegno.testing.world.ledger import UNDONE, Ledger
from dalsegno.testing.world.watch import Watch


def undone_problems(ref: Ref, watch: Watch, ledger: Ledger, log: Sequence[Event]) -> Iterator[str]:
    """What is not so, for every turn of this log that has ended."""
    for end in log:
        if end.type in TERMINAL:
            yield from _problems(ref, watch, ledger, [event for event in log if event.turn == end.turn], end)


def _problems(ref: Ref, watch: Watch, ledger: Ledger, mine: Sequence[Event], end: Event) -> Iterator[str]:
    data = [codec.decode(event) for event in mine]
    ended = codec.decode(end)
    undoable = {one.call_id: one for one in data if isinstance(one, ToolIntent) and one.undo}
    told = [one for one in data if isinstance(one, ToolUndone)]
    prefix = f"{ref.tenant}/{ref.id}/{turn_id(ref.id, end.turn or 0)}/"
    undone = {call_id: _times(prefix + call_id, watch, ledger) for call_id in undoable}
    if isinstance(ended, TurnCompleted):
        yield from (f"{call_id} of a completed turn was undone" for call_id, times in undone.items() if times)
        return
    assert isinstance(ended, TurnFailed | TurnCancelled)
    if sorted(ended.not_undone) != sorted(one.call_id for one in told if one.status != "completed"):
        yield f"{ended} does not say what became of {told}"
    if isinstance(ended, TurnFailed) and "in part" in ended.error.message:
        return  # undoing it killed replicas without end, and it says so
    for call_id, times in undone.items():
        yield from _one(prefix + call_id, times, call_id in ended.not_undone, watch, ledger)
    order = [str(one.item["call_id"]) for one in data if isinstance(one, ItemDone) and one.item["type"] == OUTPUT]
    place = {call_id: number for number, call_id in enumerate(order)}
    places = [place.get(one.call_id, len(order)) for one in told]
    if places != sorted(places, reverse=True) or len({one.call_id for one in told}) != len(told):
        yield f"it was undone as {[one.call_id for one in told]}, and had been completed as {order}"
    acts = [name.removeprefix(prefix) for name in ledger.undone if name.startswith(prefix)]
    if acts != [one.call_id for one in told if one.call_id in acts]:
        yield f"it was undone in the order {acts}, and the log says {[one.call_id for one in told]}"


def _one(name: str, times: int, given_up: bool, watch: Watch, ledger: Ledger) -> Iterator[str]:
    """Once if it had happened. What a paused replica does after all is beyond reach, unless a key stops it."""
    applied = ledger.applied[name] + sum(row.startswith(f"{name}#") for row in watch.database.scratch)
    late = ledger.applied_stale[name] > 0
    if times > 1:
        yield f"{name} was undone {times} times"
    if applied and not times and not given_up and not late:
        yield f"{name} was applied {applied} times, and is not undone"


def _times(name: str, watch: Watch, ledger: Ledger) -> int:
    row = watch.database.scratch.get(UNDONE + name)
    return ledger.undone.count(name) + (0 if row is None else msgspec.msgpack.decode(row, type=int))
