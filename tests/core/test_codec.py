"""Event ↔ bytes: round trips, older versions, unknown types, damage (P9, law 10)."""

import msgspec
import pytest
from hypothesis import given

from dalsegno.core import codec
from dalsegno.core.append import Draft
from dalsegno.core.event import TYPES, Event, ItemDone, Unknown
from dalsegno.core.json import JsonObject
from dalsegno.errors import Unreadable
from tests.core.walk import Program, played, programs


@given(programs)
def test_what_is_written_is_read(program: Program):
    """Decoding and encoding an event gives the same bytes, so a checksum over them stays."""
    for event in played(program).events:
        data = codec.decode(event)
        assert not isinstance(data, Unknown)
        assert codec.encode(data) == event.data
        assert codec.type_of(data) == event.type


@pytest.mark.parametrize("kind", list(TYPES))
def test_numbers_name_types(kind: str):
    """The number that a store keeps leads back to the type."""
    assert codec.name_of(codec.number_of(kind)) == kind


def test_numbers_are_never_changed():
    """A log that is written today is read for ever: these numbers are history."""
    assert {name: number for name, (number, _) in TYPES.items()} == {
        "session.created": 1,
        "session.updated": 2,
        "session.deleted": 3,
        "turn.created": 4,
        "turn.input": 5,
        "turn.started": 6,
        "item.done": 7,
        "tool.intent": 8,
        "turn.waiting": 9,
        "turn.completed": 10,
        "turn.failed": 11,
        "turn.cancelled": 12,
        "context.summarized": 13,
        "session.moved": 14,
        "session.settled": 15,
        "items.removed": 16,
        "turn.undoing": 17,
        "tool.undone": 18,
    }


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"attempt":"one"}', b"[" * 100_000])
def test_damage_is_unreadable(data: bytes):
    """Bytes that do not fit their type are an error and never a default."""
    with pytest.raises(Unreadable):
        codec.decode(Event(3, "turn.started", 2, 0, data))


def test_a_field_of_a_newer_version_is_passed_over():
    """A reader takes what it knows; the bytes that it passes on are the ones that were stored."""
    event = Event(3, "turn.started", 2, 0, b'{"attempt":1,"epoch":2,"carried":0,"mood":"fine"}')
    assert not isinstance(codec.decode(event), Unknown)


def test_an_unknown_type_is_read_and_not_written():
    """A reader passes a newer type through under a name of its own; a writer refuses it."""
    name = codec.name_of(99)
    assert codec.decode(Event(3, name, 2, 0, b"{}")) == Unknown(name)
    with pytest.raises(Unreadable):
        codec.number_of(name)


def test_old_versions_are_upcast_step_by_step():
    """Version 1 goes through both steps, version 2 through one, today's bytes are left alone."""
    table: dict[int, codec.Upcaster] = {
        1: lambda kind, value: {**value, "two": kind},
        2: lambda kind, value: {**value, "three": True},
    }
    assert msgspec.json.decode(codec.upcast("x", 1, b'{"one":1}', table)) == {"one": 1, "two": "x", "three": True}
    assert msgspec.json.decode(codec.upcast("x", 2, b'{"one":1}', table)) == {"one": 1, "three": True}
    assert codec.upcast("x", 3, b'{ "one": 1 }', table) == b'{ "one": 1 }'


@pytest.mark.parametrize("version", [-1, 0, codec.VERSION + 1, 99])
def test_a_version_from_the_future_is_unreadable(version: int):
    """This replica does not guess what a newer one meant."""
    with pytest.raises(Unreadable):
        codec.upcast("turn.started", version, b"{}")


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff"])
def test_damaged_old_bytes_are_unreadable(data: bytes):
    """Upcasting meets damage before decoding does; it is the same error."""
    with pytest.raises(Unreadable):
        codec.upcast("x", 1, data, {1: lambda kind, value: value})


def test_there_is_an_upcaster_for_every_version_before_todays():
    """Raising the version without its upcaster would make old logs unreadable."""
    assert sorted(codec.UPCASTERS) == list(range(1, codec.VERSION))


def test_a_flipped_bit_changes_the_checksum():
    """One bit is enough."""
    data = b'{"attempt":1}'
    assert codec.checksum(data) != codec.checksum(bytes([data[0] ^ 1]) + data[1:])


@pytest.mark.parametrize("value", [object(), "half \ud800"])
def test_what_no_log_can_hold_is_an_error_of_who_drafts_it(value: object):
    """And not of whoever writes it, beside the drafts of others."""
    with pytest.raises((TypeError, ValueError)):
        Draft(ItemDone({"type": "message", "content": value}))  # type: ignore[dict-item]


def test_a_draft_is_what_was_said_when_it_was_made():
    """What becomes of the item later is not in the log."""
    item: JsonObject = {"type": "message", "content": "a"}
    draft = Draft(ItemDone(item), turn=1)
    item["content"] = "b"
    assert draft.body == codec.encode(ItemDone({"type": "message", "content": "a"}))
