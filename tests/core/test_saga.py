"""What is undone of a turn, and in which order: a function of its journal."""

from typing import Any

import pytest

from dalsegno.core import codec
from dalsegno.core import item as items
from dalsegno.core.admit import Admission, admit
from dalsegno.core.append import Draft, Refusal, Write, append, give_up, record
from dalsegno.core.claim import ATTEMPTS_MAX, UNDOING_ATTEMPTS_MAX, claim
from dalsegno.core.event import (
    Action,
    Data,
    ItemDone,
    SessionCreated,
    ToolIntent,
    ToolUndone,
    TurnCancelled,
    TurnCompleted,
    TurnCreated,
    TurnError,
    TurnFailed,
    TurnInput,
    TurnStarted,
    TurnUndoing,
    TurnWaiting,
)
from dalsegno.core.ids import undo_key
from dalsegno.core.input import Approval, Cancel, Message, ToolResult
from dalsegno.core.lease import Lease
from dalsegno.core.saga import UNDONE_BY_MAX, hopeless, not_undone, note, owed
from dalsegno.core.session import Session, replace
from dalsegno.core.step import Journal, journal
from tests.core.walk import SESSION, TENANT

TURN = 2
ERROR = TurnError("ValueError", "no")
LEASE = Lease(TENANT, SESSION, epoch=1, owner="r1", turn=TURN, attempt=1)


def told(*data: Data) -> Journal:
    """The journal of a turn that was created, started and then did this."""
    return journal(logged(*data)[1], TURN)


def logged(*data: Data) -> Any:
    session, events = record(Session(id=SESSION, tenant=TENANT), [Draft(SessionCreated())], 1)
    drafts = [Draft(TurnCreated(Message("hi")), 0), *(Draft(one, TURN) for one in (TurnStarted(1, 1, 0), *data))]
    session, more = record(session, drafts, 1)
    return session, events + more


def intent(call_id: str, effect: Any = "keyed", **more: Any) -> ToolIntent:
    return ToolIntent(call_id, "pay", effect, f"key of {call_id}", **{"undo": True, **more})


def output(call_id: str, status: str = "completed", *, idle: bool = False) -> ItemDone:
    return ItemDone(items.output(call_id, f"output of {call_id}", item_id=f"fco_{call_id}", status=status), idle=idle)


def ids(made: Journal) -> list[str]:
    return [one.call_id for one in owed(made)]


def died() -> TurnStarted:
    """A successor begins after a death."""
    return TurnStarted(2, 2, 0)


def test_the_latest_is_undone_first():
    """The order is the reverse of that in which the calls were completed, whatever the order they were asked for in."""
    made = told(intent("a"), intent("b"), intent("c"), output("b"), output("c"), output("a"), TurnUndoing(ERROR))
    assert ids(made) == ["a", "c", "b"]
    first = owed(made)[0]
    assert (first.outcome, first.output, first.key) == ("completed", "output of a", undo_key("key of a"))


def test_what_is_on_record_as_undone_is_not_undone_again():
    """A successor goes on with the rest; what was given up is not tried again either, and is named."""
    done, failed = ToolUndone("b", "pay", "k"), ToolUndone("c", "pay", "k", "incomplete", "no")
    made = told(intent("a"), intent("b"), intent("c"), *map(output, "abc"), TurnUndoing(ERROR), failed, done)
    assert ids(made) == ["a"]
    assert not_undone(made) == ("c",)


