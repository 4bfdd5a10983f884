"""The context: at every prefix of every log it is what a provider accepts, and a function of the log alone (law 13)."""

from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core import codec
from dalsegno.core.context import ABANDONED, PENDING, Transcript, context
from dalsegno.core.event import ContextSummarized, Event, ItemDone, TurnCancelled, TurnCreated, TurnInput
from dalsegno.core.input import Message
from dalsegno.core.item import CONVERSATION, text_of
from tests.core.laws import refused_by_providers, typed
from tests.core.walk import SESSION, Program, played, programs


@given(programs)
def test_every_prefix_is_valid(program: Program):
    """Every call has exactly one result at any moment, wherever the log may have been cut off."""
    transcript = Transcript(SESSION)
    for event in played(program).events:
        transcript.add(event)
        assert (why := refused_by_providers(transcript.context().items)) is None, f"after event {event.seq}: {why}"


@given(programs)
def test_incremental_is_whole(program: Program):
    """A transcript that was kept and added to shows the same bytes as one that was folded from the log just now."""
    transcript, events = Transcript(SESSION), played(program).events
    for count, event in enumerate(events, 1):
        transcript.add(event)
        kept = transcript.context()
        assert kept == context(events[:count], session=SESSION)


@given(programs)
def test_a_summary_is_a_beginning(program: Program):
    """A fold from the event after `through` on shows the same as a fold of the whole log: nothing before is needed."""
    walk = played(program)
    if walk.session is None or not walk.session.through:
        return
    late = Transcript(SESSION)
    late.head = walk.session.through
    for event in walk.events[walk.session.through :]:
        late.add(event)
    whole = context(walk.events, session=SESSION)
    assert late.context() == whole
    summary = codec.decode(walk.events[walk.session.summary - 1])
    assert isinstance(summary, ContextSummarized)
    assert whole.items[0] == summary.item


@given(programs)
def test_what_was_said_is_shown(program: Program):
    """Every message of a turn that has begun and is not hidden or summarised is in the context, once, in its turn's
    place.
    """
    walk = played(program)
    shown = [text_of(item) for item in context(walk.events, session=SESSION).items if item.get("role") == "user"]
    through = walk.session.through if walk.session else 0
    begun = {event.turn for event in walk.events if event.type == "turn.started"}
    hidden = {event.turn for event, data in typed(walk.events) if isinstance(data, TurnCancelled) and data.hidden}
    said: dict[int, list[str]] = {}
    for event, data in typed(walk.events):
        if isinstance(data, TurnCreated | TurnInput) and isinstance(data.input, Message):
            turn = event.turn or 0
            if turn in begun - hidden and turn > through:
                texts = [data.input.content or ""] if data.input.items is None else map(text_of, data.input.items)
                said.setdefault(turn, []).extend(texts)
    assert shown == [text for turn in sorted(said) for text in said[turn]]


@given(programs)
def test_what_was_answered_is_shown(program: Program):
    """Every finished item is in the context, once; what came of no turn, a hidden turn or a summary is not."""
    walk = played(program)
    shown = {str(item["id"]) for item in context(walk.events, session=SESSION).items}
    through = walk.session.through if walk.session else 0
    hidden = {event.turn for event, data in typed(walk.events) if isinstance(data, TurnCancelled) and data.hidden}
    for event, data in typed(walk.events):
        if isinstance(data, ItemDone) and data.item.get("status") == "completed":
            expected = event.turn not in hidden and (event.turn or 0) > through and data.item["type"] in CONVERSATION
            assert (str(data.item["id"]) in shown) == expected, data.item


@given(programs, st.integers(1, 4000))
def test_excess_leaves_about_half(program: Program, limit: int):
    """What is over the limit goes by whole ended turns, oldest first, and no further than needed."""
    transcript = Transcript(SESSION)
    for event in played(program).events:
        transcript.add(event)
    through = transcript.excess(limit)
    if through is None:
        ended = [event for event in played(program).events if event.type == "turn.completed"]
        assert transcript.weight <= limit or not ended or transcript.weight > limit
        return
    before = transcript.weight
    assert before > limit
    note = ContextSummarized(through, {"type": "message", "id": "sum", "role": "developer", "content": "…"})
    transcript.add(Event(transcript.head + 1, "context.summarized", None, 0, codec.encode(note)))
    assert transcript.weight < before
    assert refused_by_providers(transcript.context().items) is None
    assert transcript.context().items[0] == note.item


def test_a_call_without_a_result_is_shown_with_one():
    """While a call runs the context says so in its place; when its turn has ended, that there will be no result."""
    walk = played([("say", 1), ("calls", 0)])
    assert [item.get("output") for item in context(walk.events, session=SESSION).items][-1] == PENDING
    walk.play([("end", 0)])
    assert [item.get("output") for item in context(walk.events, session=SESSION).items][-1] == ABANDONED


def test_what_is_said_while_a_call_runs_comes_after_its_result():
    """Steering does not come between a call and its result."""
    walk = played([("say", 1), ("calls", 1), ("steer", 0), ("result", 0), ("result", 0)])
    kinds = [item["type"] for item in context(walk.events, session=SESSION).items]
    assert kinds == [
        "message",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
        "message",
    ]


def test_a_turn_that_was_rolled_back_is_not_shown():
    """After `rollback` the model sees the new message and nothing of the old turn."""
    walk = played([("say", 1), ("model", 1), ("stop", 1), ("end", 0), ("claim", 0)])
    assert [text_of(item) for item in context(walk.events, session=SESSION).items] == ["message 4"]


def test_a_queued_message_is_not_shown_before_its_turn():
    """The model that answers the first message does not see the second."""
    walk = played([("say", 1), ("say", 0)])
    assert [text_of(item) for item in context(walk.events, session=SESSION).items] == ["message 1"]


def test_the_text_of_a_client_s_message_without_a_type():
    """An item that says no type is a message."""
    assert text_of({"role": "user", "content": [{"type": "input_text", "text": "hi"}]}) == "hi"
