"""The life of a turn, as a table. Code looks transitions up; the documentation's diagram is generated from them.

queued ──► running ──► completed | failed | cancelled
             │  ▲
             ▼  │
           waiting
"""

from typing import Literal, assert_never

import msgspec

from dalsegno.core.event import Action, TurnError, TurnInput
from dalsegno.core.input import Approval, Cancel, Message, ToolResult
from dalsegno.core.json import JsonObject
from dalsegno.errors import Unreadable

replace = msgspec.structs.replace

State = Literal["queued", "running", "waiting"]
Status = Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]

TRANSITIONS: dict[str, dict[str, Status]] = {
    "queued": {
        "turn.input": "queued",
        "turn.started": "running",
        "turn.failed": "failed",
        "turn.cancelled": "cancelled",
    },
    "running": {
        "turn.input": "running",
        "turn.started": "running",
        "item.done": "running",
        "tool.intent": "running",
        "context.summarized": "running",
        "turn.undoing": "running",
        "tool.undone": "running",
        "turn.waiting": "waiting",
        "turn.completed": "completed",
        "turn.failed": "failed",
        "turn.cancelled": "cancelled",
    },
    "waiting": {
        "turn.input": "waiting",
        "turn.undoing": "waiting",
        "turn.started": "running",
        "turn.failed": "failed",
        "turn.cancelled": "cancelled",
    },
}
"""State → event type → next state. A pair that is not here cannot be written and, if read, is `Unreadable`."""


class OpenTurn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A turn without an end yet. `first` is the `seq` of its `turn.created`.

    `attempt` counts starts: one more for each that ended in the death of its replica. `cancel` names who asked to stop
    it, `hide` whether it is also to leave the context, `steer` is the `seq` of the last message that joined it, `last`
    that of the last event that a replica wrote for it. `owes`: its tools may have done what has to be undone before it
    may fail or be cancelled; `undoing` is the attempt in which that began (0 = it has not).
    """

    first: int
    state: State = "queued"
    attempt: int = 0
    cancel: str = ""
    hide: bool = False
    steer: int = 0
    last: int = 0
    actions: tuple[Action, ...] = ()
    owes: bool = False
    undoing: int = 0

    @property
    def must_undo(self) -> bool:
        """Whether undoing has to begin before the turn may fail or be cancelled."""
        return self.owes and not self.undoing


class Turn(msgspec.Struct, frozen=True):
    """A turn as a client sees it."""

    id: str
    session: str
    status: Status
    attempt: int
    first_seq: int
    last_seq: int
    actions: tuple[Action, ...]
    output: tuple[JsonObject, ...]
    usage: JsonObject | None
    error: TurnError | None


def advance(state: str, event_type: str, *, seq: int) -> Status:
    """The state after an event. Raises `Unreadable` when the log holds something that cannot have happened."""
    try:
        return TRANSITIONS[state][event_type]
    except KeyError:
        raise Unreadable(f"event {seq}: {event_type} cannot follow a turn that is {state}") from None


def undecided(turn: OpenTurn) -> tuple[Action, ...]:
    """The actions that still wait for somebody."""
    return tuple(action for action in turn.actions if not action.decided)


def ready_at(turn: OpenTurn) -> int | None:
    """When a replica may run the turn: 0 = now, Unix milliseconds = when an action expires, None = not by itself."""
    if turn.state != "waiting" or turn.cancel:
        return 0
    open_actions = undecided(turn)
    if not open_actions:
        return 0
    return min((action.expires_at for action in open_actions if action.expires_at is not None), default=None)


def hear(turn: OpenTurn, seq: int, data: TurnInput) -> OpenTurn:
    """The turn once a client has said something to it, as event `seq`."""
    match data.input:
        case Message():
            return replace(turn, steer=seq)
        case Cancel(hide=hide):
            return replace(turn, cancel=turn.cancel or ("rollback" if hide else "client"), hide=turn.hide or hide)
        case Approval(call_id=call_id, decision=decision):
            return replace(turn, actions=tuple(_decide(action, call_id, decision) for action in turn.actions))
        case ToolResult(call_id=call_id):
            return replace(turn, actions=tuple(_decide(action, call_id, "result") for action in turn.actions))
        case _:
            assert_never(data.input)


def _decide(action: Action, call_id: str, how: Literal["approve", "deny", "result"]) -> Action:
    return replace(action, decided=how) if action.call_id == call_id else action