RULE: dict[str, tuple[tuple[Data, ...], str | None]] = {
    "completed": ((intent("a"), output("a")), "completed"),
    "raised, or took too long": ((intent("a"), output("a", "incomplete")), "unknown"),
    "no tool was run for it": ((intent("a"), output("a", "incomplete", idle=True)), None),
    "the record of another call": ((intent("a"), output("a", idle=True)), None),
    "declares nothing": ((intent("a", undo=False), output("a")), None),
    "never begun": ((intent("a"),), None),
    "its replica died over it": ((intent("a"), died()), "unknown"),
    "asked for after the death": ((died(), intent("a")), None),
    "waits for an approval": ((intent("a", gated=True), died()), None),
    "approved, then its replica died": (
        (intent("a", gated=True), TurnInput(Approval("a", "approve")), died()),
        "unknown",
    ),
    "denied, then its replica died": ((intent("a", gated=True), TurnInput(Approval("a", "deny")), died()), None),
    "died over, and let run again": ((intent("a"), died(), TurnInput(Approval("a", "approve"))), "unknown"),
    "done outside, not recorded yet": ((intent("a"), TurnInput(ToolResult("a", output="yes"))), "completed"),
    "failed outside, not recorded yet": ((intent("a"), TurnInput(ToolResult("a", error="no"))), "unknown"),
    "a transaction that was committed": ((intent("a", "transactional"), output("a")), "completed"),
    "a transaction that was not": ((intent("a", "transactional"), output("a", "incomplete")), None),
    "a transaction whose replica died": ((intent("a", "transactional"), died()), None),
}


@pytest.mark.parametrize("case", RULE)
def test_everything_that_may_have_happened_is_undone(case: str):
    """And nothing else: for every way a call can have gone."""
    told_so, outcome = RULE[case]
    found = owed(told(*told_so, TurnUndoing(ERROR)))
    assert [one.outcome for one in found] == ([] if outcome is None else [outcome])


def test_what_dies_while_undoing_is_no_reason_to_undo_more():
    """A call that had not begun when undoing began has not begun, however many replicas die afterwards; one that was
    under way at the very death that ended the turn may have happened.
    """
    assert ids(told(intent("a"), TurnUndoing(ERROR), died())) == []
    assert ids(told(intent("a"), TurnUndoing(ERROR, died=True), died())) == ["a"]


def test_undoing_is_given_up_after_three_deaths():
    """Nothing of the user's is run again for a turn whose undoing kills."""
    made = told(intent("a"), output("a"), TurnUndoing(ERROR))
    assert [hopeless(made, attempt=1 + deaths) for deaths in (0, UNDONE_BY_MAX - 1, UNDONE_BY_MAX)] == [
        False,
        False,
        True,
    ]
    assert not hopeless(told(intent("a")), attempt=9)


def test_the_model_is_told_the_truth():
    """What was undone, what was not, and what nobody knows."""
    made = told(
        *(intent("a"), intent("b"), intent("c"), output("a"), output("b"), output("c", "incomplete")),
        *(TurnUndoing(ERROR), ToolUndone("c", "pay", "k"), ToolUndone("b", "pay", "k", "incomplete", "no money")),
        ToolUndone("a", "pay", "k", output="refund 7"),
    )
    text = note(made)
    assert text.splitlines() == [
        "[This turn failed, and what its tools had done was undone, the latest first:",
        "- pay (c) was undone; whether it had happened is not known",
        "- pay (b) was NOT undone and is still in effect: no money",
        "- pay (a) was undone: refund 7]",
    ]
    assert "was cancelled" in note(told(intent("a"), output("a"), TurnUndoing(), ToolUndone("a", "pay", "k")))


# ------------------------------------------------------------------------------------------- who may end a turn


def held(*data: Data) -> Session:
    session: Session = logged(*data)[0]
    return replace(session, owner="r1", epoch=1)


def ended(session: Session, *data: Data) -> Any:
    return append(session, 9, lease=LEASE, drafts=[Draft(one, TURN) for one in data], then="release")


