"""The context: at every prefix of every log it is what a provider accepts, and a function of the log alone (law 13)."""

from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core import codec
from dalsegno.core.context import ABANDONED, PENDING, Transcript, context
from dalsegno.core.event import (
    ContextSummarized,
    Data,
    Event,
    ItemDone,
    ItemsRemoved,
    TurnCancelled,
    TurnCreated,
    TurnInput,
    Unknown,
)
from dalsegno.core.input import Message
from dalsegno.core.item import CONVERSATION, message, text_of
from dalsegno.core.json import JsonObject
from tests.core.laws import folded, further, refused_by_providers, typed
from tests.core.walk import SESSION, Program, Walk, played, programs


@given(programs)
def test_every_prefix_is_valid(program: Program):
    """Every call has exactly one result at any moment, wherever the log may have been cut off."""
    events = played(program).events
    for event in events:
        transcript = folded(events[: event.seq], SESSION)
        assert (why := refused_by_providers(transcript.context().items)) is None, f"after event {event.seq}: {why}"


@given(programs)
def test_incremental_is_whole(program: Program):
    """A transcript that was kept and added to shows the same bytes as one that was folded from the log just now."""
    transcript, events = Transcript(SESSION), played(program).events
    for count in range(1, len(events) + 1):
        transcript = further(transcript, events[:count])
        assert transcript.context() == context(events[:count], session=SESSION)


@given(programs)
def test_a_summary_is_a_beginning(program: Program):
    """A fold from the event after `through` on shows the same as a fold of the whole log: nothing before is needed."""
    walk = played(program)
    if walk.session is None or not walk.session.through:
        return
    whole = context(walk.events, session=SESSION)
    assert folded(walk.events, SESSION, head=walk.session.through).context() == whole
    if not walk.session.summary:
        return  # all was removed up to there
    summary = codec.decode(walk.events[walk.session.summary - 1])
    assert isinstance(summary, ContextSummarized)
    assert whole.items[0] == summary.item


@given(programs)
def test_what_was_said_is_shown(program: Program):
    """Every message of a turn that has begun and is not hidden, removed or summarised is in the context, once, in its
    turn's place; and so is what somebody outside brought in.
    """
    walk = played(program)
    shown = [text_of(item) for item in context(walk.events, session=SESSION).items if item.get("role") == "user"]
    left, hidden, through = remaining(walk)
    begun = {event.turn for event, _ in left if event.type == "turn.started"}
    said: dict[int, list[str]] = {}
    for event, data in left:
        if isinstance(data, TurnCreated | TurnInput) and isinstance(data.input, Message):
            turn = event.turn or 0
            if turn in begun - hidden and turn > through:
                texts = [data.input.content or ""] if data.input.items is None else map(text_of, data.input.items)
                said.setdefault(turn, []).extend(texts)
        elif isinstance(data, ItemDone) and data.item.get("role") == "user" and (data.since or 0) > through:
            said.setdefault(data.since or 0, []).append(text_of(data.item))
    assert shown == [text for turn in sorted(said) for text in said[turn]]


@given(programs)
def test_what_was_answered_is_shown(program: Program):
    """Every finished item is in the context, once; what came of no turn, a hidden turn or a summary is not."""
    walk = played(program)
    shown = [str(item["id"]) for item in context(walk.events, session=SESSION).items]
    left, hidden, through = remaining(walk)
    for event, data in left:
        if isinstance(data, ItemDone) and (data.item.get("status") == "completed" or event.turn is None):
            kept = event.turn not in hidden and (event.turn or data.since or 0) > through
            expected = 1 if kept and data.item["type"] in CONVERSATION else 0
            assert shown.count(str(data.item["id"])) == expected, data.item


def remaining(walk: Walk) -> tuple[list[tuple[Event, Data | Unknown]], set[int | None], int]:
    """What was not removed, the turns that were rolled back, and how far the summary goes."""
    removed: list[tuple[int, int]] = []
    for event, data in typed(walk.events):
        if isinstance(data, ItemsRemoved):
            removed.append((data.after, event.seq))
    left = [(event, data) for event, data in typed(walk.events) if not any(a < event.seq <= b for a, b in removed)]
    hidden = {event.turn for event, data in left if isinstance(data, TurnCancelled) and data.hidden}
    return left, hidden, walk.session.through if walk.session else 0


@given(programs)
def test_what_was_removed_is_as_if_it_had_not_been(program: Program):
    """The context after a removal is what it was at the event that is then the last; only that a call which has no
    result will have none.
    """
    walk = played(program)
    for event, data in typed(walk.events):
        if isinstance(data, ItemsRemoved):
            between = [found for found, _ in typed(walk.events) if data.after < found.seq < event.seq]
            if data.after and any(found.type == "context.summarized" for found in between):
                continue  # a summary stays, and what it stands for does not come back
            before = context(walk.events[: data.after], session=SESSION).items
            after = context(walk.events[: event.seq], session=SESSION).items
            assert [bare(item) for item in after] == [bare(item) for item in before]


def bare(item: JsonObject) -> JsonObject:
    return {**item, "output": None} if item.get("output") in (PENDING, ABANDONED) else item


@given(programs, st.integers(1, 4000))
def test_excess_leaves_about_half(program: Program, limit: int):
    """What is over the limit goes by whole ended turns, oldest first, and no further than needed."""
    transcript = folded(played(program).events, SESSION)
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


def test_a_message_that_no_model_was_shown_comes_last():
    """The answer that was under way when it joined the turn stands before it; the next one, which was shown it, after.
    What an agent says without a model follows the log.
    """
    log = played([("say", 1)])

    def also(*data: Data) -> list[str]:
        log.append(*data)
        return [text_of(item) for item in context(log.events, session=SESSION).items]

    def answer(text: str, through: int | None, step: str) -> ItemDone:
        return ItemDone(message(text, item_id=text), step=step, streamed=True, through=through)

    asked = len(log.events)
    log.play([("steer", 0)])
    assert also() == ["message 1", "message 2"]
    said = also(answer("first", asked, "model#1"), answer("and more", None, "model#1"))
    assert said == ["message 1", "first", "and more", "message 2"]
    asked = len(log.events)
    log.play([("steer", 0)])
    assert also(answer("second", asked, "model#2")) == [*said, "second", "message 3"]
    log.play([("steer", 0)])
    assert also(answer("by itself", None, "say#1")) == [*said, "second", "message 3", "message 4", "by itself"]


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
