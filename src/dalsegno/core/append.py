"""The append: a decision that a store carries out atomically. Nothing is written except by returning a `Write`.

A store calls `decide(session, known, now)` with the session's row as it is in its transaction and writes what comes
back, under the condition that head and epoch are still those of that row. So a write carries its condition and its
fence, the store refuses, and every store decides alike.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import msgspec

from dalsegno.core import codec
from dalsegno.core.event import (
    Data,
    Event,
    TurnCancelled,
    TurnCompleted,
    TurnError,
    TurnFailed,
    TurnStarted,
    TurnUndoing,
)
from dalsegno.core.lease import Lease
from dalsegno.core.refs import Ref
from dalsegno.core.session import Session, apply, replace
from dalsegno.core.turn import OpenTurn

R = TypeVar("R", covariant=True)

OWN: int = 0
"""The turn of a draft that begins one: it becomes the draft's own number."""


class Draft(msgspec.Struct, frozen=True):
    """An event that has no number yet. With a `digest` it can be found again by it, in this session, for good.

    `body` is what the log is to hold, as `data` was when the draft was made. What no log can hold is an error here.
    """

    data: Data
    turn: int | None = None
    digest: bytes | None = None
    body: bytes = b""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "body", codec.encode(self.data))


class Known(msgspec.Struct, frozen=True, array_like=True):
    """What a store remembers under an idempotency key: whose body it was, and what was answered."""

    fingerprint: bytes
    seq: int
    turn: int
    status: str


class Write(msgspec.Struct, Generic[R], frozen=True):
    """Write these events and this session in one transaction, and remember the keys; the first of a digest stays."""

    session: Session
    events: tuple[Event, ...]
    result: R
    keys: tuple[tuple[bytes, Known], ...] = ()


class Keep(msgspec.Struct, Generic[R], frozen=True):
    """Write nothing: the answer was already there."""

    result: R


class Refusal(msgspec.Struct, frozen=True):
    """Write nothing: what was asked is not so. `code` is a documented error code."""

    code: str
    detail: str


ELSEWHERE = Refusal("store_unavailable", "the session lives in another store, which other replicas serve")
"""The answer about a session that has moved, or may be on its way (`core.move`): 503 and not 404, so that its clients
come again.
"""


class Fenced(msgspec.Struct, frozen=True):
    """Write nothing: the writer's lease is not the session's (law 3)."""


Decision: TypeAlias = Write[R] | Keep[R] | Refusal | Fenced
Decide: TypeAlias = Callable[[Session | None, Known | None, int], Decision[R]]
"""(the session or None, what is known under the key or None, the store's clock in Unix milliseconds) → decision."""

Then = Literal["hold", "release", "take"]


class Expect(msgspec.Struct, frozen=True):
    """What a writer takes for granted; where it is not so, nothing is written.

    `last` is the last event that was written for the turn under any lease: otherwise `behind`, which is how a writer
    whose answer was lost learns that its write had arrived. `seen` is the last event that the agent was shown: an end
    is refused as `unread` when a message has joined the turn since. None takes nothing for granted.
    """

    last: int | None = None
    seen: int | None = None


ANYTHING = Expect()


class Appended(msgspec.Struct, frozen=True):
    """The session after an append, and the lease that is held from here on (none after a release)."""

    session: Session
    lease: Lease | None
    events: tuple[Event, ...]


def record(session: Session, drafts: Sequence[Draft], now: int) -> tuple[Session, tuple[Event, ...]]:
    """Number the drafts and fold them in."""
    events = []
    for draft in drafts:
        seq = session.head + 1
        turn = seq if draft.turn == OWN else draft.turn
        event = Event(seq, codec.type_of(draft.data), turn, max(now, session.updated_at), draft.body)
        session = apply(session, event, draft.data)
        events.append(event)
    return session, tuple(events)


