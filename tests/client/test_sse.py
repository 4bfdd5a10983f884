"""The parser of event streams gives the same events however the bytes are cut."""

import re

from hypothesis import given
from hypothesis import strategies as st

from dalsegno.client import SseParser

WRITTEN = (
    b": a comment\nretry: 500\n\nid: 1\nevent: item.done\ndata: one\n\n"
    b"data: two\r\ndata:lines\r\n\r\n: again\r\rid: 2.7\rdata: \xc3\xa9\xe2\x82\xac\r\rdata\ndata: \n\n"
    b"id: 3\n\nid: bad\0\nunknown: x\ndata: {}\n\nid: 4\ndata: never finished\n"
)
READ = [("1", b"one"), ("1", b"two\nlines"), ("2.7", "é€".encode()), ("2.7", b"\n"), ("3", b"{}")]


def parsed(*chunks: bytes) -> list[tuple[str, bytes]]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def test_events_are_read_as_the_standard_says():
    """Comments, `retry`, unknown fields and events without data give nothing; ids stay; what has no end is no event."""
    assert parsed(WRITTEN) == READ


def test_one_cut_changes_nothing():
    """Every place where a stream can be cut in two, between the bytes of a character and inside \\r\\n too."""
    for place in range(len(WRITTEN) + 1):
        assert parsed(WRITTEN[:place], WRITTEN[place:]) == READ, place
    assert parsed(*(bytes([byte]) for byte in WRITTEN)) == READ


@given(
    st.lists(st.sampled_from([b"data: x", b"data:", b"id: 1", b":", b"\n", b"\r", b"\r\n", b""]), max_size=30),
    st.data(),
)
def test_any_cuts_change_nothing(pieces: list[bytes], data: st.DataObject):
    """Whatever was written and however it is cut, the events are those of the whole."""
    whole = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert parsed(*chunks) == parsed(whole)


@given(st.lists(st.tuples(st.integers(1, 99), st.text(max_size=20)), max_size=5), st.sampled_from(["\n", "\r", "\r\n"]))
def test_what_was_written_is_read(events: list[tuple[int, str]], newline: str):
    """Lines of an event come back as they were, with any of the three line ends."""
    events = [(number, re.sub("[\r\n]", "", text)) for number, text in events]
    raw = "".join(f"id: {number}{newline}data: {text}{newline}{newline}" for number, text in events).encode()
    assert parsed(raw) == [(str(number), text.encode()) for number, text in events]
