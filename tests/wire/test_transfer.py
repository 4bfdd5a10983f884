"""Export and import: a log as lines, and back, believing nothing."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core.event import Event
from dalsegno.core.ids import turn_id
from dalsegno.errors import Refused
from dalsegno.wire.transfer import Import, export_line

S = "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b"
ITEM = b'{"type":"message","id":"m","role":"assistant","status":"completed","content":[]}'
LOG = [
    Event(1, "session.created", None, 1_795_000_000_000, b'{"user":"\xc2\x80","metadata":{"a":1.5}}'),
    Event(2, "turn.created", 2, 1_795_000_000_001, b'{"input":{"type":"message","content":"hi"},"key":"k"}'),
    Event(3, "turn.started", 2, 1_795_000_000_002, b'{"attempt":1,"epoch":1,"carried":0}'),
    Event(4, "turn.input", 2, 1_795_000_000_003, b'{"input":{"type":"cancel","hide":true}}'),
    Event(5, "item.done", 2, 1_795_000_000_004, b'{"item":' + ITEM + b',"streamed":true}'),
    Event(6, "turn.cancelled", 2, 1_795_000_000_005, b'{"by":"client","hidden":true}'),
    Event(7, "session.updated", None, 1_795_000_000_999, b'{"metadata":{}}'),
]


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in exported()]


def exported() -> list[bytes]:
    return [export_line(S, event, head=len(LOG)) for event in LOG]


def read(rows: list[dict[str, Any]]) -> list[Event]:
    reading = Import()
    for row in rows:
        reading.line(json.dumps(row).encode())
    return reading.done()


def test_an_export_is_one_event_a_line():
    """The event's JSON, as every other route shows it. A line that others follow begins with a space."""
    assert exported()[0] == (
        b' {"seq":1,"type":"session.created","turn":null,"at":"2026-11-18T11:06:40.000Z",'
        b'"data":{"user":"\xc2\x80","metadata":{"a":1.5}}}\n'
    )
    assert exported()[-1].startswith(b'{"seq":7,')


def test_what_is_exported_is_imported_as_it_was():
    """Numbers, times and bytes; internal fields too."""
    reading = Import()
    for line in exported():
        reading.line(line)
    assert reading.done() == LOG


@given(st.data())
def test_an_export_that_was_cut_off_is_no_shorter_session(data: st.DataObject):
    """Wherever it was cut, also between two lines: the file says that there was more."""
    whole = b"".join(exported())
    reading = Import()
    with pytest.raises(Refused, match="line"):
        for line in whole[: data.draw(st.integers(0, len(whole) - 3))].split(b"\n"):
            if line.strip():
                reading.line(line)
        reading.done()


def test_the_spelling_of_the_json_does_not_matter():
    """Spaces and escapes of another writer end up as our own bytes."""
    assert read(lines()) == LOG


CHANGES: list[tuple[int, dict[str, Any], str]] = [
    (1, {"seq": 3}, "`seq`"),
    (1, {"seq": "2"}, "seq"),
    (1, {"turn": None}, "belongs to a turn"),
    (1, {"turn": turn_id(S, 3)}, "`turn`"),
    (1, {"turn": "2"}, "`turn`"),
    (2, {"turn": turn_id(S.replace("0198", "0199"), 2)}, "`turn`"),
    (1, {"type": "session.created"}, "cannot stand here"),
    (1, {"type": "turn.begun"}, "cannot stand here"),
    (1, {"data": {}}, "input"),
    (1, {"data": {"input": {"type": "message"}}}, "exactly one"),
    (1, {"data": {"input": {"type": "message", "content": "x"}, "key": "ä"}}, "idempotency key"),
    (1, {"at": "2026-11-20 10:06:40.000Z"}, "`at`"),
    (1, {"at": "1969-11-20T10:06:40.000Z"}, "`at`"),
    (2, {"type": "turn.completed", "data": {"usage": None}}, "cannot follow"),
    (3, {"data": {"input": {"type": "message", "items": [{"type": "function_call"}]}}}, "call_id"),
    (4, {"data": {"item": {"type": "message", "role": "assistant"}}}, "id"),
    (4, {"data": {"item": {"id": "x"}}}, "type"),
    (4, {"data": {"item": {"type": "function_call", "id": "x"}}}, "call_id"),
    (4, {"data": {"item": {"type": "dalsegno:inside", "id": "x", "call_id": "c"}}}, "item.type"),
    (4, {"data": {"item": {"type": "dalsegno:inside", "id": "x", "item": {"type": "message", "id": "y"}}}}, "call_id"),
    (4, {"data": {"item": {"type": "dalsegno:inside", "id": "x", "call_id": "c", "item": {"type": "message"}}}}, "id"),
    (6, {"turn": turn_id(S, 2)}, "`turn`"),
    (0, {"data": {"metadata": {"a": "x" * 16 * 1024}}}, "`metadata` is larger"),
    (6, {"data": {"metadata": {"a": "x" * 16 * 1024}}}, "`metadata` is larger"),
    (0, {"data": {"user": "x" * 257}}, "length"),
    (0, {"data": {"agent": "a\n"}}, "regex"),
    (6, {"extra": 1}, "extra"),
]


@pytest.mark.parametrize(("index", "change", "says"), CHANGES)
def test_a_changed_line_is_refused_by_its_number(index: int, change: dict[str, Any], says: str):
    """The line that is wrong is named, and what is wrong with it."""
    rows = lines()
    rows[index].update(change)
    with pytest.raises(Refused, match=f"line {index + 1}: .*{says}"):
        read(rows)


def test_a_missing_line_is_noticed():
    """A log has no gaps."""
    rows = lines()
    del rows[4]
    with pytest.raises(Refused, match="line 5"):
        read(rows)


def test_a_deleted_session_stays_deleted():
    """Its last event cannot be brought back as a session."""
    gone = {"seq": 8, "type": "session.deleted", "turn": None, "at": "2026-11-21T00:00:00.000Z", "data": {}}
    with pytest.raises(Refused, match="deleted"):
        read([*lines(), gone])


@given(st.data())
def test_any_damage_is_a_refusal_or_a_log(data: st.DataObject):
    """Whatever is done to an export, reading it fails in one way only."""
    text = b"".join(exported())
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.binary(max_size=3)) + text[at + data.draw(st.integers(0, 5)) :]
    reading = Import()
    try:
        for line in damaged.split(b"\n"):
            if line.strip():
                reading.line(line)
        reading.done()
    except Refused:
        pass
