"""The native API's JSON, as types named by the words of the contract: what goes out, and what may come in.

The bytes and the OpenAPI document are made from the same structs and cannot disagree. Knows nothing of logs.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec

from dalsegno.core.input import OnBusy
from dalsegno.core.json import JsonObject
from dalsegno.errors import Outcome

Id = Annotated[str, msgspec.Meta(extra_json_schema={"format": "uuid"})]
Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
Seq = Annotated[int, msgspec.Meta(ge=1, le=9_999_999_999)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^(?![\s\S]*[\x00-\x1f\x7f])")]
CallId = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Text = Annotated[str, msgspec.Meta(min_length=1)]

# ------------------------------------------------------------------------------------------------ out


class Parent(msgspec.Struct, frozen=True):
    """Where a fork came from."""

    session: Id
    seq: int


class Session(msgspec.Struct, frozen=True):
    """One conversation. `head` is the number of its last event, `queued` counts the turns behind the current one."""

    id: Id
    status: Literal["idle", "running", "waiting"]
    head: int
    turn: Id | None
    queued: int
    agent: str
    user: str | None
    metadata: JsonObject
    parent: Parent | None
    created_at: Time
    updated_at: Time


class Action(msgspec.Struct, frozen=True):
    """What a waiting turn waits for. `expires_at`: Unix milliseconds. `decided` is empty until somebody answered."""

    type: Literal["approval", "tool_result"]
    call_id: str
    name: str
    arguments: str
    reason: str | None
    expires_at: int | None
    decided: str


class TurnError(msgspec.Struct, frozen=True):
    """Why a turn failed: `code` for programs, `message` for people."""

    code: str
    message: str


class Turn(msgspec.Struct, frozen=True):
    """The work that one message causes, from admission to exactly one end."""

    id: Id
    session: Id
    status: Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]
    attempt: int
    first_seq: int
    last_seq: int
    actions: tuple[Action, ...]
    output: tuple[JsonObject, ...]
    usage: JsonObject | None
    error: TurnError | None


class Receipt(msgspec.Struct, frozen=True):
    """What became of an input, decided in the transaction that wrote it to the log."""

    session: Id
    turn: Id
    seq: int
    status: Literal["queued", "running", "steered", "done"]
    replayed: bool


class Event(msgspec.Struct, frozen=True):
    """An immutable record of a session's log."""

    seq: int
    type: str
    turn: Id | None
    at: Time
    data: JsonObject


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457. `outcome` says whether anything was applied; `reference` finds the server's log entry."""

    title: str
    status: int
    code: str
    detail: str
    outcome: Outcome
    type: str = msgspec.field(default_factory=lambda: "about:blank")
    reference: str | None = None


class SessionPage(msgspec.Struct, frozen=True):
    """Sessions in order of id; `next` is the `after` of the next page."""

    data: tuple[Session, ...]
    next: str | None


class ItemPage(msgspec.Struct, frozen=True):
    """The conversation; `next` is the `after` of the next page."""

    data: tuple[JsonObject, ...]
    next: str | None


class EventPage(msgspec.Struct, frozen=True):
    """Events in `seq` order; `next` is the `after` of the next page."""

    data: tuple[Event, ...]
    next: str | None


class Health(msgspec.Struct, frozen=True):
    """How a replica is. `degraded` names what works worse than it should while promises still hold."""

    ready: bool
    draining: bool
    replica: str
    tiers: dict[str, str]
    degraded: list[str]


# ------------------------------------------------------------------------------------------------ in


class NewSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may say about a session that it creates."""

    id: Id | None = None
    agent: Name = "default"
    user: Name | None = None
    metadata: JsonObject = {}


class Patch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The metadata as it shall be from now on."""

    metadata: JsonObject | msgspec.UnsetType = msgspec.UNSET


class Fork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new session that begins as a copy of this one up to event `at`, or up to its head."""

    at: Seq | None = None


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="message"):
    """Something to answer. Exactly one of `content` and `items`."""

    content: Text | msgspec.UnsetType = msgspec.UNSET
    items: Annotated[list[JsonObject], msgspec.Meta(min_length=1)] | msgspec.UnsetType = msgspec.UNSET
    on_busy: OnBusy = "queue"


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="approval"):
    """A human's decision about a call that waits for one."""

    call_id: CallId
    decision: Literal["approve", "deny"]
    reason: str | None = None


class ToolResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="tool_result"):
    """The outcome of a call that somebody outside carried out. Exactly one of `output` and `error`."""

    call_id: CallId
    output: str | None = None
    error: str | None = None


class Cancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="cancel"):
    """Stop a turn: the named one, or the current one."""

    turn: str | None = None


Input: TypeAlias = Message | Approval | ToolResult | Cancel

ONE_OF = {"Message": ("content", "items"), "ToolResult": ("output", "error")}
"""Of these fields exactly one is given; types cannot say it, the document does."""
