"""The life of a turn, as a table. Code looks transitions up; the documentation's diagram is generated from them.

queued ──► running ──► completed | failed | cancelled
             │  ▲
             ▼  │
           waiting
"""

from typing import Literal

import msgspec

from dalsegno.core.event import Action, TurnError
from dalsegno.core.json import JsonObject
from dalsegno.errors import Unreadable

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
        "turn.waiting": "waiting",
        "turn.completed": "completed",
        "turn.failed": "failed",
        "turn.cancelled": "cancelled",
    },
    "waiting": {
        "turn.input": "waiting",
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
    that of the last event that a replica wrote for it.
    """

    first: int
    state: State = "queued"
    attempt: int = 0
    cancel: str = ""
    hide: bool = False
    steer: int = 0
    last: int = 0
    actions: tuple[Action, ...] = ()


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
