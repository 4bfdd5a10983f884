"""Items from outside: what is decided about them, and which logs with them cannot have happened."""

from typing import Any

import pytest

from dalsegno.core import codec
from dalsegno.core.append import ELSEWHERE, Keep, Known, Refusal, Write
from dalsegno.core.bring import Added, Brought, bring, key_of, parse_items
from dalsegno.core.context import Transcript
from dalsegno.core.event import Event, ItemDone, ItemsRemoved, Origin, SessionCreated, TurnCreated
from dalsegno.core.ids import session_named
from dalsegno.core.input import Message
from dalsegno.core.session import Session, apply, replace
from dalsegno.core.stretch import WAITING_MAX, Stretch
from dalsegno.core.turn import OpenTurn
from dalsegno.errors import Refused, Unreadable
from tests.core.walk import SESSION, TENANT

USER: dict[str, Any] = {"type": "message", "id": "m", "role": "user", "content": "hi"}
CALL: dict[str, Any] = {"type": "function_call", "id": "c", "call_id": "c1", "name": "tool", "arguments": "{}"}
OUTPUT: dict[str, Any] = {"type": "function_call_output", "id": "o", "call_id": "c1", "output": ""}
IDLE = Session(SESSION, TENANT, head=7, epoch=2)


def brought(*items: Any, **more: Any) -> Brought:
    return Brought(TENANT, SESSION, parse_items(items), **more)


@pytest.mark.parametrize(
    ("session", "what", "code"),
    [
        (replace(IDLE, deleted=True), brought(USER), "not_found"),
        (replace(IDLE, moved="there"), brought(USER), ELSEWHERE.code),
        (IDLE, brought(USER, expect=6), "version_mismatch"),
        (None, brought(USER, expect=1), "version_mismatch"),
        (replace(IDLE, open=(OpenTurn(7),)), brought(USER), "session_busy"),
        (replace(IDLE, open=(OpenTurn(7),)), brought(USER, expect=6), "session_busy"),
        (Session(SESSION, TENANT, head=1, parent=Origin("x", 9)), brought(USER), "session_busy"),
        (IDLE, brought(USER, put_under=1), "put_again"),
        (None, brought(USER, put_under=1), "put_again"),
        (None, brought(after=0), "invalid_request"),
        (IDLE, brought(after=7), "invalid_request"),
        (replace(IDLE, through=5), brought(after=4), "invalid_request"),
        (IDLE, brought(OUTPUT), "invalid_request"),
        (replace(IDLE, stretch=Stretch(3, ("c1",))), brought(CALL), "invalid_request"),
    ],
)
def test_what_is_refused(session: Session | None, what: Brought, code: str):
    """Each for its own reason, and nothing is written."""
    decision = bring(session, None, 0, brought=what)
    assert isinstance(decision, Refusal)
    assert decision.code == code


def test_calls_that_wait_are_bounded():
    """Law 12: the row does not grow with them."""
    calls = [{**CALL, "id": str(number), "call_id": str(number)} for number in range(WAITING_MAX + 1)]
    assert isinstance(bring(IDLE, None, 0, brought=brought(*calls[1:])), Write)
    assert isinstance(bring(IDLE, None, 0, brought=brought(*calls)), Refusal)


def test_nothing_begins_nothing():
    """An append of no items changes nothing, and makes no session."""
    assert bring(None, None, 0, brought=brought()) == Keep(Added(0))
    assert bring(IDLE, None, 0, brought=brought(expect=7)) == Keep(Added(7))


def test_a_repeat_comes_first():
    """A key that is known is answered although the head has moved on, or a turn is open."""
    items = parse_items([USER])
    key = key_of("k", items)
    what = Brought(TENANT, SESSION, items, expect=3, key=key)
    busy = replace(IDLE, open=(OpenTurn(7),))
    assert bring(busy, Known(key.fingerprint, 4, 0, "done"), 0, brought=what) == Keep(Added(4))
    assert isinstance(bring(busy, Known(b"other", 4, 0, "done"), 0, brought=what), Refusal)


def done(item: Any, since: int | None) -> ItemDone:
    return ItemDone(item, since=since)


@pytest.mark.parametrize(
    ("session", "data"),
    [
        (replace(IDLE, open=(OpenTurn(7),)), done(USER, 8)),
        (replace(IDLE, open=(OpenTurn(7),)), ItemsRemoved(3)),
        (IDLE, done(USER, None)),
        (IDLE, done(USER, 7)),
        (replace(IDLE, stretch=Stretch(3)), done(USER, 3)),
        (replace(IDLE, stretch=Stretch(3, ("c1",))), done(USER, 8)),
        (replace(IDLE, stretch=Stretch(3, ("c2",))), done(OUTPUT, 3)),
        (IDLE, done(OUTPUT, 8)),
        (IDLE, done({"type": "dalsegno:step", "id": "s", "name": "n"}, 8)),
        (IDLE, ItemsRemoved(8)),
        (replace(IDLE, through=5), ItemsRemoved(4)),
    ],
)
def test_what_cannot_have_happened_is_unreadable(session: Session, data: Any):
    """A log that says so was not written by us, and no import of it is believed."""
    event = Event(8, codec.type_of(data), None, 0, codec.encode(data))
    with pytest.raises(Unreadable):
        apply(session, event, data)


def test_a_turn_ends_the_stretch():
    """What waited does not wait any more."""
    session = replace(IDLE, stretch=Stretch(3, ("c1",)))
    data = TurnCreated(Message("hi"))
    after = apply(session, Event(8, "turn.created", 8, 0, codec.encode(data)), data)
    assert after.stretch is None


def test_a_session_begins_with_its_first_items():
    """As its opening says."""
    decision = bring(None, None, 5, brought=brought(USER, opening=SessionCreated("support", metadata={"name": "anna"})))
    assert isinstance(decision, Write)
    assert decision.session.agent == "support" and decision.session.metadata == {"name": "anna"}
    assert [event.type for event in decision.events] == ["session.created", "item.done"]
    assert decision.result.head == 2


def written(session: Session | None, what: Brought) -> Session:
    decision = bring(session, None, 1, brought=what)
    assert isinstance(decision, Write)
    return decision.session


def test_a_last_item_that_is_replaced_again_and_again():
    """What the session's row knows of it does not grow; and whoever folded in what is gone now begins anew."""
    session = written(None, brought(USER, USER))
    for _ in range(20):
        folded = Transcript(SESSION, head=session.head, removed=session.removed)
        session = written(session, brought(after=session.head - 1))
        assert not folded.goes_on(session)
        folded = Transcript(SESSION, head=session.head, removed=session.removed)
        session = written(session, brought(USER))
        assert folded.goes_on(session)
    assert session.removed == ((3, session.head - 1),)


def test_names_of_sessions():
    """An id is itself, however it is spelled; any other name always stands for the same id, and no two for one."""
    assert session_named(SESSION.upper()) == session_named(SESSION.replace("-", "")) == SESSION
    assert session_named("anna") == session_named("anna") == "f3de2142-645e-8e06-a6cd-394c0265d91b"
    names = ["anna", "Anna", "anna ", "1", "job:anna", "ä", SESSION[1:]]
    assert len({session_named(name) for name in names}) == len(names)
    for wrong in ("", "x" * 1025, "\ud800"):
        with pytest.raises(Refused):
            session_named(wrong)
