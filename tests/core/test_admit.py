"""Admission: what a client says joins the log once, in order, or is refused and changes nothing (P1, P2, P3)."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core import codec
from dalsegno.core.admit import Admission, admit
from dalsegno.core.append import Keep, Refusal, Write
from dalsegno.core.event import Action, SessionCreated, TurnCancelled, TurnCreated, TurnInput
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Approval, Cancel, Input, Message, ToolResult, key_for
from dalsegno.core.session import Session
from dalsegno.core.turn import OpenTurn
from tests.core.laws import typed
from tests.core.walk import SESSION, TENANT, Program, Walk, played, programs

WAITING = OpenTurn(
    2,
    "waiting",
    actions=(
        Action("approval", "a", "t"),
        Action("tool_result", "r", "t"),
        Action("approval", "u", "t", "{}", "unknown_outcome"),
    ),
)
STATES = {"queued": OpenTurn(2), "running": OpenTurn(2, "running", attempt=1), "waiting": WAITING}
NOTHING: list[str] = []


def session_with(*turns: OpenTurn) -> Session:
    return Session(
        id=SESSION,
        tenant=TENANT,
        head=9,
        epoch=3,
        owner="r1" if turns and turns[0].state == "running" else None,
        open=turns,
    )


def admitted(session: Session | None, said: Input, **more: object):
    return admit(session, None, 50, admission=Admission(TENANT, SESSION, said, **more))  # type: ignore[arg-type]


TABLE = {
    ("none", "queue"): ["turn.created"],
    ("none", "reject"): ["turn.created"],
    ("none", "interrupt"): ["turn.created"],
    ("none", "rollback"): ["turn.created"],
    ("none", "steer"): ["turn.created"],
    ("queued", "queue"): ["turn.created"],
    ("queued", "reject"): "session_busy",
    ("queued", "interrupt"): ["turn.input", "turn.cancelled", "turn.created"],
    ("queued", "rollback"): ["turn.input", "turn.cancelled", "turn.created"],
    ("queued", "steer"): ["turn.input"],
    ("running", "queue"): ["turn.created"],
    ("running", "reject"): "session_busy",
    ("running", "interrupt"): ["turn.input", "turn.created"],
    ("running", "rollback"): ["turn.input", "turn.created"],
    ("running", "steer"): ["turn.input"],
    ("waiting", "queue"): ["turn.created"],
    ("waiting", "reject"): "session_busy",
    ("waiting", "interrupt"): ["turn.input", "turn.cancelled", "turn.created"],
    ("waiting", "rollback"): ["turn.input", "turn.cancelled", "turn.created"],
    ("waiting", "steer"): ["turn.input"],
}


@pytest.mark.parametrize(("state", "on_busy"), list(TABLE))
def test_on_busy(state: str, on_busy):
    """What a message does to a session in each state, as the contract's table says it."""
    session = session_with(*([STATES[state]] if state != "none" else []))
    decision, expected = admitted(session, Message("hi", on_busy=on_busy)), TABLE[state, on_busy]
    if isinstance(expected, str):
        assert isinstance(decision, Refusal)
        assert decision.code == expected
        return
    assert isinstance(decision, Write)
    assert [event.type for event in decision.events] == expected
    if on_busy == "rollback" and state != "none":
        cancels = [data for _, data in typed(decision.events) if isinstance(data, TurnCancelled)]
        assert all(data.hidden for data in cancels)
        assert bool(cancels) == (state != "running")


@pytest.mark.parametrize("state", ["queued", "running", "waiting"])
def test_nobody_joins_a_turn_that_is_being_cancelled(state: str):
    """It comes to no other step, so the message would never be answered: it begins a turn of its own."""
    stopped = msgspec.structs.replace(STATES[state], cancel="client", owes=True)
    decision = admitted(session_with(stopped), Message("hi", on_busy="steer"))
    assert isinstance(decision, Write)
    assert [event.type for event in decision.events] == ["turn.created"]


