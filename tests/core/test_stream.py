"""Cursors: wherever a stream is cut, the continuation is composed from the log and what is left of the open step
(P8).
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core import codec
from dalsegno.core.cursor import Cursor, parse
from dalsegno.core.event import Event, ItemDone, TurnStarted
from dalsegno.core.item import call, message, text_of
from dalsegno.core.stream import Composer, Dropped, Frame, Piece, closes
from dalsegno.errors import Refused
from dalsegno.testing.world.reader import Reader
from tests.core.broadcast import Broadcast, Program, composed, programs


def read(frames: list[Frame], reader: Reader) -> Reader:
    for frame in frames:
        reader.take(frame)
    return reader


def continued(broadcast: Broadcast, cursor: Cursor, now: int, *, hot: bool) -> list[Frame]:
    """The frames after `cursor` for a reader who comes when moment `now` has passed, and follows to the end."""
    composer = Composer(cursor)
    past = [moment.what for moment in broadcast.timeline[: now + 1]]
    frames = [
        frame
        for event in past
        if isinstance(event, Event) and event.seq > cursor.seq
        for frame in composer.durable(event)
    ]
    if hot:
        frames += composer.live(broadcast.timeline[now].hot)
    return frames + composed(broadcast.timeline[now + 1 :], composer=composer)


@given(programs)
def test_a_live_reader_gets_everything(program: Program):
    """Events once and in order, deltas that add up to the items, and a cursor that says exactly what the client has."""
    broadcast = Broadcast().play(program)
    reader = read(composed(broadcast.timeline, composer=Composer(Cursor(0))), Reader())
    reader.check_against(broadcast.events)


@given(programs)
def test_a_late_reader_gets_everything(program: Program):
    """A reader who comes when it is all over gets the log, without any delta."""
    broadcast = Broadcast().play(program)
    composer = Composer(Cursor(0))
    frames = [frame for event in broadcast.events for frame in composer.durable(event)]
    assert all(isinstance(frame.what, Event) for frame in frames)
    read(frames, Reader()).check_against(broadcast.events)


@given(programs, st.data())
def test_every_cut_can_be_continued(program: Program, data: st.DataObject):
    """Cut at any frame, resumed at any later moment from what the hot tier has or has not: the same stream in the
    end.
    """
    broadcast = Broadcast().play(program)
    composer, reader, cuts = Composer(Cursor(0)), Reader(), list[tuple[int, int]]()
    frames: list[Frame] = []
    for now, moment in enumerate(broadcast.timeline):
        frames += composed([moment], composer=composer)
        cuts.append((len(frames), now))
    count, now = data.draw(st.sampled_from(cuts), label="cut")
    count = data.draw(st.integers(max(0, count - 3), count), label="frames received")
    now = data.draw(st.integers(now, len(broadcast.timeline) - 1), label="moment of return")
    read(frames[:count], reader)
    read(continued(broadcast, reader.cursor, now, hot=data.draw(st.booleans(), label="hot")), reader)
    reader.check_against(broadcast.events)


@given(programs, st.integers(0, 10_000))
def test_a_turns_reader_gets_its_turn(program: Program, cut: int):
    """A reader of one turn gets that turn's events and text, and an end after its last event."""
    broadcast = Broadcast().play([*program, ("end", 0), *program])
    turns = sorted({event.turn for event in broadcast.events if event.type == "turn.completed" and event.turn})
    turn = turns[cut % len(turns)]
    composer, reader = Composer(Cursor(turn - 1), turn=turn), Reader(after=turn - 1, turn=turn)
    moments = [moment for moment in broadcast.timeline if _place(moment.what) >= turn]
    read(composed(moments, composer=composer), reader).check_against(broadcast.events)
    assert composer.ended


def _place(what: Event | Piece) -> int:
    return what.seq if isinstance(what, Event) else what.base


@given(programs)
def test_a_frame_is_not_repeated(program: Program):
    """Pieces and events that come twice, from the process and from the hot tier, are sent once."""
    broadcast = Broadcast().play(program)
    composer, reader = Composer(Cursor(0)), Reader()
    for moment in broadcast.timeline:
        if isinstance(moment.what, Event):
            read(list(composer.durable(moment.what)), reader)
        read(list(composer.live(moment.hot)), reader)
        assert list(composer.live(moment.hot)) == []


