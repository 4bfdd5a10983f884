"""What claiming a session means: the oldest open turn, one more epoch, one more attempt, or the end of a hopeless
turn.
"""

import msgspec

from dalsegno.core.append import Decision, Draft, Keep, Known, Write, record, take
from dalsegno.core.event import Event, TurnCancelled, TurnError, TurnFailed, TurnInput, TurnUndoing
from dalsegno.core.input import Approval, ToolResult
from dalsegno.core.lease import Lease
from dalsegno.core.session import Session, replace
from dalsegno.core.turn import OpenTurn, undecided

ATTEMPTS_MAX = 3
UNDOING_ATTEMPTS_MAX = 2 * ATTEMPTS_MAX
"""After so many deaths since undoing began a turn ends as it is. `core.saga` has given up before: by then nothing of
the user's is run any more, and what is left is only written down.
"""


class Claimed(msgspec.Struct, frozen=True):
    """What a claim brought: the session, the events it wrote, and the lease, if something is left to run."""

    session: Session
    events: tuple[Event, ...]
    lease: Lease | None


def claim(session: Session | None, now: int, *, owner: str, chances: int = 1) -> Decision[Claimed]:
    """Take a session that is free or whose owner is dead (the store has looked) for `owner`.

    `chances` is how many turns on their last attempt `owner` may take on: they are run one at a time, so that the next
    death convicts the turn that caused it and not those that ran beside it.

    A turn that a client has cancelled meanwhile ends here, and so does one that has cost `ATTEMPTS_MAX` replicas their
    lives; then the next one is taken. If what it did is to be undone, it is taken for that, and ends afterwards. An
    action whose time is over is decided by its expiry.
    """
    if session is None or session.deleted or session.moved or not session.open:
        return Keep(Claimed(session or Session(id="", tenant=""), (), None))
    orphaned = session.owner is not None
    session = replace(session, owner=None)
    written: tuple[Event, ...] = ()
    while (turn := session.running) is not None and (end := _end(turn, orphaned)) is not None:
        session, events = record(session, [end], now)
        written, orphaned = written + events, False
    if turn is None:
        return Write(session, written, Claimed(session, written, None))
    if chances < 1 and turn.attempt + orphaned >= ATTEMPTS_MAX:
        return Keep(Claimed(session, (), None))
    if turn.must_undo and (turn.cancel or _is_poison(turn, orphaned)):
        undoing = TurnUndoing(error=None if turn.cancel else _poisoned(turn), died=orphaned)
        session, events = record(session, [Draft(undoing, turn.first)], now)
        written, turn = written + events, session.open[0]
    if orphaned and turn.state == "running":
        return _adopt(session, turn, written, owner)
    session, events = record(session, _expire(turn, now), now)
    session, started, lease = take(session, owner=owner, now=now)
    written += events + started
    return Write(session, written, Claimed(session, written, lease))


def retake(session: Session | None, known: Known | None, now: int, *, owner: str) -> Decision[Claimed]:
    """Take a session that `owner` has in the store and does not run: the answer to its claim was lost.

    No replica died, so no attempt is counted; the epoch grows all the same.
    """
    if session is None or session.owner != owner:
        return Keep(Claimed(session or Session(id="", tenant=""), (), None))
    return claim(replace(session, owner=None), now, owner=owner)


def readopt(session: Session | None, known: Known | None, now: int, *, owner: str) -> Decision[Claimed]:
    """Take over from oneself: `owner` ran the session's turn and dropped it, no one knows where.

    The replica lives, but what it leaves is what a death leaves: an effect may have happened without a record. So the
    attempt counts.
    """
    if session is None or session.owner != owner:
        return Keep(Claimed(session or Session(id="", tenant=""), (), None))
    return claim(session, now, owner=owner)


def _end(turn: OpenTurn, orphaned: bool) -> Draft | None:
    """How a turn ends that nobody is to run any more. One that is being undone goes on, unless that kills for ever."""
    if turn.owes:
        hopeless = orphaned and bool(turn.undoing) and turn.attempt - turn.undoing >= UNDOING_ATTEMPTS_MAX
        return Draft(TurnFailed(_poisoned(turn)), turn.first) if hopeless else None
    if turn.cancel:
        return Draft(TurnCancelled(by=turn.cancel, hidden=turn.hide), turn.first)
    return Draft(TurnFailed(_poisoned(turn)), turn.first) if _is_poison(turn, orphaned) else None


def _is_poison(turn: OpenTurn, orphaned: bool) -> bool:
    return orphaned and turn.attempt >= ATTEMPTS_MAX


def _poisoned(turn: OpenTurn) -> TurnError:
    half = "; what it had done is undone in part, or not at all" if turn.undoing else ""
    return TurnError("poisoned", f"{turn.attempt} attempts ended in the death of their replica{half}")


def _adopt(session: Session, turn: OpenTurn, written: tuple[Event, ...], owner: str) -> Decision[Claimed]:
    """Raise the epoch and count the attempt; `turn.started` follows once the open step's stream has been fenced."""
    attempt, epoch = turn.attempt + 1, session.epoch + 1
    counted = replace(turn, attempt=attempt)
    session = replace(session, epoch=epoch, owner=owner, open=(counted, *session.open[1:]))
    lease = Lease(session.tenant, session.id, epoch, owner, turn.first, attempt, orphaned=True)
    return Write(session, written, Claimed(session, written, lease))


def _expire(turn: OpenTurn, now: int) -> list[Draft]:
    drafts = []
    for action in undecided(turn):
        if action.expires_at is not None and action.expires_at <= now:
            said: Approval | ToolResult
            if action.type == "approval":
                said = Approval(action.call_id, "deny", "nobody decided in time")
            else:
                said = ToolResult(action.call_id, error="nobody answered in time")
            drafts.append(Draft(TurnInput(said), turn.first))
    return drafts