@given(programs)
def test_a_message_is_admitted_once(program: Program):
    """A repeated key brings the first receipt and writes nothing (P2)."""
    walk = played(program)
    texts = [data.key for _, data in typed(walk.events) if isinstance(data, TurnCreated | TurnInput) and data.key]
    assert len(texts) == len(set(texts))


@given(programs)
def test_a_receipt_names_the_message(program: Program):
    """The number in a receipt is the event that holds the message, in the turn that the receipt names."""
    walk = played(program)
    for admission, result in walk.receipts:
        event = walk.events[result.receipt.seq - 1]
        data = codec.decode(event)
        assert isinstance(data, TurnCreated | TurnInput)
        assert data.input == admission.said
        assert event.turn == result.receipt.turn


@given(programs)
def test_acknowledged_order_is_log_order(program: Program):
    """If A was acknowledged before B was sent, A precedes B (P3)."""
    numbers = [result.receipt.seq for _, result in played(program).receipts]
    assert numbers == sorted(numbers)


def test_a_reused_key_is_refused():
    """The same key with another body is refused and changes nothing."""
    walk = Walk()
    walk.admit(Message("one"), key="k")
    before = list(walk.events)
    assert walk.admit(Message("two"), key="k") is None
    assert walk.refusals[-1].code == "key_reused"
    assert walk.events == before


def test_a_repeat_is_answered_even_when_it_would_be_refused_now():
    """The receipt of a message with `on_busy=reject` is repeated although the session is busy with it."""
    walk = Walk()
    first = walk.admit(Message("one", on_busy="reject"), key="k")
    again = walk.admit(Message("one", on_busy="reject"), key="k")
    assert first is not None
    assert again is not None
    assert again.receipt.replayed
    assert (again.receipt.seq, again.receipt.turn, again.receipt.status) == (
        first.receipt.seq,
        first.receipt.turn,
        first.receipt.status,
    )


def test_a_free_session_is_taken_with_the_message():
    """Admission and claim are one commit: the message is numbered, and its turn has begun under a new epoch."""
    decision = admitted(None, Message("hi"), taker="r1", opening=SessionCreated())
    assert isinstance(decision, Write)
    assert [event.type for event in decision.events] == ["session.created", "turn.created", "turn.started"]
    lease = decision.result.lease
    assert lease is not None
    assert (lease.turn, lease.epoch, lease.owner, lease.attempt) == (2, 1, "r1", 1)
    assert (decision.session.owner, decision.session.epoch) == ("r1", 1)
    assert decision.result.receipt.status == "running"


def test_a_busy_session_is_not_taken():
    """A message to a session that another replica runs brings no lease."""
    decision = admitted(session_with(STATES["running"]), Message("hi"), taker="r2")
    assert isinstance(decision, Write)
    assert decision.result.lease is None
    assert decision.session.owner == "r1"
    assert decision.result.receipt.status == "queued"


def test_an_unknown_session_is_created_only_on_request():
    """Without `opening` a message to nobody is `not_found`, and creates nothing."""
    decision = admitted(None, Message("hi"))
    assert isinstance(decision, Refusal)
    assert decision.code == "not_found"


def test_a_deleted_session_does_not_come_back():
    """A tombstone is `not_found`, also for a message that would create a session."""
    gone = Session(id=SESSION, tenant=TENANT, head=3, deleted=True)
    decision = admitted(gone, Message("hi"), opening=SessionCreated())
    assert isinstance(decision, Refusal)
    assert decision.code == "not_found"


