"""Admission: what a client says becomes part of the log, or is refused. Needs no lease: clients can always speak.

One decision covers the idempotency key, the busy policy, the bounds and, when the session is free and the accepting
replica has room, the claim: admission and claim are one commit.
"""

from typing import assert_never

import msgspec

from dalsegno.core.append import ELSEWHERE, OWN, Decision, Draft, Keep, Known, Refusal, Write, record, take
from dalsegno.core.event import Action, Event, SessionCreated, TurnCancelled, TurnCreated, TurnInput
from dalsegno.core.ids import turn_number
from dalsegno.core.input import Approval, Cancel, Input, Key, Message, ToolResult
from dalsegno.core.lease import Lease
from dalsegno.core.session import Session
from dalsegno.core.turn import OpenTurn

QUEUE_MAX = 100


class Receipt(msgspec.Struct, frozen=True):
    """The answer to an input: where it stands in the log. `turn` is the number of the turn it belongs to."""

    session: str
    turn: int
    seq: int
    status: str
    replayed: bool = False


class Admitted(msgspec.Struct, frozen=True):
    """The receipt, what was written, and the lease if the accepting replica took the session with it."""

    receipt: Receipt
    session: Session | None = None
    events: tuple[Event, ...] = ()
    lease: Lease | None = None


class Admission(msgspec.Struct, frozen=True):
    """An input on its way into a log.

    `taker` is the replica that has room to run it at once; `opening` creates the session if it does not exist.
    `put_under` is the epoch in the name of the object that holds the text, where the input has only its beginning.
    `settling`: sessions are still on their way to this store, and one that is not here may be in the other.
    """

    tenant: str
    session: str
    said: Input
    key: Key | None = None
    taker: str | None = None
    opening: SessionCreated | None = None
    queue_max: int = QUEUE_MAX
    put_under: int | None = None
    settling: bool = False


def admit(session: Session | None, known: Known | None, now: int, *, admission: Admission) -> Decision[Admitted]:
    """Decide about an input. A repeated key gives the first receipt; the same key with another body is refused."""
    if session.moved if session is not None else admission.settling:
        return ELSEWHERE
    key = admission.key
    if known is not None and key is not None and session is not None and not session.deleted:
        if known.fingerprint != key.fingerprint:
            return Refusal("key_reused", "this idempotency key was used for another input")
        return Keep(Admitted(Receipt(session.id, known.turn, known.seq, known.status, replayed=True), session))
    if session is None and admission.opening is not None:
        fresh = Session(id=admission.session, tenant=admission.tenant)
        session, before = record(fresh, [Draft(admission.opening)], now)
    elif session is None or session.deleted:
        return Refusal("not_found", "no such session")
    else:
        before = ()
    if admission.put_under is not None and session.epoch != admission.put_under:
        return Refusal("put_again", "the text was put into the cold tier under an epoch that is over")
    drafts = _drafts(session, admission)
    if isinstance(drafts, Refusal):
        return drafts
    session, events = record(session, drafts, now)
    said = next(event for event in reversed(events) if event.type in ("turn.created", "turn.input"))
    lease = None
    if admission.taker is not None:
        session, started, lease = take(session, owner=admission.taker, now=now)
        events += started
    turn = said.turn or said.seq
    status = _status(session, turn, admission.said, said.type)
    receipt = Receipt(session.id, turn, said.seq, status)
    result = Admitted(receipt, session, before + events, lease)
    if key is None:
        return Write(session, before + events, result)
    return Write(session, before + events, result, ((key.digest, Known(key.fingerprint, said.seq, turn, status)),))


def _drafts(session: Session, admission: Admission) -> list[Draft] | Refusal:
    key = admission.key.text if admission.key else None
    match admission.said:
        case Message():
            return _message(session, admission.said, key, admission.queue_max)
        case Approval() | ToolResult():
            return _decision(session, admission.said, key)
        case Cancel():
            return _cancel(session, admission.said, key)
        case _:
            assert_never(admission.said)


def _message(session: Session, said: Message, key: str | None, queue_max: int) -> list[Draft] | Refusal:
    created = Draft(TurnCreated(said, key), OWN)
    running = session.running
    if running is None:
        return [created]
    if said.on_busy == "reject":
        return Refusal("session_busy", "a turn is open; wait for its end, or send another `on_busy`")
    if said.on_busy == "steer" and not (running.undoing or running.cancel):
        return [Draft(TurnInput(said, key), running.first)]
    if len(session.open) >= queue_max:
        return Refusal("queue_full", f"{queue_max} turns are open already")
    if said.on_busy in ("queue", "steer"):
        return [created]
    hide = said.on_busy == "rollback"
    return [*_stop(running, Cancel(hide=hide), said.on_busy, key=None), created]


def _stop(turn: OpenTurn, said: Cancel, by: str, *, key: str | None) -> list[Draft]:
    """A turn that nobody runs ends at once, if nothing it did is to be undone; one that runs is asked to."""
    heard = Draft(TurnInput(said, key), turn.first)
    if turn.state == "running" or turn.owes:
        return [heard]
    return [heard, Draft(TurnCancelled(by=by, hidden=said.hide or turn.hide), turn.first)]


def answers(said: Approval | ToolResult, action: Action) -> bool:
    """Whether the decision is of the kind that the action waits for."""
    if isinstance(said, Approval):
        kind_fits = action.type == "approval"
    else:
        kind_fits = action.type == "tool_result" or action.reason == "unknown_outcome"
    return kind_fits and action.call_id == said.call_id


def _decision(session: Session, said: Approval | ToolResult, key: str | None) -> list[Draft] | Refusal:
    for turn in session.open:
        for action in () if turn.cancel else turn.actions:
            if action.call_id != said.call_id:
                continue
            if action.decided:
                return Refusal("already_decided", f"{said.call_id} has been decided: {action.decided}")
            if answers(said, action):
                return [Draft(TurnInput(said, key), turn.first)]
    return Refusal("no_such_action", f"nothing waits for {said.call_id!r}")


def _cancel(session: Session, said: Cancel, key: str | None) -> list[Draft] | Refusal:
    turn: OpenTurn | None
    if said.turn is None:
        turn = session.running
    else:
        number = turn_number(session.id, said.turn)
        if number is None or number > session.head:
            return Refusal("not_found", "no such turn in this session")
        turn = session.turn(number)
        if turn is None:
            return Refusal("already_decided", "the turn has ended")
    if turn is None:
        return Refusal("no_such_action", "no turn is open")
    return _stop(turn, said, "client", key=key)


def _status(session: Session, first: int, said: Input, written: str) -> str:
    turn = session.turn(first)
    if turn is None:
        return "done"
    if isinstance(said, Message) and written == "turn.input":
        return "steered"
    return "running" if turn.state == "running" else "queued"
