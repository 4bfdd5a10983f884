"""Steps: how each is named, and what the log says about it. A step on record is answered from here and never run again.

A step's key is its name and its ordinal among the steps of that name in the turn (`model#2`), so that steps that run
side by side find their own record whatever the order they finish in. A tool call is found by its call id.
"""

from collections.abc import Iterable

import msgspec

from dalsegno.core import codec
from dalsegno.core.event import (
    ContextSummarized,
    Data,
    Event,
    ItemDone,
    ToolIntent,
    ToolUndone,
    TurnCreated,
    TurnError,
    TurnInput,
    TurnStarted,
    TurnUndoing,
    Unknown,
)
from dalsegno.core.input import Approval, Cancel, Message, ToolResult
from dalsegno.core.item import CALL, OUTPUT, innermost
from dalsegno.core.json import JsonObject

NOTED = frozenset(
    {
        *("turn.created", "turn.input", "turn.started", "turn.undoing"),
        *("item.done", "tool.intent", "tool.undone", "context.summarized"),
    }
)


class StepRecord(msgspec.Struct, frozen=True):
    """What a step left: its items in order, the last event that it had been shown, and which call it was inside of."""

    items: tuple[JsonObject, ...]
    through: int
    usage: JsonObject | None = None
    inside: str | None = None


class Undoing(msgspec.Struct, frozen=True):
    """The turn is being undone since `attempt`, to fail with `error` or to be cancelled.

    `died` is the number of the last event that followed the death of a replica before that: what was free to be carried
    out earlier and has no output may have happened.
    """

    error: TurnError | None
    died: int
    attempt: int


class Journal(msgspec.Struct):
    """One turn's log, indexed by what an agent asks about. Grows with the turn, never with the session.

    `inside` names the call that another one was asked for inside of; `intents` and `answers` hold the number of their
    event beside its content, `freed` the number of the first answer that let a call be made; `adopted` is the number of
    the last `turn.started` that followed the death of a replica (0 = none did). `outputs` is in the order of the log;
    `idle` are those of them for which no tool was run.
    """

    message: Message | None = None
    steps: dict[str, StepRecord] = {}
    intents: dict[str, tuple[int, ToolIntent]] = {}
    calls: dict[str, JsonObject] = {}
    inside: dict[str, str] = {}
    outputs: dict[str, JsonObject] = {}
    idle: set[str] = set()
    answers: dict[str, tuple[int, Approval | ToolResult]] = {}
    freed: dict[str, int] = {}
    undone: dict[str, ToolUndone] = {}
    undoing: Undoing | None = None
    shared: dict[str, str] = {}
    steered: int = 0
    cancelled: bool = False
    adopted: int = 0
    attempt: int = 0

    def note(self, event: Event) -> None:
        """Take one more event of the turn into account, in `seq` order."""
        if event.type not in NOTED:
            return
        data = codec.decode(event)
        if isinstance(data, ItemDone):
            self._note_item(event, data)
        elif isinstance(data, ToolIntent):
            self.intents[data.call_id] = (event.seq, data)
            if data.dedupe is not None:
                self.shared.setdefault(data.dedupe, data.call_id)
        elif isinstance(data, TurnStarted):
            if 0 < self.attempt < data.attempt:
                self.adopted = event.seq
            self.attempt = data.attempt
        elif isinstance(data, TurnInput):
            self._note_input(event, data)
        elif isinstance(data, TurnCreated):
            self.message = data.input
        elif isinstance(data, ContextSummarized) and data.step is not None:
            self.steps[data.step] = StepRecord((data.item,), data.through)
        else:
            self._note_undoing(event, data)

    def interrupted(self, call_id: str) -> bool:
        """Whether a replica died after it was free to carry out the call: its effect may or may not have happened."""
        free_since = self.intents[call_id][0]
        if call_id in self.answers:
            free_since = max(free_since, self.answers[call_id][0])
        return free_since < self.adopted

    def _note_undoing(self, event: Event, data: Data | Unknown) -> None:
        if isinstance(data, TurnUndoing):
            self.undoing = Undoing(data.error, event.seq if data.died else self.adopted, max(self.attempt, 1))
        elif isinstance(data, ToolUndone):
            self.undone[data.call_id] = data

    def _note_input(self, event: Event, data: TurnInput) -> None:
        said = data.input
        if isinstance(said, Message):
            self.steered = event.seq
        elif isinstance(said, Cancel):
            self.cancelled = True
        else:
            self.answers[said.call_id] = (event.seq, said)
            if isinstance(said, ToolResult) or said.decision == "approve":
                self.freed.setdefault(said.call_id, event.seq)

    def _note_item(self, event: Event, data: ItemDone) -> None:
        item = innermost(data.item)
        if item["type"] == OUTPUT:
            self.outputs[str(item["call_id"])] = item
            if data.idle:
                self.idle.add(str(item["call_id"]))
        elif item["type"] == CALL:
            self.calls[str(item["call_id"])] = item
            if item is not data.item:
                self.inside[str(item["call_id"])] = str(data.item["call_id"])
        if data.step is None:
            return
        known = self.steps.get(data.step)
        if known is None:
            through = event.seq - 1 if data.through is None else data.through
            self.steps[data.step] = StepRecord((item,), through, data.usage)
        else:
            self.steps[data.step] = StepRecord((*known.items, item), known.through, data.usage or known.usage)


def journal(events: Iterable[Event], turn: int) -> Journal:
    """The journal of a turn from a stretch of its session's log."""
    found = Journal()
    for event in events:
        if event.turn == turn:
            found.note(event)
    return found


def step_key(name: str, ordinal: int) -> str:
    """The key of the `ordinal`-th step (from 1) of that name in a turn."""
    return f"{name}#{ordinal}"
