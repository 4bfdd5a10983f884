"""Text is put together without a gap or a repetition, or not at all."""

import pytest

from dalsegno.client import ContractBroken, Event, Transcript


def added(item: str, turn: str = "t") -> Event:
    return Event(type="item.added", turn=turn, data={"item": {"type": "message", "id": item, "content": []}})


def delta(item: str, at: int, text: str) -> Event:
    return Event(type="item.delta", turn="t", data={"item_id": item, "field": "text", "at": at, "delta": text})


def done(item: str, text: str) -> Event:
    content = [{"type": "output_text", "text": text}] if text else []
    return Event(type="item.done", turn="t", data={"item": {"type": "message", "id": item, "content": content}})


def texts(*events: Event) -> dict[str, str]:
    transcript = Transcript()
    for event in events:
        transcript.add(event)
    return transcript.texts


def test_deltas_add_up():
    """`at` counts code points, so a character outside the BMP is one."""
    assert texts(added("a"), delta("a", 0, "h\N{GRINNING FACE}"), delta("a", 2, "i")) == {"a": "h\N{GRINNING FACE}i"}


def test_a_finished_item_is_what_it_says():
    """`item.done` needs no deltas before it, and counts more than any."""
    assert texts(done("a", "whole")) == {"a": "whole"}
    assert texts(added("a"), delta("a", 0, "who"), done("a", "else")) == {"a": "else"}


def test_the_text_of_a_call_is_its_arguments():
    """Tool calls stream their arguments."""
    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "n", "arguments": '{"a":1}'}
    assert texts(Event(type="item.done", data={"item": call})) == {"f": '{"a":1}'}


@pytest.mark.parametrize(
    "events",
    [
        (added("a"), delta("a", 1, "x")),
        (added("a"), delta("a", 0, "xy"), delta("a", 1, "y")),
        (delta("a", 0, "x"),),
        (added("a"), added("a")),
        (done("a", "x"), delta("a", 1, "y")),
        (added("a"), Event(type="item.dropped", data={"item_id": "a"}), delta("a", 0, "x")),
    ],
    ids=["gap", "repetition", "never opened", "opened twice", "after its end", "after it was dropped"],
)
def test_text_that_does_not_follow_is_refused(events: tuple[Event, ...]):
    """A gap and a repetition look alike: the next piece does not begin where the text ends."""
    with pytest.raises(ContractBroken):
        texts(*events)


@pytest.mark.parametrize(
    "event",
    [
        Event(type="item.dropped", turn="t", data={"item_id": "a"}),
        Event(type="turn.started", turn="t", data={"attempt": 2, "epoch": 2, "carried": 0}),
        Event(type="turn.failed", turn="t"),
        Event(type="turn.waiting", turn="t"),
    ],
    ids=lambda event: event.type,
)
def test_what_nobody_will_finish_is_forgotten(event: Event):
    """A dropped item, and what an attempt or a turn left open when it ended; another turn's items stay."""
    assert texts(done("z", "kept"), added("b", "other"), added("a"), delta("a", 0, "x"), event) == {
        "z": "kept",
        "b": "",
    }


def test_an_attempt_that_carries_on_keeps_what_there_is():
    """`carried` above zero: the next delta follows the last one of the attempt before."""
    carried = Event(type="turn.started", turn="t", data={"attempt": 2, "epoch": 2, "carried": 2}, id="9.2")
    assert texts(added("a"), delta("a", 0, "x"), carried, delta("a", 1, "y")) == {"a": "xy"}