def test_the_queue_is_bounded():
    """Over the bound a message is refused, whatever it wants to do to the running turn, except to join it."""
    session = session_with(STATES["running"], OpenTurn(3), OpenTurn(4))
    for on_busy in ("queue", "interrupt", "rollback"):
        decision = admitted(session, Message("hi", on_busy=on_busy), queue_max=3)
        assert isinstance(decision, Refusal)
        assert decision.code == "queue_full"
    assert isinstance(admitted(session, Message("hi", on_busy="steer"), queue_max=3), Write)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (Approval("a", "approve"), None),
        (Approval("u", "deny"), None),
        (ToolResult("r", output="x"), None),
        (ToolResult("u", output="it happened"), None),
        (Approval("r", "approve"), "no_such_action"),
        (ToolResult("a", output="x"), "no_such_action"),
        (Approval("z", "approve"), "no_such_action"),
    ],
)
def test_decisions_go_to_the_action_that_waits(said: Input, code: str | None):
    """An approval answers an approval, a result answers whoever waits for one; both end a doubt about an outcome."""
    decision = admitted(session_with(WAITING), said)
    if code is None:
        assert isinstance(decision, Write)
        assert [event.type for event in decision.events] == ["turn.input"]
    else:
        assert isinstance(decision, Refusal)
        assert decision.code == code


def test_an_action_is_decided_once():
    """The second decision is refused, whatever it says."""
    first = admitted(session_with(WAITING), Approval("a", "approve"))
    assert isinstance(first, Write)
    second = admitted(first.session, Approval("a", "deny"))
    assert isinstance(second, Refusal)
    assert second.code == "already_decided"


def test_the_last_decision_sets_the_turn_free():
    """The replica that accepts the last decision goes on with the turn in the same commit."""
    session = session_with(OpenTurn(2, "waiting", attempt=1, actions=(Action("approval", "a", "t"),)))
    decision = admitted(session, Approval("a", "approve"), taker="r2")
    assert isinstance(decision, Write)
    assert [event.type for event in decision.events] == ["turn.input", "turn.started"]
    assert decision.result.lease is not None


@pytest.mark.parametrize(
    ("turns", "said", "expected"),
    [
        ((), Cancel(), "no_such_action"),
        ((STATES["running"],), Cancel(), ["turn.input"]),
        ((STATES["queued"],), Cancel(), ["turn.input", "turn.cancelled"]),
        ((STATES["waiting"],), Cancel(), ["turn.input", "turn.cancelled"]),
        ((STATES["running"], OpenTurn(5)), Cancel(turn=turn_id(SESSION, 5)), ["turn.input", "turn.cancelled"]),
        ((STATES["running"],), Cancel(turn=turn_id(SESSION, 7)), "already_decided"),
        ((STATES["running"],), Cancel(turn=turn_id(SESSION, 70)), "not_found"),
        ((STATES["running"],), Cancel(turn="no turn"), "not_found"),
    ],
)
def test_cancel(turns, said: Cancel, expected):
    """A turn that nobody runs ends at once; one that runs is asked to; what has ended stays as it is."""
    decision = admitted(session_with(*turns), said)
    if isinstance(decision, Refusal):
        assert decision.code == expected
    else:
        assert isinstance(decision, Write)
        assert [event.type for event in decision.events] == expected


@pytest.mark.parametrize("said", [Cancel(), Message("more", on_busy="interrupt")])
def test_a_rollback_is_not_taken_back(said: Input):
    """A turn that was to be rolled back began to wait before it heard of it; whoever ends it now hides it, too."""
    turn = msgspec.structs.replace(WAITING, cancel="rollback", hide=True)
    decision = admitted(session_with(turn), said)
    assert isinstance(decision, Write)
    assert decision.session.hidden == (turn.first,)


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_fingerprint_tells_bodies_apart(one: str, other: str):
    """Two inputs have the same fingerprint only if they say the same."""
    first, second = key_for("k", Message(one)), key_for("k", Message(other))
    assert (first.fingerprint == second.fingerprint) == (one == other)
    assert first.digest == second.digest


def test_a_replay_returns_the_session_it_was_found_in():
    """A repeat writes nothing at all."""
    walk = Walk()
    walk.admit(Message("one"), key="k", taker="r")
    key = key_for("k", Message("one"))
    decision = admit(walk.session, walk.keys[key.digest], 99, admission=Admission(TENANT, SESSION, Message("one"), key))
    assert isinstance(decision, Keep)
