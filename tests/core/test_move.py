"""Moving a session between stores: what is sealed stays as it was, and what lands is what was sealed."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core import codec
from dalsegno.core.admit import Admission, admit
from dalsegno.core.append import ELSEWHERE, Draft, Fenced, Keep, Refusal, Write, append
from dalsegno.core.claim import claim, readopt, retake
from dalsegno.core.event import Event, Origin, SessionCreated, SessionMoved, SessionSettled, SessionUpdated
from dalsegno.core.input import Cancel, Message
from dalsegno.core.lease import Lease
from dalsegno.core.lifecycle import create, delete, replay, update
from dalsegno.core.move import Luggage, differences, expected, inter, land, present, readable, seal, standing
from dalsegno.core.refs import Ref
from dalsegno.core.session import Session, apply, fold
from dalsegno.core.step import journal
from dalsegno.errors import Unavailable, Unreadable
from tests.core.walk import SESSION, TENANT, Program, Walk, programs

REF = Ref(TENANT, SESSION)
replace = msgspec.structs.replace


def _sealed(walk: Walk, *, to: str = "B") -> Luggage:
    walk.write(seal(walk.session, None, walk.now, to=to, when="now"))
    assert walk.session is not None
    walk.lease = None
    return Luggage(walk.session, tuple(walk.events), dict(walk.keys))


def _landed(luggage: Luggage, there: Walk, *, origin: str = "A") -> Walk:
    after = len(there.events)
    there.now = luggage.session.updated_at + 5
    decision = land(there.session, None, there.now, luggage=luggage, origin=origin, after=after)
    assert isinstance(decision, Write), decision
    there.write(decision)
    return there


def _bare(session: Session | None) -> Session:
    """What the two stores must agree on: all but the lease and whether it lives here."""
    assert session is not None
    return replace(session, epoch=0, head=0, updated_at=0, moved="")


@given(programs)
def test_what_lands_is_what_was_sealed(program: Program):
    """The same events, byte for byte, the same keys, the same fold; then it lives there, and nobody owns it."""
    here = Walk().play(program)
    before = list(here.events)
    luggage = _sealed(here)
    assert here.events[:-1] == before and here.session is not None and here.session.ready_at is None
    there = _landed(luggage, Walk())
    assert there.events[:-1] == here.events and there.keys == here.keys
    assert codec.decode(there.events[-1]) == SessionSettled("A")
    assert _bare(there.session) == _bare(here.session)
    assert there.session is not None and there.session.owner is None and not there.session.moved
    assert there.session.epoch >= here.session.epoch
    readable(there.session, there.events)
    assert differences(luggage, Luggage(there.session, there.events, there.keys)) == []
    assert standing(here.session, here.events, there.session, there.events, to="B") == "there"


@given(programs, programs, programs)
def test_there_and_back_again(first: Program, second: Program, third: Program):
    """Each log is a prefix of the one that was written after it; what comes back is only what was missing."""
    here = Walk().play(first)
    there = _landed(_sealed(here), Walk()).play(second)
    luggage = _sealed(there, to="A")
    assert here.session is not None
    assert standing(luggage.session, luggage.events, here.session, here.events, to="A") == "behind"
    older = list(here.events)
    _landed(luggage, here, origin="B")
    assert here.events[: len(older)] == older and here.events[:-1] == there.events
    assert here.keys == there.keys
    assert there.session is not None
    assert here.session.epoch >= there.session.epoch
    assert standing(there.session, there.events, here.session, here.events, to="A") == "there"
    here.play(third)
    readable(here.session, here.events)
    assert differences(luggage, Luggage(here.session, here.events, here.keys)) == []


@given(programs, programs)
def test_a_turn_goes_on_where_it_landed(program: Program, after: Program):
    """Open turns stay open: the other fleet's claim takes them, and the log goes on as any other."""
    here = Walk().play(program)
    assert here.session is not None
    was = here.session
    luggage = _sealed(here)
    there = _landed(luggage, Walk())
    assert there.session is not None
    assert [turn.first for turn in there.session.open] == [turn.first for turn in was.open]
    if was.open and was.open[0].state == "running":
        assert there.session.ready_at == 0
        cut_off = was.owner is not None
        assert there.session.open[0].attempt == was.open[0].attempt + cut_off
        there.claim()
        lease: Lease | None = there.lease
        if lease is not None and lease.turn == was.open[0].first:
            assert not lease.orphaned and lease.epoch > was.epoch
            kept = journal(there.events, lease.turn)
            for call_id in kept.intents:
                if call_id not in kept.outputs and call_id not in kept.answers and cut_off:
                    assert kept.interrupted(call_id), "an effect without a record would be begun a second time"
    there.play(after)
    readable(there.session, there.events)


