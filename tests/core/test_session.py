"""The fold of a session: a pure function of the log, the same in one go or in pieces, that refuses what cannot have
happened.
"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core import codec
from dalsegno.core.event import (
    Action,
    ContextSummarized,
    Data,
    Event,
    ItemDone,
    SessionCreated,
    SessionDeleted,
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
from dalsegno.core.input import Cancel, Message
from dalsegno.core.session import Session, apply, fold
from dalsegno.core.turn import TRANSITIONS, OpenTurn, ready_at
from dalsegno.errors import Unreadable
from tests.core.walk import SESSION, TENANT, Program, played, programs

SAMPLES: dict[str, Data] = {
    "turn.input": TurnInput(Message("more", on_busy="steer")),
    "turn.started": TurnStarted(1, 1, 0),
    "item.done": ItemDone({"type": "message", "id": "msg_1", "role": "assistant", "content": []}),
    "tool.intent": ToolIntent("call_1", "tool", "once", "key"),
    "context.summarized": ContextSummarized(1, {"type": "message"}),
    "turn.waiting": TurnWaiting((Action("approval", "call_1", "tool"),)),
    "turn.completed": TurnCompleted(None),
    "turn.failed": TurnFailed(TurnError("ValueError", "no")),
    "turn.cancelled": TurnCancelled("client"),
    "turn.undoing": TurnUndoing(),
    "tool.undone": ToolUndone("call_1", "pay", "k"),
}


def stripped(session: Session) -> Session:
    """Without what is not in the log: the lease, and the attempt of a turn that was adopted and is not started yet."""
    turns = tuple(msgspec.structs.replace(turn, attempt=0) for turn in session.open)
    return msgspec.structs.replace(session, owner=None, epoch=0, open=turns)


@given(programs)
def test_the_row_is_the_fold_of_the_log(program: Program):
    """What a store keeps in the session's row is what the whole log folds to, the lease aside (law 1)."""
    walk = played(program)
    if walk.session is not None:
        assert stripped(fold(SESSION, TENANT, walk.events)) == stripped(walk.session)


@given(programs, st.integers(0, 200))
def test_a_fold_can_be_continued(program: Program, cut: int):
    """A snapshot and the events after it fold to the same session as the whole log."""
    events = played(program).events
    cut = min(cut, len(events))
    session = fold(SESSION, TENANT, events[:cut])
    snapshot = msgspec.json.decode(msgspec.json.encode(session), type=Session)
    for event in events[cut:]:
        snapshot = apply(snapshot, event, codec.decode(event))
    assert snapshot == fold(SESSION, TENANT, events)


@given(programs)
def test_every_turn_has_at_most_one_end(program: Program):
    """A turn that ended is never heard of again, and one that is open has no end in the log."""
    walk = played(program)
    ended: set[int] = set()
    for event in walk.events:
        assert event.turn not in ended, f"event {event.seq} belongs to a turn that has ended"
        if event.type in ("turn.completed", "turn.failed", "turn.cancelled"):
            assert event.turn is not None
            ended.add(event.turn)
    opened = {event.seq for event in walk.events if event.type == "turn.created"}
    assert opened - ended == {turn.first for turn in (walk.session.open if walk.session else ())}


@given(programs)
def test_numbers_have_no_gaps_and_times_do_not_go_back(program: Program):
    """Events are 1, 2, 3 …, and each is at least as late as the one before, whatever the clock did."""
    events = played(program).events
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.at for event in events] == sorted(event.at for event in events)


@given(programs)
def test_only_the_first_open_turn_runs_or_waits(program: Program):
    """Turns run one after another in the order of their admission."""
    session = played(program).session
    if session is not None:
        assert [turn.first for turn in session.open] == sorted(turn.first for turn in session.open)
        assert all(turn.state == "queued" for turn in session.open[1:])


@pytest.mark.parametrize("seq", [0, 1, 3])
def test_a_gap_in_the_log_is_unreadable(seq: int):
    """A missing or repeated event is an error and never a shorter history (law 7)."""
    first = Event(1, "session.created", None, 0, codec.encode(SessionCreated()))
    session = apply(Session(id=SESSION, tenant=TENANT), first, SessionCreated())
    with pytest.raises(Unreadable):
        apply(session, msgspec.structs.replace(first, seq=seq), SessionCreated())


