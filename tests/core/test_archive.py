"""Laws of the archive: what was put away comes back as it was, or it is an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core.archive import SEGMENT_BYTES, Segment, cut, pack, parse_shelf, shelf_bytes, unpack
from dalsegno.core.event import TYPES, Event
from dalsegno.core.refs import Ref
from dalsegno.errors import Unreadable

REF = Ref("acme/ä", "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b")
OTHER = Ref("acme/ä", "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2c")

contents = st.tuples(
    st.sampled_from(sorted(TYPES)),
    st.none() | st.integers(1, 2**31),
    st.integers(0, 2**50),
    st.binary(max_size=200),
)


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    """Numbered from 1 on; an archive does not look at what the events say."""
    found = draw(st.lists(contents, min_size=1, max_size=30))
    return [Event(seq, kind, turn, at, data) for seq, (kind, turn, at, data) in enumerate(found, 1)]


def put_away(events: list[Event], *, size: int, epoch: int = 3) -> dict[Segment, bytes]:
    return dict(pack(REF, epoch, stretch) for stretch in cut(events, size=size))


@given(logs(), st.integers(1, 2000))
def test_what_was_put_away_comes_back(events: list[Event], size: int):
    """Cut, packed, listed, and all the way back: every event, byte for byte, in order."""
    objects = put_away(events, size=size)
    segments = parse_shelf(REF, shelf_bytes(list(objects)))
    assert list(segments) == list(objects)
    assert [event for one in segments for event in unpack(REF, one, objects[one])] == events


@given(logs(), st.integers(1, 2000))
def test_segments_are_as_long_as_they_should_be(events: list[Event], size: int):
    """Each but the last is `size` bytes or more, and would be less without its last event; none is empty."""
    stretches = list(cut(events, size=size))
    assert [event for stretch in stretches for event in stretch] == events
    weights = [[32 + len(event.data) for event in stretch] for stretch in stretches]
    assert all(sum(weight[:-1]) < size for weight in weights)
    assert all(sum(weight) >= size for weight in weights[:-1])


@given(logs(), st.data())
def test_damage_is_detected(events: list[Event], data: st.DataObject):
    """A byte that is not the one that was put, or a missing end, is an error."""
    ((segment, content),) = put_away(events, size=SEGMENT_BYTES).items()
    place = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(Unreadable):
        unpack(REF, segment, content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(Unreadable):
        unpack(REF, segment, content[:place])
    shelf = shelf_bytes([segment])
    place = data.draw(st.integers(0, len(shelf) - 1))
    with pytest.raises(Unreadable):
        parse_shelf(REF, shelf[:place] + bytes([shelf[place] ^ 1]) + shelf[place + 1 :])
    with pytest.raises(Unreadable):
        parse_shelf(REF, shelf[:place])


@given(logs())
def test_only_ones_own_archive_is_believed(events: list[Event]):
    """Not another session's segments, not other events than the shelf says, not a shelf with a gap."""
    ((segment, content),) = put_away(events, size=SEGMENT_BYTES).items()
    with pytest.raises(Unreadable):
        unpack(OTHER, segment, content)
    with pytest.raises(Unreadable):
        unpack(REF, Segment(segment.name, segment.first, segment.last + 1), content)
    with pytest.raises(Unreadable):
        parse_shelf(OTHER, shelf_bytes([segment]))
    after = Segment(segment.name, segment.last + 2, segment.last + 3)
    for wrong in ([], [after], [segment, after], [segment, segment]):
        with pytest.raises(Unreadable):
            parse_shelf(REF, shelf_bytes(wrong))


def test_what_a_newer_version_wrote_is_not_put_away():
    """An event of unknown type has lost its name here: whoever knows it could not understand it any more."""
    with pytest.raises(Unreadable):
        pack(REF, 1, [Event(1, "x.99", None, 0, b"{}")])


def test_the_epoch_is_in_the_name():
    """Segments put under two epochs are two objects."""
    events = [Event(1, "session.created", None, 0, b"{}")]
    (first, content), (second, same) = pack(REF, 1, events), pack(REF, 2, events)
    assert content == same and first.name != second.name