def append(
    session: Session | None,
    now: int,
    *,
    lease: Lease,
    drafts: Sequence[Draft],
    then: Then = "hold",
    expect: Expect = ANYTHING,
) -> Decision[Appended]:
    """What a replica writes for the turn it holds.

    `then` says what becomes of the lease: `hold` it, `release` it, or after the turn's end `take` the session's next
    turn in the same commit. A cancel that is in the log before the end decides how the turn ends. An end other than
    completion is refused as `owes` as long as undoing what the turn did has not begun.
    """
    if session is None or session.deleted or session.epoch != lease.epoch or session.owner != lease.owner:
        return Fenced()
    turn = session.turn(lease.turn)
    if turn is None:
        return Fenced()
    if expect.last is not None and turn.last != expect.last:
        return Refusal("behind", f"the turn was last written to at {turn.last}")
    if expect.seen is not None and turn.steer > expect.seen and not turn.cancel:
        return Refusal("unread", f"a message joined the turn at {turn.steer}")
    settled = [_settle(draft, turn) for draft in drafts]
    if turn.must_undo and _fails(settled):
        return Refusal("owes", "what the turn's tools did is to be undone first")
    session, events = record(session, settled, now)
    keys = tuple(
        (draft.digest, Known(b"", event.seq, lease.turn, ""))
        for draft, event in zip(drafts, events, strict=True)
        if draft.digest is not None
    )
    held: Lease | None = lease
    if then != "hold":
        session, held = replace(session, owner=None), None
    if then == "take":
        session, started, held = take(session, owner=lease.owner, now=now)
        events += started
    return Write(session, events, Appended(session, held, events), keys)


def give_up(
    session: Session | None, known: Known | None, now: int, *, lease: Lease, error: TurnError
) -> Decision[Appended]:
    """End a turn that nobody can run. What it did cannot be undone then, either."""
    turn = None if session is None else session.turn(lease.turn)
    if turn is None or not turn.owes:
        drafts = [Draft(TurnFailed(error), lease.turn)]
    else:
        error = replace(error, message=f"{error.message} (what its tools did is not undone)")
        begun = [] if turn.undoing else [Draft(TurnUndoing(error), lease.turn)]
        drafts = [*begun, Draft(TurnFailed(error), lease.turn)]
    return append(session, now, lease=lease, drafts=drafts, then="release")


def _fails(drafts: Sequence[Draft]) -> bool:
    """Whether they end the turn, and not well, and do not begin to undo it before."""
    kinds = {type(draft.data) for draft in drafts}
    return bool(kinds & {TurnCancelled, TurnFailed}) and TurnUndoing not in kinds


def _settle(draft: Draft, turn: OpenTurn) -> Draft:
    if not turn.cancel or not isinstance(draft.data, TurnCompleted | TurnFailed | TurnCancelled):
        return draft
    not_undone = () if isinstance(draft.data, TurnCompleted) else draft.data.not_undone
    return Draft(TurnCancelled(by=turn.cancel, hidden=turn.hide, not_undone=not_undone), draft.turn)


def follows(ref: Ref, before: Session | None, write: Write[Any]) -> bool:
    """The condition of a write: it continues this session's log at its head, under an epoch that is not stale."""
    head, epoch = (0, 0) if before is None else (before.head, before.epoch)
    session = write.session
    for event in write.events:
        head += 1
        if event.seq != head:
            return False
    return session.head == head and session.epoch >= epoch and session.id == ref.id and session.tenant == ref.tenant


def take(session: Session, *, owner: str, now: int) -> tuple[Session, tuple[Event, ...], Lease | None]:
    """Give a free session that has something to run to `owner`: a new epoch, and the turn's start on record."""
    turn = session.running
    if turn is None or session.owner is not None or session.deleted or session.ready_at != 0:
        return session, (), None
    if turn.cancel and not turn.owes:
        return session, (), None
    attempt, epoch = max(turn.attempt, 1), session.epoch + 1
    started = Draft(TurnStarted(attempt=attempt, epoch=epoch, carried=0), turn.first)
    session, events = record(replace(session, epoch=epoch, owner=owner), [started], now)
    return session, events, Lease(session.tenant, session.id, epoch, owner, turn.first, attempt)
