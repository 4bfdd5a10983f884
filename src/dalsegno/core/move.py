"""Moving a session to another store: sealed in the one, copied, settled in the other. Every decision of it is here.

    source        … 41  session.moved {to}
    destination   … 41  session.moved {to}  session.settled {from}  …

A session's logs are prefixes of each other, and it lives in the store that has the longest. Between the two commits it
lives in none: whoever finds the source's log sealed, and no continuation of it, goes on from there. When it comes back,
the first store lacks only what was written since.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import msgspec

from dalsegno.core import codec
from dalsegno.core.append import ELSEWHERE, Decide, Decision, Draft, Keep, Known, Refusal, Write, record
from dalsegno.core.event import Event, SessionCreated, SessionDeleted, SessionMoved, SessionSettled
from dalsegno.core.lifecycle import half
from dalsegno.core.session import Session, fold, replace
from dalsegno.errors import Unavailable, Unreadable

R = TypeVar("R", covariant=True)
When = Literal["idle", "now"]
Standing = Literal["absent", "behind", "there"]


class Luggage(msgspec.Struct, frozen=True):
    """All there is of a session in a store: how the store has it folded, its whole log, and its keys."""

    session: Session
    events: Sequence[Event]
    keys: Mapping[bytes, Known]


def present(session: Session) -> Session:
    """The session, if it lives in this store. Raises `Unavailable` if it moved: a replica of the other store has it."""
    if session.moved:
        raise Unavailable(ELSEWHERE.detail, outcome="not_applied")
    return session


def expected(session: Session | None, known: Known | None, now: int, *, decide: Decide[R]) -> Decision[R]:
    """`decide`, in a store that sessions are on their way to: one that is not here may be in the other."""
    return ELSEWHERE if session is None else decide(session, known, now)


def seal(session: Session | None, known: Known | None, now: int, *, to: str, when: When) -> Decision[Session | None]:
    """End the session's log here. The epoch grows and nobody owns it, so whoever runs its turn is fenced off.

    A turn that is cut off counts one more attempt, as after a death: an effect may have happened without a record, and
    that is how the next attempt knows. `idle` refuses instead, while somebody owns the session.
    """
    if session is None or session.deleted or session.moved:
        return Keep(session)
    if half(session) or (session.owner is not None and when == "idle"):
        return Refusal("session_busy", "its turn is running, or it is a fork that is being made")
    made, events = record(session, [Draft(SessionMoved(to))], now)
    turn = made.running
    if turn is not None and turn.state == "running" and session.owner is not None:
        made = replace(made, open=(replace(turn, attempt=turn.attempt + 1), *made.open[1:]))
    made = replace(made, owner=None, epoch=made.epoch + 1)
    return Write(made, events, made)


def land(
    session: Session | None, known: Known | None, now: int, *, luggage: Luggage, origin: str, after: int
) -> Decision[Session]:
    """Write what this store lacks of a sealed session, as it is, and that it lives here now. Its turns stay open, and
    nobody owns them: whoever has room takes them. It was found to lack what is behind event `after` (`standing`).
    """
    source = luggage.session
    head, free = (0, True) if session is None else (session.head, bool(session.moved))
    if head != after or not free:
        return Refusal("session_busy", "somebody else wrote it meanwhile")
    missing = tuple(luggage.events[after:])
    made, settled = record(source, [Draft(SessionSettled(origin))], now)
    epoch = max(source.epoch, session.epoch if session is not None else 0)
    made = replace(made, owner=None, epoch=epoch)
    return Write(made, (*missing, *settled), made, tuple(luggage.keys.items()))


def inter(session: Session | None, known: Known | None, now: int, *, grave: Session, origin: str) -> Decision[Session]:
    """A deleted session is deleted in the other store, too: its name is taken, and nothing of it comes along."""
    if session is not None and session.deleted:
        return Keep(session)
    if session is None:
        session = Session(id=grave.id, tenant=grave.tenant)
        drafts = [Draft(SessionCreated()), Draft(SessionDeleted())]
    elif session.moved:
        drafts = [Draft(SessionSettled(origin)), Draft(SessionDeleted())]
    else:
        return Refusal("session_exists", "it is deleted in the one store and lives in the other")
    made, events = record(session, drafts, now)
    made = replace(made, owner=None, epoch=max(made.epoch, grave.epoch) + 1)
    return Write(made, events, made)


def standing(
    session: Session, events: Sequence[Event], there: Session | None, theirs: Sequence[Event], *, to: str
) -> Standing | Refusal:
    """How the destination's log stands to the source's; a refusal if the session must not be moved there.

    `absent` or `behind`: what is missing can be appended. `there`: it has been moved already.
    """
    if there is not None and there.deleted:
        return "there" if session.moved else Refusal("session_exists", "it lives here and is deleted there")
    common = min(len(events), len(theirs))
    if (first := _differing(events[:common], theirs[:common])) is not None:
        return Refusal("session_exists", f"the two stores hold different sessions of this name, from event {first} on")
    if there is not None and len(theirs) > len(events):
        if session.moved and theirs[common].type == "session.settled":
            return "there"
        return Refusal("session_exists", "it goes on in the other store, and was never sealed in this one")
    if session.moved not in ("", to):
        return Refusal("session_exists", f"it was moved to {session.moved}, and this is {to}")
    if there is None:
        return "absent"
    return "behind" if there.moved else Refusal("session_exists", "it lives in both stores")


def readable(session: Session, events: Sequence[Event]) -> None:
    """Raises `Unreadable` unless the whole log can be folded, is the session's, and can be written again."""
    for event in events:
        codec.number_of(event.type)
    if _bare(fold(session.id, session.tenant, events)) != _bare(session):
        raise Unreadable(f"session {session.id}: its log does not fold to what its store says it is")


def differences(taken: Luggage, found: Luggage) -> list[str]:
    """What is not in the destination as it was in the source, in words; the destination may have gone on since."""
    wrong = []
    count, events = len(taken.events), found.events
    if (first := _differing(taken.events, events[:count])) is not None:
        wrong.append(f"event {first} is not the same")
    elif [event.type for event in events[count : count + 1]] != ["session.settled"]:
        wrong.append(f"event {count + 1} does not say that the session settled")
    missing = [digest for digest, known in taken.keys.items() if found.keys.get(digest) != known]
    if missing:
        wrong.append(f"{len(missing)} of {len(taken.keys)} keys are not the same")
    try:
        readable(found.session, events)
    except Unreadable as error:
        wrong.append(str(error))
    if found.session.epoch < taken.session.epoch:
        wrong.append("its epoch went back")
    return wrong


def _differing(ours: Sequence[Event], theirs: Sequence[Event]) -> int | None:
    """The number of the first event that is not the same in both."""
    for seq, event in enumerate(ours, start=1):
        if seq > len(theirs) or theirs[seq - 1] != event:
            return seq
    return None


def _bare(session: Session) -> Session:
    """The session without what no log holds."""
    oldest = tuple(replace(turn, attempt=0) for turn in session.open[:1])
    return replace(session, epoch=0, owner=None, swept=0, shelved=False, open=oldest + session.open[1:])
