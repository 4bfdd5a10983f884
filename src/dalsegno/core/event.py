"""Everything a log can contain. One frozen struct per event type; the table at the end names and numbers them.

A stored event is an `Event`: its envelope plus `data` as bytes, which stores and streams pass on without looking
inside. `codec` turns the bytes into these structs where a decision needs them.
"""

from typing import Literal, TypeAlias

import msgspec

from dalsegno.core.input import Input, Message
from dalsegno.core.json import JsonObject

EffectClass = Literal["read", "keyed", "transactional", "once"]


class Event(msgspec.Struct, frozen=True):
    """An immutable record of a session's log. `turn` is the `seq` of the turn's first event, `at` Unix milliseconds."""

    seq: int
    type: str
    turn: int | None
    at: int
    data: bytes


class _Data(msgspec.Struct, frozen=True, omit_defaults=True):
    pass


class Origin(_Data, frozen=True):
    """Where a fork came from."""

    session: str
    seq: int


class SessionCreated(_Data, frozen=True):
    """Always number 1."""

    agent: str = "default"
    user: str | None = None
    metadata: JsonObject = {}
    parent: Origin | None = None


class SessionUpdated(_Data, frozen=True):
    """The metadata as it is from here on."""

    metadata: JsonObject


class SessionDeleted(_Data, frozen=True):
    """Always the last."""


class SessionMoved(_Data, frozen=True):
    """The session lives in another store from here on. Here nothing follows until it comes back."""

    to: str


class SessionSettled(_Data, frozen=True):
    """The session lives in this store from here on. Everything before came with it."""

    origin: str = msgspec.field(name="from")


class TurnCreated(_Data, frozen=True):
    """The admission of a message: numbered and durable before any model is asked (law 2)."""

    input: Message
    key: str | None = None


class TurnInput(_Data, frozen=True):
    """Whatever else is said to a turn: steering, approval, tool result, cancel."""

    input: Input
    key: str | None = None


class TurnStarted(_Data, frozen=True):
    """A replica began to run the turn. `carried`: units of the open step's stream that this attempt goes on from."""

    attempt: int
    epoch: int
    carried: int


class ItemDone(_Data, frozen=True):
    """A finished item. `step` is the key of the step that made it; `streamed` says its deltas counted in cursors.
    On a step's first item, `through` is the last event that the model had been shown, `usage` what the call cost.
    `idle`: an output for which no tool was run.
    One that somebody outside brought in is of the stretch that began at event `since` (`core.stretch`); `artifact`
    points to all of it where the log holds the beginnings of its texts.
    """

    item: JsonObject
    step: str | None = None
    streamed: bool = False
    through: int | None = None
    usage: JsonObject | None = None
    since: int | None = None
    artifact: JsonObject | None = None
    idle: bool = False


class ItemsRemoved(_Data, frozen=True):
    """What the conversation had after event `after` is no part of it any more; 0 = all of it, summaries included."""

    after: int


class ToolIntent(_Data, frozen=True):
    """The decision to act, committed before the effect. `dedupe` is the digest under which its result is shared.
    `undo`: its tool can undo it; of such a call `gated` says that it is not made before somebody has answered."""

    call_id: str
    name: str
    effect: EffectClass
    key: str
    dedupe: str | None = None
    undo: bool = False
    gated: bool = False


class Action(_Data, frozen=True):
    """What a waiting turn waits for. `expires_at`: Unix milliseconds. `decided`: how it was answered."""

    type: Literal["approval", "tool_result"]
    call_id: str
    name: str
    arguments: str = "{}"
    reason: str | None = None
    expires_at: int | None = None
    decided: Literal["", "approve", "deny", "result", "expired"] = ""


class TurnWaiting(_Data, frozen=True):
    """The turn is parked; nobody holds anything for it."""

    actions: tuple[Action, ...]


class TurnCompleted(_Data, frozen=True):
    """The agent is done."""

    usage: JsonObject | None


class TurnError(_Data, frozen=True):
    """Why a turn failed: `code` for programs, `message` for people."""

    code: str
    message: str


class TurnUndoing(_Data, frozen=True):
    """What the turn did is undone; then it fails with `error`, or is cancelled. `died`: its replica had just died."""

    error: TurnError | None = None
    died: bool = False


class ToolUndone(_Data, frozen=True):
    """What became of undoing a call, under `key`: it was `completed`, or given up."""

    call_id: str
    name: str
    key: str
    status: Literal["completed", "incomplete"] = "completed"
    output: str = ""


class TurnFailed(_Data, frozen=True):
    """The turn ended in an error; the session is usable. `not_undone`: calls that could not be undone."""

    error: TurnError
    not_undone: tuple[str, ...] = ()


class TurnCancelled(_Data, frozen=True):
    """A client stopped the turn. `hidden`: it was rolled back, and its items are not in the context."""

    by: str
    hidden: bool = False
    not_undone: tuple[str, ...] = ()


class ContextSummarized(_Data, frozen=True):
    """From here on the context is `item` followed by what came after event `through`."""

    through: int
    item: JsonObject
    step: str | None = None


class Unknown(_Data, frozen=True):
    """An event type of a newer version: passed through by readers, refused by writers (law 10)."""

    type: str


Data: TypeAlias = (
    SessionCreated
    | SessionUpdated
    | SessionDeleted
    | SessionMoved
    | SessionSettled
    | TurnCreated
    | TurnInput
    | TurnStarted
    | ItemDone
    | ToolIntent
    | TurnWaiting
    | TurnCompleted
    | TurnFailed
    | TurnCancelled
    | ContextSummarized
    | ItemsRemoved
    | TurnUndoing
    | ToolUndone
)

TYPES: dict[str, tuple[int, type[Data]]] = {
    "session.created": (1, SessionCreated),
    "session.updated": (2, SessionUpdated),
    "session.deleted": (3, SessionDeleted),
    "turn.created": (4, TurnCreated),
    "turn.input": (5, TurnInput),
    "turn.started": (6, TurnStarted),
    "item.done": (7, ItemDone),
    "tool.intent": (8, ToolIntent),
    "turn.waiting": (9, TurnWaiting),
    "turn.completed": (10, TurnCompleted),
    "turn.failed": (11, TurnFailed),
    "turn.cancelled": (12, TurnCancelled),
    "context.summarized": (13, ContextSummarized),
    "session.moved": (14, SessionMoved),
    "session.settled": (15, SessionSettled),
    "items.removed": (16, ItemsRemoved),
    "turn.undoing": (17, TurnUndoing),
    "tool.undone": (18, ToolUndone),
}
"""Type name → (the number that stores keep, the struct). Numbers are never reused."""

NAME_OF: dict[type[Data], str] = {struct: name for name, (_, struct) in TYPES.items()}
TERMINAL = frozenset({"turn.completed", "turn.failed", "turn.cancelled"})
