"""The journal: what a turn's log says about each step and call, so that nothing on record is done again (P6)."""

from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core import codec
from dalsegno.core.event import Event, ItemDone, ToolIntent, TurnCancelled, TurnInput, TurnStarted
from dalsegno.core.input import Approval, Cancel, Message, ToolResult
from dalsegno.core.item import call, output, step
from dalsegno.core.step import Journal, journal, step_key
from tests.core.laws import typed
from tests.core.walk import Program, played, programs


def noted(*data: object, turn: int = 2) -> Journal:
    found = Journal()
    for seq, one in enumerate(data, turn + 1):
        found.note(Event(seq, codec.type_of(one), turn, 0, codec.encode(one)))  # type: ignore[arg-type]
    return found


@given(programs)
def test_every_step_on_record_is_found(program: Program):
    """Each item that names a step is found under that step's key, in the order of the log, and under no other."""
    events = played(program).events
    for turn in {event.turn for event in events if event.turn}:
        expected: dict[str, list[object]] = {}
        for event, data in typed(events):
            if event.turn == turn and isinstance(data, ItemDone) and data.step:
                expected.setdefault(data.step, []).append(data.item)
        found = journal(events, turn).steps
        summaries = {key: list(record.items) for key, record in found.items() if key in expected}
        assert summaries == expected


@given(programs, st.integers(0, 100))
def test_a_journal_can_be_continued(program: Program, cut: int):
    """Noting events as they are written gives the same as reading them from the log."""
    events = played(program).events
    for turn in {event.turn for event in events if event.turn}:
        grown = journal(events[:cut], turn)
        for event in events[cut:]:
            if event.turn == turn:
                grown.note(event)
        assert grown == journal(events, turn)


@given(programs)
def test_every_intent_and_output_is_found(program: Program):
    """A call whose output is on record is never carried out again."""
    events = played(program).events
    for turn in {event.turn for event in events if event.turn}:
        found = journal(events, turn)
        intents = {d.call_id for e, d in typed(events) if e.turn == turn and isinstance(d, ToolIntent)}
        outputs = {
            d.item["call_id"]
            for e, d in typed(events)
            if e.turn == turn and isinstance(d, ItemDone) and d.item["type"] == "function_call_output"
        }
        assert set(found.intents) == intents
        assert set(found.outputs) == outputs
        assert set(found.calls) >= intents


CALL = ItemDone(call("c", "t", "{}", item_id="fc_1"), step="model#1", streamed=True, through=2)
INTENT = ToolIntent("c", "t", "once", "key")


def test_a_call_is_interrupted_by_a_death_only():
    """Starting again after parking or a hand-over is no reason for doubt; starting a later attempt is."""
    begun = TurnStarted(1, 1, 0)
    assert not noted(begun, CALL, INTENT).interrupted("c")
    assert not noted(begun, CALL, INTENT, TurnStarted(1, 2, 0)).interrupted("c")
    assert noted(begun, CALL, INTENT, TurnStarted(2, 2, 0)).interrupted("c")
    assert not noted(begun, TurnStarted(2, 2, 0), CALL, INTENT).interrupted("c")


def test_a_call_that_was_approved_later_is_free_since_then():
    """A death before the approval says nothing about a call that was not allowed to run."""
    begun, said = TurnStarted(1, 1, 0), TurnInput(Approval("c", "approve"))
    assert not noted(begun, CALL, INTENT, TurnStarted(2, 2, 0), said, TurnStarted(2, 3, 0)).interrupted("c")
    assert noted(begun, CALL, INTENT, said, TurnStarted(2, 2, 0)).interrupted("c")


def test_a_second_death_counts_from_the_second_attempt():
    """A turn taken over twice doubts what was begun before the last take-over."""
    found = noted(TurnStarted(1, 1, 0), TurnStarted(2, 2, 0), CALL, INTENT, TurnStarted(3, 3, 0))
    assert (found.adopted, found.attempt) == (7, 3)
    assert found.interrupted("c")


def test_what_was_said_to_the_turn():
    """Answers by call, the last message that joined, and whether somebody wants it to stop."""
    said = noted(
        TurnInput(Message("more")),
        TurnInput(ToolResult("c", output="x")),
        TurnInput(Message("and")),
        TurnInput(Cancel()),
    )
    assert (said.steered, said.cancelled) == (5, True)
    assert said.answers["c"] == (4, ToolResult("c", output="x"))


def test_the_first_of_identical_calls_is_shared():
    """A digest names the call whose result the others take."""
    found = noted(ToolIntent("a", "t", "once", "k1", "digest"), ToolIntent("b", "t", "once", "k2", "digest"))
    assert found.shared == {"digest": "a"}


def test_a_step_of_several_items_is_one_record():
    """Items in their order, with what the model had been shown and what it cost."""
    first = ItemDone(step("a", 1, item_id="i1"), step="model#1", through=9, usage={"output_tokens": 3})
    second = ItemDone(output("c", "x", item_id="i2"), step="model#1")
    record = noted(first, second).steps["model#1"]
    assert (record.items, record.through, record.usage) == ((first.item, second.item), 9, {"output_tokens": 3})


def test_other_turns_are_not_noted():
    """A journal is one turn's."""
    events = [
        Event(3, "item.done", 9, 0, codec.encode(CALL)),
        Event(4, "turn.cancelled", 2, 0, codec.encode(TurnCancelled("client"))),
    ]
    assert journal(events, 2) == Journal()


def test_keys_tell_steps_apart():
    """By name and by how often the name came before."""
    assert step_key("model", 2) == "model#2" != step_key("model", 1)
