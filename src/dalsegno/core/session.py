"""A session: what its log folds to. The only place that knows how an event changes a session.

The folded value is small and does not grow with history: it holds the open turns and where the context begins, never
items. Stores keep it in the session's row, written in the transaction that writes the events: it *is* the snapshot, and
`fold` rebuilds it from the log when its `version` is not today's.
"""

from collections.abc import Iterable
from typing import Literal, assert_never

import msgspec

from dalsegno.core import codec
from dalsegno.core.event import (
    ContextSummarized,
    Data,
    Event,
    ItemDone,
    ItemsRemoved,
    Origin,
    SessionCreated,
    SessionDeleted,
    SessionMoved,
    SessionSettled,
    SessionUpdated,
    ToolIntent,
    ToolUndone,
    TurnCancelled,
    TurnCompleted,
    TurnCreated,
    TurnFailed,
    TurnInput,
    TurnStarted,
    TurnUndoing,
    TurnWaiting,
    Unknown,
)
from dalsegno.core.json import JsonObject, dumps_sorted
from dalsegno.core.stretch import Stretch, joined, without
from dalsegno.core.turn import OpenTurn, advance, hear, ready_at
from dalsegno.errors import Unreadable

VERSION = 1
replace = msgspec.structs.replace


class Session(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session folded up to `head`. `at` times are Unix milliseconds of the store's clock.

    `epoch` and `owner` are the lease: they are not in the log, and a fold leaves `owner` empty. `through` and `summary`
    say where the context begins: with the item of event `summary`, then everything after event `through`; `hidden`
    are the turns that were rolled back, `removed` the parts of the log whose items were (from event, to event), and
    `stretch` is what was brought in from outside last, if no turn came since.
    `moved` names the store that the session lives in now; empty = in this one.
    `swept` is the epoch up to which the cold tier holds nothing of the session that its log does not point to; it is
    not in the log either, and anything less only has it looked through again. `shelved` (events of it are archived) is
    told by `Warm.walk` only; it is no part of what is kept.
    """

    id: str
    tenant: str
    agent: str = "default"
    user: str | None = None
    metadata: JsonObject = {}
    parent: Origin | None = None
    created_at: int = 0
    updated_at: int = 0
    head: int = 0
    epoch: int = 0
    owner: str | None = None
    open: tuple[OpenTurn, ...] = ()
    through: int = 0
    summary: int = 0
    hidden: tuple[int, ...] = ()
    removed: tuple[tuple[int, int], ...] = ()
    stretch: Stretch | None = None
    deleted: bool = False
    moved: str = ""
    swept: int = 0
    shelved: bool = False
    version: int = VERSION

    @property
    def running(self) -> OpenTurn | None:
        """The oldest open turn: the one that runs, waits, or runs next."""
        return self.open[0] if self.open else None

    @property
    def status(self) -> Literal["idle", "running", "waiting"]:
        """`running` also when the turn is queued: it runs as soon as a replica has room."""
        if not self.open:
            return "idle"
        return "waiting" if self.open[0].state == "waiting" else "running"

    @property
    def ready_at(self) -> int | None:
        """When a replica may claim the session (see `turn.ready_at`); None while there is nothing to run here."""
        return ready_at(self.open[0]) if self.open and not self.moved else None

    def has(self, wanted: JsonObject) -> bool:
        """Whether the metadata holds all of that."""
        have = self.metadata
        return all(name in have and dumps_sorted(have[name]) == dumps_sorted(wanted[name]) for name in wanted)

    def turn(self, first: int) -> OpenTurn | None:
        """The open turn of that number."""
        for turn in self.open:
            if turn.first == first:
                return turn
        return None


def fold(session_id: str, tenant: str, events: Iterable[Event]) -> Session:
    """The session that a whole log describes; `owner` is empty, since a lease is not in the log."""
    session = Session(id=session_id, tenant=tenant)
    for event in events:
        session = apply(session, event, codec.decode(event))
    return session


def tombstone(session_id: str, tenant: str, last: Event) -> Session:
    """What is left of a deleted session: what its last event tells, and nothing of whose it was or what was said."""
    return Session(id=session_id, tenant=tenant, updated_at=last.at, head=last.seq, deleted=True)


def apply(session: Session, event: Event, data: Data | Unknown) -> Session:
    """The session after one more event. Raises `Unreadable` for a gap or an impossible transition."""
    session = _follow(session, event, data)
    match data:
        case (
            ItemDone()
            | ToolIntent()
            | TurnStarted()
            | TurnCompleted()
            | TurnInput()
            | TurnWaiting()
            | TurnUndoing()
            | ToolUndone()
            | TurnFailed()
            | TurnCancelled()
            | ItemsRemoved()
        ):
            return _apply_to_turn(session, event, data)
        case TurnCreated():
            return replace(session, open=(*session.open, OpenTurn(first=event.seq)), stretch=None)
        case ContextSummarized():
            return _apply_to_turn(replace(session, through=data.through, summary=event.seq), event, data)
        case SessionCreated():
            return _begin(session, event, data)
        case SessionUpdated():
            return replace(session, metadata=data.metadata)
        case SessionDeleted():
            return replace(tombstone(session.id, session.tenant, event), epoch=session.epoch, owner=session.owner)
        case SessionMoved(to=to):
            return replace(session, moved=to)
        case SessionSettled():
            return replace(session, moved="")
        case Unknown():
            return session
        case _:
            assert_never(data)


def _follow(session: Session, event: Event, data: Data | Unknown) -> Session:
    if event.seq != session.head + 1:
        raise Unreadable(f"session {session.id}: event {event.seq} follows {session.head}")
    if bool(session.moved) != isinstance(data, SessionSettled):
        where = "follows its move to another store" if session.moved else "says that it came back, and it was here"
        raise Unreadable(f"session {session.id}: event {event.seq} ({event.type}) {where}")
    return replace(session, head=event.seq, updated_at=event.at)


def _begin(session: Session, event: Event, data: SessionCreated) -> Session:
    return replace(
        session,
        agent=data.agent,
        user=data.user,
        metadata=data.metadata,
        parent=data.parent,
        created_at=event.at,
    )


def _apply_outside(session: Session, event: Event, data: ItemDone | ItemsRemoved) -> Session:
    if session.open:
        raise Unreadable(f"session {session.id}: event {event.seq} ({event.type}) belongs to no turn, and one is open")
    if isinstance(data, ItemDone):
        return replace(session, stretch=joined(session.stretch, data, seq=event.seq))
    if data.after == 0:
        session = replace(session, through=event.seq, summary=0)
    elif not session.through <= data.after < event.seq:
        raise Unreadable(f"session {session.id}: event {event.seq} cannot remove what came after {data.after}")
    return replace(session, removed=without(session.removed, after=data.after, seq=event.seq), stretch=None)


TurnData = (
    TurnInput
    | TurnStarted
    | TurnUndoing
    | ToolUndone
    | TurnWaiting
    | TurnCompleted
    | TurnFailed
    | TurnCancelled
    | ItemDone
    | ItemsRemoved
    | ToolIntent
    | ContextSummarized
)


def _apply_to_turn(session: Session, event: Event, data: TurnData) -> Session:
    if event.turn is None and isinstance(data, ItemDone | ItemsRemoved):
        return _apply_outside(session, event, data)
    turn = session.turn(event.turn or 0)
    if turn is None:
        raise Unreadable(f"session {session.id}: event {event.seq} ({event.type}) belongs to no open turn")
    state = advance(turn.state, event.type, seq=event.seq)
    if state == "completed" or state == "failed" or state == "cancelled":
        hidden = (turn.first,) if isinstance(data, TurnCancelled) and data.hidden else ()
        left = tuple(other for other in session.open if other is not turn)
        return replace(session, open=left, hidden=session.hidden + hidden)
    if isinstance(data, TurnInput):
        changed = hear(turn, event.seq, data)
    elif isinstance(data, TurnStarted):
        changed = replace(turn, state=state, last=event.seq, attempt=data.attempt, actions=())
        session = replace(session, epoch=max(session.epoch, data.epoch))
    elif isinstance(data, TurnWaiting):
        changed = replace(turn, state=state, last=event.seq, actions=data.actions)
    elif isinstance(data, TurnUndoing):
        changed = replace(turn, last=event.seq, undoing=max(turn.attempt, 1))
    elif isinstance(data, ToolIntent):
        changed = replace(turn, last=event.seq, owes=turn.owes or data.undo)
    else:
        changed = replace(turn, last=event.seq)
    return replace(session, open=tuple(changed if other is turn else other for other in session.open))
