"""Claiming: one epoch more, one attempt more if the owner died, and the end of a turn that nobody can finish (P4,
P5).
"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core import codec
from dalsegno.core.append import Draft, Expect, Fenced, Keep, Refusal, Write, append
from dalsegno.core.claim import ATTEMPTS_MAX, claim, readopt, retake
from dalsegno.core.event import Action, Data, ItemDone, TurnCancelled, TurnCompleted, TurnFailed, TurnInput, TurnWaiting
from dalsegno.core.input import Approval, ToolResult
from dalsegno.core.item import message
from dalsegno.core.lease import Lease
from dalsegno.core.session import Session
from dalsegno.core.turn import OpenTurn
from tests.core.laws import typed
from tests.core.walk import SESSION, TENANT, Program, Walk, played, programs


def held(turn: OpenTurn, *more: OpenTurn, owner: str | None = "dead") -> Session:
    return Session(id=SESSION, tenant=TENANT, head=9, epoch=4, owner=owner, open=(turn, *more), updated_at=10)


def claimed(session: Session | None, now: int = 50):
    decision = claim(session, now, owner="r2")
    assert isinstance(decision, Write), decision
    return decision


LEASE = Lease(TENANT, SESSION, 4, "r1", 2, 1)
OWNED = held(OpenTurn(2, "running", attempt=1, last=5), owner="r1")
DONE = Draft(TurnCompleted(None), 2)


def test_a_queued_turn_begins():
    """The claim of a free session starts its oldest turn: epoch and start in one write."""
    decision = claimed(held(OpenTurn(2), OpenTurn(5), owner=None))
    assert [(event.type, event.turn) for event in decision.events] == [("turn.started", 2)]
    lease = decision.result.lease
    assert lease == Lease(TENANT, SESSION, 5, "r2", 2, 1)
    assert (decision.session.epoch, decision.session.owner) == (5, "r2")


def test_an_orphaned_turn_is_adopted():
    """A dead owner's turn costs one attempt, counted before anything else is done; its start follows the stream's
    fence.
    """
    decision = claimed(held(OpenTurn(2, "running", attempt=1)))
    assert decision.events == ()
    assert decision.result.lease == Lease(TENANT, SESSION, 5, "r2", 2, 2, orphaned=True)
    assert decision.session.open[0].attempt == 2


def test_what_is_ours_already_is_taken_again():
    """After a lost answer nothing had begun, and nothing is counted; after a dropped task it is as after a death."""
    for again, attempt, orphaned in ((retake, 1, False), (readopt, 2, True)):
        decision = again(OWNED, None, 50, owner="r1")
        assert isinstance(decision, Write)
        assert decision.result.lease == Lease(TENANT, SESSION, 5, "r1", 2, attempt, orphaned=orphaned)
        for other in (None, held(OpenTurn(2, "running", attempt=1))):
            assert isinstance(again(other, None, 50, owner="r1"), Keep)


def test_a_turn_that_kills_its_replicas_is_poisoned():
    """After three deaths the turn fails, the session is usable, and the next turn begins in the same write (P5)."""
    decision = claimed(held(OpenTurn(2, "running", attempt=ATTEMPTS_MAX), OpenTurn(5)))
    assert [(event.type, event.turn) for event in decision.events] == [("turn.failed", 2), ("turn.started", 5)]
    failed = codec.decode(decision.events[0])
    assert isinstance(failed, TurnFailed)
    assert failed.error.code == "poisoned"
    assert decision.result.lease is not None
    assert decision.result.lease.turn == 5


def test_a_death_poisons_one_turn_only():
    """The next turn is not blamed for the death that ended the one before it."""
    decision = claimed(held(OpenTurn(2, "running", attempt=ATTEMPTS_MAX), OpenTurn(5, attempt=0)))
    assert decision.session.open[0].attempt == 1


@given(st.integers(1, 6))
def test_attempts_are_counted_in_the_row(deaths: int):
    """Each death of an owner counts, also when the adopter dies before it could write a thing."""
    session = held(OpenTurn(2, "running", attempt=1))
    for death in range(deaths):
        decision = claimed(session)
        session = decision.session
        if death + 1 >= ATTEMPTS_MAX:
            assert session.open == ()
            assert decision.result.lease is None
            return
        assert session.open[0].attempt == death + 2


def test_a_cancelled_turn_ends_with_the_claim():
    """A turn whose replica died after a client cancelled it is not run again."""
    decision = claimed(held(OpenTurn(2, "running", attempt=1, cancel="rollback", hide=True)))
    assert [event.type for event in decision.events] == ["turn.cancelled"]
    data = codec.decode(decision.events[0])
    assert data == TurnCancelled(by="rollback", hidden=True)
    assert decision.result.lease is None
    assert decision.session.owner is None


def test_an_expired_action_is_decided():
    """Nobody decided in time: an approval is denied, an outside result is an error, and the turn goes on."""
    actions = (Action("approval", "a", "t", expires_at=40), Action("tool_result", "r", "t", expires_at=50))
    decision = claimed(held(OpenTurn(2, "waiting", attempt=1, actions=actions), owner=None))
    said = [data.input for _, data in typed(decision.events) if isinstance(data, TurnInput)]
    assert said == [Approval("a", "deny", "nobody decided in time"), ToolResult("r", error="nobody answered in time")]
    assert decision.events[-1].type == "turn.started"


def test_an_action_that_has_time_keeps_the_turn_waiting():
    """One expiry does not start a turn that waits for something else too."""
    actions = (Action("approval", "a", "t", expires_at=40), Action("approval", "b", "t"))
    decision = claimed(held(OpenTurn(2, "waiting", attempt=1, actions=actions), owner=None))
    assert [event.type for event in decision.events] == ["turn.input"]
    assert decision.result.lease is None
    assert decision.session.owner is None


@pytest.mark.parametrize(
    "session",
    [
        None,
        Session(id=SESSION, tenant=TENANT, head=3),
        Session(id=SESSION, tenant=TENANT, head=3, deleted=True, open=(OpenTurn(2),)),
    ],
)
def test_nothing_to_run_is_nothing_claimed(session: Session | None):
    """A session that is not there, idle or deleted is left as it is."""
    decision = claim(session, 50, owner="r2")
    assert isinstance(decision, Keep)
    assert decision.result.lease is None


@given(programs)
def test_epochs_only_grow(program: Program):
    """Each start of a turn carries an epoch above all before it."""
    epochs = [
        msgspec.json.decode(event.data)["epoch"] for event in played(program).events if event.type == "turn.started"
    ]
    assert epochs == sorted(set(epochs))


# --------------------------------------------------------------------------------------------------- the append's fence


@pytest.mark.parametrize(
    "session",
    [
        None,
        msgspec.structs.replace(OWNED, deleted=True),
        msgspec.structs.replace(OWNED, epoch=5),
        msgspec.structs.replace(OWNED, owner="r3"),
        msgspec.structs.replace(OWNED, owner=None),
        msgspec.structs.replace(OWNED, open=()),
        msgspec.structs.replace(OWNED, open=(OpenTurn(7, "running"),)),
    ],
)
def test_a_stale_writer_is_fenced(session: Session | None):
    """Whoever lost the lease, for whatever reason, cannot append, end or release (P4, law 3)."""
    assert isinstance(append(session, 50, lease=LEASE, drafts=[DONE], then="take"), Fenced)
    assert isinstance(append(session, 50, lease=LEASE, drafts=[]), Fenced)


@given(programs, st.integers(0, 60))
def test_a_lease_of_the_past_is_fenced(program: Program, when: int):
    """A lease that was held at any earlier moment, and is not held now, writes nothing."""
    walk = Walk().play(program[:when])
    before = walk.lease
    walk.play(program[when:])
    if before is None or (walk.lease is not None and walk.lease.epoch == before.epoch):
        return
    spoken = Draft(ItemDone(message("I was paused", item_id="zombie")), before.turn)
    assert isinstance(append(walk.session, walk.now, lease=before, drafts=[spoken]), Fenced)


@pytest.mark.parametrize(("then", "owner"), [("hold", "r1"), ("release", None), ("take", None)])
def test_what_becomes_of_the_lease(then, owner: str | None):
    """`hold` keeps it, `release` gives it back, `take` gives it back when nothing else is to run."""
    drafts = [DONE] if then == "take" else []
    decision = append(OWNED, 50, lease=LEASE, drafts=drafts, then=then)
    assert isinstance(decision, Write)
    assert decision.session.owner == owner
    assert (decision.result.lease is None) == (owner is None)


def test_the_next_turn_is_taken_with_the_end_of_the_last():
    """End and start are one commit, under a new epoch."""
    session = msgspec.structs.replace(OWNED, open=(*OWNED.open, OpenTurn(7)))
    decision = append(session, 50, lease=LEASE, drafts=[DONE], then="take")
    assert isinstance(decision, Write)
    assert [(event.type, event.turn) for event in decision.events] == [("turn.completed", 2), ("turn.started", 7)]
    assert decision.result.lease == Lease(TENANT, SESSION, 5, "r1", 7, 1)


def test_parking_releases():
    """A turn that waits holds nothing: whoever gets the answer may run it."""
    waiting = Draft(TurnWaiting((Action("approval", "a", "t"),)), 2)
    decision = append(OWNED, 50, lease=LEASE, drafts=[waiting], then="release")
    assert isinstance(decision, Write)
    assert (decision.session.owner, decision.session.status, decision.session.ready_at) == (None, "waiting", None)


@pytest.mark.parametrize("end", [TurnCompleted(None), TurnCancelled("client")])
def test_a_cancel_in_the_log_decides_the_end(end: Data):
    """Whichever of cancel and completion is in the log first decides, and there is one end."""
    session = msgspec.structs.replace(OWNED, open=(OpenTurn(2, "running", cancel="rollback", hide=True),))
    decision = append(session, 50, lease=LEASE, drafts=[Draft(end, 2)], then="take")
    assert isinstance(decision, Write)
    assert [data for _, data in typed(decision.events)] == [TurnCancelled(by="rollback", hidden=True)]


@pytest.mark.parametrize(("steer", "seen", "refused"), [(0, 0, False), (8, 7, True), (8, 8, False), (8, None, False)])
def test_a_message_that_joined_is_not_lost_at_the_end(steer: int, seen: int | None, refused: bool):
    """A turn does not end while a message has joined it that the model was not shown."""
    session = msgspec.structs.replace(OWNED, open=(OpenTurn(2, "running", steer=steer),))
    decision = append(session, 50, lease=LEASE, drafts=[DONE], then="take", expect=Expect(seen=seen))
    assert isinstance(decision, Refusal) == refused


def test_a_write_that_arrived_is_not_repeated():
    """A writer whose answer was lost says what it thinks the turn's last event is; if there is more, it is `behind`."""
    decision = append(OWNED, 50, lease=LEASE, drafts=[DONE], expect=Expect(last=3))
    assert isinstance(decision, Refusal)
    assert decision.code == "behind"
    assert isinstance(append(OWNED, 50, lease=LEASE, drafts=[DONE], expect=Expect(last=5)), Write)


def test_a_digest_finds_its_event():
    """A draft with a digest is remembered under the number that it got."""
    item = ItemDone(message("kept", item_id="msg_1"))
    decision = append(OWNED, 50, lease=LEASE, drafts=[Draft(item, 2), Draft(item, 2, b"d" * 16)])
    assert isinstance(decision, Write)
    assert [(digest, known.seq) for digest, known in decision.keys] == [(b"d" * 16, 11)]