@given(programs, st.integers(0, 3))
def test_nothing_follows_a_seal(program: Program, number: int):
    """While it is sealed every decision refuses: nothing is written, no number is used."""
    here = Walk().play(program)
    lease = here.lease
    luggage = _sealed(here)
    session = luggage.session
    admission = Admission(TENANT, SESSION, Message("hi"), taker="r", opening=SessionCreated())
    assert admit(session, None, here.now, admission=admission) == ELSEWHERE
    assert update(session, None, here.now, metadata={}, head=None) == ELSEWHERE
    assert delete(session, None, here.now) == ELSEWHERE
    assert isinstance(create(session, None, here.now, ref=REF, opening=SessionCreated()), Refusal)
    assert isinstance(claim(session, here.now, owner="r"), Keep)
    for owner in ("r", f"replica-{number}"):
        assert isinstance(retake(session, None, here.now, owner=owner), Keep)
        assert isinstance(readopt(session, None, here.now, owner=owner), Keep)
    if lease is not None:
        assert append(session, here.now, lease=lease, drafts=[]) == Fenced()
    assert seal(session, None, here.now, to="C", when="now") == Keep(session)
    with pytest.raises(Unavailable) as caught:
        present(session)
    assert caught.value.outcome == "not_applied"
    with pytest.raises(Unreadable):
        apply(session, Event(session.head + 1, "session.updated", None, 1, b'{"metadata":{}}'), SessionUpdated({}))


def test_a_running_turn_is_left_alone_if_that_is_wanted():
    """`idle`: refused while somebody owns the session; `now`: the owner is fenced off, and the attempt counts."""
    here = Walk().play([("say", 1), ("claim", 0)])
    assert here.session is not None and here.session.owner is not None and here.lease is not None
    owned = here.session
    assert isinstance(seal(owned, None, 1, to="B", when="idle"), Refusal)
    sealed = _sealed(here).session
    assert (sealed.owner, sealed.epoch, sealed.open[0].attempt) == (None, owned.epoch + 1, owned.open[0].attempt + 1)


def test_a_move_alone_poisons_no_turn():
    """A turn on its last attempt is moved like any other: nobody died."""
    here = Walk().play([("say", 1), ("claim", 0), ("crash", 0), ("claim", 0), ("crash", 0), ("claim", 0)])
    assert here.session is not None and here.session.open and here.session.open[0].attempt == 3
    there = _landed(_sealed(here), Walk())
    there.claim()
    assert there.session is not None and there.session.open and there.lease is not None


SETTLED: Any = [("say", 1), ("claim", 0), ("model", 0), ("end", 0)]


def test_sessions_that_are_not_one_are_refused():
    """Logs that are not prefixes of each other, or live in both stores: nothing may be written."""
    here, other = Walk().play([("say", 1), *SETTLED]), Walk().play([("say", 3), *SETTLED, ("say", 5)])
    assert here.session is not None and other.session is not None
    assert isinstance(standing(here.session, here.events, other.session, other.events, to="B"), Refusal)
    assert isinstance(standing(here.session, here.events, here.session, here.events, to="B"), Refusal)
    shorter = fold(SESSION, TENANT, here.events[:2])
    assert isinstance(standing(here.session, here.events, shorter, here.events[:2], to="B"), Refusal)
    assert isinstance(standing(shorter, here.events[:2], here.session, here.events, to="B"), Refusal)
    grave = Session(SESSION, TENANT, head=3, deleted=True)
    assert isinstance(standing(here.session, here.events, grave, [], to="B"), Refusal)


def test_a_session_that_went_elsewhere_is_not_moved_to_a_third_store():
    """Its label says where it went: in that store it lives on, and in a third one there would be two of it."""
    here = Walk().play(SETTLED)
    luggage = _sealed(here, to="B")
    assert isinstance(standing(luggage.session, luggage.events, None, [], to="C"), Refusal)
    assert standing(luggage.session, luggage.events, None, [], to="B") == "absent"


def test_somebody_else_landed_it_first():
    """What was not there when the logs were compared is not written over, nor behind."""
    here = Walk().play(SETTLED)
    luggage = _sealed(here)
    there = _landed(luggage, Walk())
    for after in (0, len(luggage.events), len(there.events)):
        assert isinstance(land(there.session, None, 9, luggage=luggage, origin="A", after=after), Refusal)


