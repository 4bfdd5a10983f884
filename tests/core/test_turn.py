"""The life of a turn: the table that code looks up, and the picture of it."""

import re

from hypothesis import given

from dalsegno.core import turn
from dalsegno.core.event import TERMINAL, TYPES
from dalsegno.core.session import Session
from dalsegno.core.turn import TRANSITIONS
from dalsegno.core.view import conversation, view
from tests.core.laws import typed
from tests.core.walk import SESSION, TENANT, Program, played, programs

ENDS = {"completed", "failed", "cancelled"}


def test_states_that_are_reached_are_in_the_table_or_are_ends():
    """Nothing leads to a state that the table does not know, and an end has no way out."""
    reached = {after for table in TRANSITIONS.values() for after in table.values()}
    assert reached - set(TRANSITIONS) == ENDS
    assert set(TRANSITIONS) <= reached | {"queued"}


def test_events_of_a_turn_are_event_types():
    """Every event in the table can be in a log; every end has a name of its own."""
    assert {kind for table in TRANSITIONS.values() for kind in table} <= set(TYPES)
    assert {kind for table in TRANSITIONS.values() for kind, after in table.items() if after in ENDS} == TERMINAL


def test_only_a_running_turn_makes_anything():
    """Items, intents and summaries are written by a turn that somebody runs."""
    for kind in ("item.done", "tool.intent", "context.summarized", "turn.waiting", "turn.completed"):
        assert [state for state in TRANSITIONS if kind in TRANSITIONS[state]] == ["running"]


def test_the_picture_shows_the_table():
    """The states in the module's picture are those of the table, and every arrow between two of them is a
    transition.
    """
    picture = turn.__doc__ or ""
    assert (
        set(re.findall(r"\b(queued|running|waiting|completed|failed|cancelled)\b", picture)) == set(TRANSITIONS) | ENDS
    )
    moves = {(before, after) for before, table in TRANSITIONS.items() for after in table.values() if before != after}
    assert moves == {
        ("queued", "running"),
        ("queued", "failed"),
        ("queued", "cancelled"),
        ("running", "waiting"),
        ("running", "completed"),
        ("running", "failed"),
        ("running", "cancelled"),
        ("waiting", "running"),
        ("waiting", "failed"),
        ("waiting", "cancelled"),
    }


@given(programs)
def test_a_turn_is_seen_as_its_events_tell_it(program: Program):
    """Status, attempt, output and the last event of each turn, from the log alone."""
    walk = played(program)
    session = walk.session or Session(id=SESSION, tenant=TENANT)
    for first in [event.seq for event in walk.events if event.type == "turn.created"]:
        seen = view(session, first, walk.events)
        last = [event for event in walk.events if event.turn == first][-1]
        assert (seen.first_seq, seen.last_seq) == (first, last.seq)
        open_turn = session.turn(first)
        assert seen.status == (open_turn.state if open_turn else last.type.removeprefix("turn."))
        made = [data.item for event, data in typed(walk.events) if event.turn == first and event.type == "item.done"]  # type: ignore[union-attr]
        assert list(seen.output) == [item for item in made if not str(item["type"]).startswith("dalsegno:")]


@given(programs)
def test_a_conversation_leaves_out_what_was_rolled_back(program: Program):
    """The items of a conversation are those of the turns that are not hidden, and what was not removed, in the order
    of the log.
    """
    walk = played(program)
    if walk.session is not None:
        shown = [str(item["id"]) for item in conversation(walk.session, walk.events)]
        hidden = set(walk.session.hidden)
        gone = {seq for first, last in walk.session.removed for seq in range(first, last + 1)}
        kept = [event for event in walk.events if event.turn not in hidden and event.seq not in gone]
        assert shown == [str(item["id"]) for item in conversation(Session(id=SESSION, tenant=TENANT), kept)]
        assert len(shown) == len(set(shown))