def test_the_store_refuses_a_bad_end_before_undoing_has_begun():
    """Also where the replica knew of no cancel: its `completed` is a cancel by the time that it is written."""
    session = held(intent("a"), output("a"))
    assert isinstance(ended(session, TurnCompleted(None)), Write)
    assert ended(session, TurnFailed(ERROR)) == Refusal("owes", "what the turn's tools did is to be undone first")
    cancelled = held(intent("a"), output("a"), TurnInput(Cancel()))
    refused = ended(cancelled, TurnCompleted(None))
    assert isinstance(refused, Refusal)
    assert refused.code == "owes"
    assert isinstance(ended(session, TurnUndoing(ERROR), TurnFailed(ERROR)), Write)
    undone = held(intent("a"), output("a"), TurnInput(Cancel()), TurnUndoing(), ToolUndone("a", "pay", "k"))
    decision = ended(undone, TurnCancelled("client", not_undone=("b",)))
    assert isinstance(decision, Write)
    assert codec.decode(decision.events[0]) == TurnCancelled("client", not_undone=("b",))
    assert isinstance(ended(held(intent("a", undo=False)), TurnFailed(ERROR)), Write)


def test_a_turn_that_nobody_can_run_ends_all_the_same():
    """And says that what it did is not undone."""
    for begun in ((), (TurnUndoing(ERROR),)):
        decision = give_up(held(intent("a"), output("a"), *begun), None, 9, lease=LEASE, error=ERROR)
        assert isinstance(decision, Write)
        last = codec.decode(decision.events[-1])
        assert isinstance(last, TurnFailed)
        assert "not undone" in last.error.message
    decision = give_up(held(intent("a", undo=False)), None, 9, lease=LEASE, error=ERROR)
    assert isinstance(decision, Write)
    assert codec.decode(decision.events[-1]) == TurnFailed(ERROR)


def test_a_cancelled_turn_that_owes_is_taken_and_not_ended():
    """Parked or handed over, it is given to a replica, which undoes it, and nothing of it can be approved any more; one
    that owes nothing ends at once.
    """
    waiting = TurnWaiting((Action("approval", "b", "pay"),))
    parked = replace(held(intent("a"), output("a"), intent("b"), waiting, TurnInput(Cancel())), owner=None)
    approval = admit(parked, None, 9, admission=Admission(TENANT, SESSION, Approval("b", "approve")))
    assert isinstance(approval, Refusal)
    assert approval.code == "no_such_action"
    assert parked.ready_at == 0
    decision = claim(parked, 9, owner="r2")
    assert isinstance(decision, Write)
    assert [event.type for event in decision.events] == ["turn.undoing", "turn.started"]
    assert decision.result.lease is not None
    free = replace(held(intent("a", undo=False), TurnInput(Cancel())), owner=None)
    decision = claim(free, 9, owner="r2")
    assert isinstance(decision, Write)
    assert [event.type for event in decision.events] == ["turn.cancelled"]


def test_a_poisoned_turn_is_undone_by_a_fourth_replica():
    """Its agent is not to be run any more, which `turn.undoing` says; the calls it died over may have happened."""
    session = held(intent("a"), TurnStarted(ATTEMPTS_MAX, 1, 0))
    decision = claim(session, 9, owner="r2")
    assert isinstance(decision, Write)
    (event,) = decision.events
    data = codec.decode(event)
    assert isinstance(data, TurnUndoing)
    assert data.died
    assert data.error is not None
    assert data.error.code == "poisoned"
    assert decision.result.lease is not None
    assert decision.result.lease.attempt == ATTEMPTS_MAX + 1
    assert decision.session.open[0].undoing == ATTEMPTS_MAX


@pytest.mark.parametrize("cancel", [(), (TurnInput(Cancel()),)])
def test_a_turn_that_kills_for_ever_ends(cancel: tuple[Data, ...]):
    """Also if not even writing down that nothing is undone succeeds."""
    deaths = TurnStarted(1 + UNDOING_ATTEMPTS_MAX, 1, 0)
    for last, types in ((TurnStarted(UNDOING_ATTEMPTS_MAX, 1, 0), []), (deaths, ["turn.failed"])):
        decision = claim(held(intent("a"), output("a"), *cancel, TurnUndoing(ERROR), last), 9, owner="r2")
        assert isinstance(decision, Write)
        assert [event.type for event in decision.events] == types