@pytest.mark.parametrize(
    ("state", "kind"), [(state, kind) for state in TRANSITIONS for kind in SAMPLES if kind not in TRANSITIONS[state]]
)
def test_what_cannot_have_happened_is_unreadable(state, kind: str):
    """An event that cannot follow a turn's state is refused by whoever folds the log, and so cannot be written."""
    session = Session(id=SESSION, tenant=TENANT, head=1, open=(OpenTurn(first=1, state=state),))
    event = Event(2, kind, 1, 0, codec.encode(SAMPLES[kind]))
    with pytest.raises(Unreadable, match="cannot follow"):
        apply(session, event, SAMPLES[kind])


@pytest.mark.parametrize(("state", "kind"), [(state, kind) for state in TRANSITIONS for kind in TRANSITIONS[state]])
def test_the_table_of_a_turn_is_the_fold(state, kind: str):
    """Each line of the table is what the fold does; an end takes the turn off the open ones."""
    session = Session(id=SESSION, tenant=TENANT, head=1, open=(OpenTurn(first=1, state=state),))
    turn = apply(session, Event(2, kind, 1, 0, codec.encode(SAMPLES[kind])), SAMPLES[kind]).turn(1)
    after = TRANSITIONS[state][kind]
    if after in ("completed", "failed", "cancelled"):
        assert turn is None
    else:
        assert turn is not None
        assert turn.state == after


def test_an_event_of_no_open_turn_is_unreadable():
    """A turn that does not exist, or has ended, cannot be continued."""
    session = Session(id=SESSION, tenant=TENANT, head=1)
    with pytest.raises(Unreadable, match="no open turn"):
        apply(session, Event(2, "turn.completed", 1, 0, b'{"usage":null}'), TurnCompleted(None))


def test_a_deleted_session_is_a_tombstone():
    """After its deletion a session is known to have existed, and has nothing to run."""
    session = Session(id=SESSION, tenant=TENANT, head=1, open=(OpenTurn(first=1),))
    deleted = apply(session, Event(2, "session.deleted", None, 5, b"{}"), SessionDeleted())
    assert (deleted.deleted, deleted.open, deleted.ready_at) == (True, (), None)


def test_an_event_of_a_newer_version_is_passed_through():
    """A reader goes on past a type that it does not know (law 10)."""
    session = Session(id=SESSION, tenant=TENANT, head=1)
    event = Event(2, "x.99", None, 5, b'{"new":1}')
    assert apply(session, event, codec.decode(event)).head == 2


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (OpenTurn(1), 0),
        (OpenTurn(1, "running"), 0),
        (OpenTurn(1, "waiting", actions=(Action("approval", "c", "t"),)), None),
        (OpenTurn(1, "waiting", actions=(Action("approval", "c", "t", decided="deny"),)), 0),
        (OpenTurn(1, "waiting", actions=(Action("approval", "c", "t", expires_at=9),)), 9),
        (OpenTurn(1, "waiting", cancel="client", actions=(Action("approval", "c", "t"),)), 0),
        (
            OpenTurn(
                1,
                "waiting",
                actions=(Action("approval", "c", "t", expires_at=9), Action("approval", "d", "t", expires_at=7)),
            ),
            7,
        ),
    ],
)
def test_a_turn_is_ready_when_nobody_else_is_to_move(turn: OpenTurn, expected: int | None):
    """A waiting turn becomes ready when all its actions are decided, one of them expires, or it is cancelled."""
    assert ready_at(turn) == expected


def test_a_cancel_is_heard_once():
    """The first to ask is named; a later rollback still hides the turn."""
    session = Session(id=SESSION, tenant=TENANT, head=1, open=(OpenTurn(first=1, state="running"),))
    for said in (Cancel(), Cancel(hide=True)):
        data = TurnInput(said)
        session = apply(session, Event(session.head + 1, "turn.input", 1, 0, codec.encode(data)), data)
    assert session.open[0] == OpenTurn(1, "running", cancel="client", hide=True)


def test_a_message_that_steers_is_marked():
    """The turn's end looks at the number of the last message that joined it."""
    session = Session(id=SESSION, tenant=TENANT, head=1, open=(OpenTurn(first=1, state="running"),))
    data = SAMPLES["turn.input"]
    assert apply(session, Event(2, "turn.input", 1, 0, codec.encode(data)), data).open[0].steer == 2


def test_every_event_type_has_a_sample_or_a_test():
    """A new event type needs a line above before it needs a fold."""
    assert set(SAMPLES) == {kind for table in TRANSITIONS.values() for kind in table}
    assert isinstance(TurnCreated(Message("hi")), msgspec.Struct)
