"""Steps: how each is named, and what the log says about it. A step on record is answered from here and never run again.

A step's key is its name and its ordinal among the steps of that name in the turn (`model#2`), so that steps that run
side by side find their own record whatever the order they finish in. A tool call is found by its call id.
"""

from collections.abc import Iterable

import msgspec

from dalsegno.core import codec
from dalsegno.core.event import ContextSummarized, Event, ItemDone, ToolIntent, TurnCreated, TurnInput, TurnStarted
from dalsegno.core.input import Approval, Cancel, Message, ToolResult
from dalsegno.core.item import OUTPUT
from dalsegno.core.json import JsonObject

NOTED = frozenset({"turn.created", "item.done", "tool.intent", "turn.input", "turn.started", "context.summarized"})


class StepRecord(msgspec.Struct, frozen=True):
    """What a step left: its items in order, and the last event that it had been shown."""

    items: tuple[JsonObject, ...]
    through: int
    usage: JsonObject | None = None


class Journal(msgspec.Struct):
    """One turn's log, indexed by what an agent asks about. Grows with the turn, never with the session.

    `intents` and `answers` hold the number of their event beside its content; `adopted` is the number of the last
    `turn.started` that followed the death of a replica (0 = none did).
    """

    message: Message | None = None
    steps: dict[str, StepRecord] = {}
    intents: dict[str, tuple[int, ToolIntent]] = {}
    calls: dict[str, JsonObject] = {}
    outputs: dict[str, JsonObject] = {}
    answers: dict[str, tuple[int, Approval | ToolResult]] = {}
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

    def interrupted(self, call_id: str) -> bool:
        """Whether a replica died after it was free to carry out the call: its effect may or may not have happened."""
        free_since = self.intents[call_id][0]
        if call_id in self.answers:
            free_since = max(free_since, self.answers[call_id][0])
        return free_since < self.adopted

    def _note_input(self, event: Event, data: TurnInput) -> None:
        said = data.input
        if isinstance(said, Message):
            self.steered = event.seq
        elif isinstance(said, Cancel):
            self.cancelled = True
        else:
            self.answers[said.call_id] = (event.seq, said)

    def _note_item(self, event: Event, data: ItemDone) -> None:
        if data.item["type"] == OUTPUT:
            self.outputs[str(data.item["call_id"])] = data.item
        elif data.item["type"] == "function_call":
            self.calls[str(data.item["call_id"])] = data.item
        if data.step is None:
            return
        known = self.steps.get(data.step)
        if known is None:
            through = event.seq - 1 if data.through is None else data.through
            self.steps[data.step] = StepRecord((data.item,), through, data.usage)
        else:
            self.steps[data.step] = StepRecord((*known.items, data.item), known.through, data.usage or known.usage)


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