def test_the_deleted_are_buried():
    """Its name is taken there too, nothing of it comes along, and a copy from before is deleted."""
    grave = Session(SESSION, TENANT, head=40, epoch=7, deleted=True)
    there = Walk()
    buried = there.write(inter(None, None, 50, grave=grave, origin="A"))
    assert buried.deleted and buried.epoch > 7
    assert isinstance(inter(there.session, None, 60, grave=grave, origin="A"), Keep)
    assert isinstance(create(there.session, None, 60, ref=REF, opening=SessionCreated()), Refusal)
    before = Walk().play(SETTLED)
    assert isinstance(inter(before.session, None, 60, grave=grave, origin="A"), Refusal)
    _sealed(before)
    assert before.write(inter(before.session, None, 60, grave=grave, origin="A")).deleted
    assert fold(SESSION, TENANT, before.events).deleted


def test_a_copy_of_a_moved_log_lives_here():
    """A fork or an import may end where the original moved away; the copy did not."""
    here = Walk().play([("say", 1), ("claim", 0)])
    luggage = _sealed(here)
    made = Walk().write(replay(None, None, 9, ref=REF, events=luggage.events, by="fork"))
    assert not made.moved and not made.open


@pytest.mark.parametrize("hide", [False, True])
def test_a_copy_of_a_turn_that_is_being_rolled_back_is_rolled_back(hide: bool):
    """A copy may end between a rollback and the end that it decides; its model is not shown the turn, either."""
    here = Walk().play([("say", 1), ("claim", 0)])
    here.write(admit(here.session, None, 5, admission=Admission(TENANT, SESSION, Cancel(hide=hide))))
    made = Walk().write(replay(None, None, 9, ref=REF, events=here.events, by="fork"))
    assert made.hidden == ((2,) if hide else ()) and not made.open


def test_sessions_on_their_way_are_expected():
    """In a store that is being filled, nothing is decided about a session that is not there yet."""
    assert expected(None, None, 1, decide=lambda *given: Keep("asked")) == ELSEWHERE
    there = Walk().play(SETTLED)
    assert expected(there.session, None, 1, decide=lambda *given: Keep("asked")) == Keep("asked")
    admission = Admission(TENANT, SESSION, Message("hi"), opening=SessionCreated(), settling=True)
    assert admit(None, None, 1, admission=admission) == ELSEWHERE


@pytest.mark.parametrize("spoilt", ["event", "missing", "key", "fold", "settled", "epoch"])
def test_every_difference_is_found(spoilt: str):
    """Whatever came differently to the destination is said in words."""
    here = Walk().play([("say", 1), *SETTLED, ("say", 2)])
    luggage = _sealed(here)
    there = _landed(luggage, Walk())
    assert there.session is not None and there.keys
    session, events, keys = there.session, list(there.events), dict(there.keys)
    match spoilt:
        case "event":
            events[1] = replace(events[1], at=events[1].at + 1)
        case "missing":
            events = events[:2]
        case "key":
            keys.pop(next(iter(keys)))
        case "fold":
            session = replace(session, user="somebody else")
        case "settled":
            events = events[:-1]
        case "epoch":
            session = replace(session, epoch=0)
    assert differences(luggage, Luggage(session, events, keys))
    assert differences(luggage, Luggage(there.session, there.events, there.keys)) == []


def test_an_unknown_event_is_not_moved():
    """A session of a newer version stays where it is: this one could not write it as it is."""
    here = Walk().play(SETTLED)
    assert here.session is not None
    events = [*here.events, Event(len(here.events) + 1, "x.99", None, 9_000, b"{}")]
    with pytest.raises(Unreadable):
        readable(fold(SESSION, TENANT, events), events)


def test_the_two_events_are_as_documented():
    """`session.moved {to}`, `session.settled {from}`."""
    assert codec.encode(SessionMoved("B")) == b'{"to":"B"}'
    assert codec.encode(SessionSettled("A")) == b'{"from":"A"}'
    assert Draft(SessionMoved("B")).turn is None


def test_a_fork_that_is_being_made_is_not_moved():
    """It has its first event and nothing of its parent: whoever makes it goes on here, or it is dropped here."""
    opening = SessionCreated(parent=Origin("01990000-0000-7000-8000-00000000aaaa", 5))
    begun = create(None, None, 1, ref=REF, opening=opening)
    assert isinstance(begun, Write)
    decision = seal(begun.session, None, 2, to="B", when="now")
    assert isinstance(decision, Refusal) and decision.code == "session_busy"