def test_the_rest_of_a_text_comes_before_its_end():
    """A client that has three characters of an item that is done meanwhile gets the others as one delta."""
    item = message("dal segno", item_id="msg_1")
    event = Event(8, "item.done", 2, 0, codec.encode(ItemDone(item, streamed=True)))
    first, second = Composer(Cursor(7, 4)).durable(event)
    assert isinstance(first.what, Piece)
    assert (first.what.offset, first.what.delta, first.cursor) == (3, " segno", Cursor(7, 10))
    assert (second.what, second.cursor) == (event, Cursor(8))


def test_units_of_items_behind_an_item_stay():
    """Closing an item takes its own units off the cursor and leaves those of the next."""
    item = call("call_1", "tool", "{}", item_id="fc_1")
    event = Event(8, "item.done", 2, 0, codec.encode(ItemDone(item, streamed=True)))
    assert [frame.cursor for frame in Composer(Cursor(7, 3 + 5)).durable(event)] == [Cursor(8, 5)]


@pytest.mark.parametrize(("carried", "offset"), [(0, 0), (4, 0), (9, 6)])
def test_an_attempt_keeps_what_it_goes_on_from(carried: int, offset: int):
    """A new attempt keeps all that a client has of the open step, or nothing: half an item cannot be taken back."""
    event = Event(8, "turn.started", 2, 0, codec.encode(TurnStarted(2, 2, carried)))
    *_, last = Composer(Cursor(7, 6)).durable(event)
    assert last.cursor == Cursor(8, offset)


def test_what_is_lost_is_said():
    """An item that a client saw opening, and that the next attempt knows nothing of, is dropped by name."""
    composer = Composer(Cursor(7))
    opened = Piece(7, 0, 2, "msg_1", item={"type": "message", "id": "msg_1"})
    list(composer.live([opened]))
    event = Event(8, "turn.started", 2, 0, codec.encode(TurnStarted(2, 2, 0)))
    first, second = composer.durable(event)
    assert first.what == Dropped(2, "msg_1", "lost")
    assert second.cursor == Cursor(8)


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("item.done", b'{"item":{},"streamed":true}', True),
        ("item.done", b'{"item":{}}', False),
        ("turn.started", codec.encode(TurnStarted(2, 2, 0)), True),
        ("turn.started", codec.encode(TurnStarted(2, 2, 3)), False),
        ("turn.completed", b"{}", True),
        ("turn.waiting", b"{}", True),
        ("turn.created", b"{}", False),
        ("turn.input", b"{}", False),
    ],
)
def test_what_closes_a_step(kind: str, data: bytes, expected: bool):
    """After these events no piece of an earlier base is worth anything."""
    assert closes(Event(5, kind, 2, 0, data)) == expected


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_cursor_is_read_as_it_was_written(seq: int, offset: int):
    """`17` and `17.240` come back as they were sent."""
    assert parse(str(Cursor(seq, offset))) == Cursor(seq, offset)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "01",
        "1.",
        ".1",
        "1.0",
        "1.01",
        "1 ",
        " 1",
        "1\n",
        "1.2.3",
        "x",
        "١",
        "9" * 11,
        "1." + "9" * 13,
        "\0",
    ],
)
def test_what_is_no_cursor(text: str):
    """There is one spelling of each position; anything else is refused."""
    with pytest.raises(Refused) as refused:
        parse(text)
    assert refused.value.code == "invalid_cursor"


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2))
def test_cursors_are_ordered(pairs: list[tuple[int, int]]):
    """By event, and inside an open step by offset."""
    assert [(c.seq, c.offset) for c in sorted(Cursor(*pair) for pair in pairs)] == sorted(pairs)


def test_text_of_a_streamed_item_counts_in_code_points():
    """A character outside the basic plane is one unit, as it is one code point."""
    assert len(text_of(message("𝄋", item_id="m"))) == 1
