"""Names: spelled in one way, derived from the log, found again from their own text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core.ids import effect_key, hash16, item_id, parse_session_id, short_hash, turn_id, turn_number
from dalsegno.errors import Refused

SESSION = "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b"
sessions = st.uuids().map(str)


@given(sessions, st.integers(1, 2**32 - 1))
def test_a_turn_is_found_by_its_id(session: str, first: int):
    """The id holds the turn's first event; nothing has to be stored to find it, in any spelling of case."""
    name = turn_id(session, first)
    assert parse_session_id(name) == name
    assert name[14] == "8"
    assert name[19] in "89ab"
    assert turn_number(session, name) == turn_number(session, name.upper()) == first


@given(sessions, sessions, st.integers(1, 10**6))
def test_another_sessions_turn_is_no_turn(one: str, other: str, first: int):
    """A turn id of one session names nothing in another (P11)."""
    assert (turn_number(other, turn_id(one, first)) == first) == (one == other)


@given(st.text(max_size=40))
def test_no_text_is_a_turn_by_accident(text: str):
    """Anything that is not one of the session's turn ids is None, and never an error."""
    assert turn_number(SESSION, text) is None


@given(sessions, st.integers(1, 1000), st.integers(1, 1000))
def test_a_turn_with_another_number_is_no_turn(session: str, first: int, other: int):
    """The number in an id cannot be exchanged."""
    forged = turn_id(session, first)[:-8] + f"{other:08x}"
    assert (turn_number(session, forged) == other) == (first == other)


@pytest.mark.parametrize(
    ("text", "expected"), [(SESSION, SESSION), (SESSION.upper(), SESSION), (SESSION.replace("-", ""), SESSION)]
)
def test_a_session_has_one_spelling(text: str, expected: str):
    """Upper case and missing dashes are the same session."""
    assert parse_session_id(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        SESSION + "0",
        SESSION[:-1],
        SESSION.replace("-", "_"),
        f" {SESSION}",
        SESSION + "\n",
        "g" * 32,
        "٠" * 32,
    ],
)
def test_what_is_no_session(text: str):
    """Nothing else is a session id."""
    with pytest.raises(Refused) as refused:
        parse_session_id(text)
    assert refused.value.code == "invalid_request"


KINDS = {"message": "msg_", "function_call": "fc_", "function_call_output": "fco_", "reasoning": "rs_", "other": "it_"}


@pytest.mark.parametrize(("kind", "prefix"), list(KINDS.items()))
def test_items_are_named_by_kind_turn_and_place(kind: str, prefix: str):
    """Two items of a session never share a name."""
    name = item_id(turn_id(SESSION, 17), kind, "2.1")
    assert name.startswith(prefix)
    assert name.endswith("11_2.1")
    assert name != item_id(turn_id(SESSION, 18), kind, "2.1") != item_id(turn_id(SESSION, 18), kind, "2.2")


@given(st.lists(st.tuples(*[st.text(max_size=4)] * 4), min_size=2, max_size=2, unique=True))
def test_effect_keys_differ(calls: list[tuple[str, str, str, str]]):
    """Each recorded decision has a key of its own, wherever the borders between its names lie (law 5)."""
    one, other = calls
    assert effect_key(*one) != effect_key(*other)
    assert effect_key(*one) == effect_key(*one)
    assert len(effect_key(*one)) == 22


@given(st.lists(st.one_of(st.text(max_size=5), st.binary(max_size=5)), max_size=4))
def test_hashes_are_of_parts(parts: list[str | bytes]):
    """Borders count; text counts as its UTF-8, lone surrogates included."""
    assert hash16(*parts) != hash16(*parts, "")
    assert len(hash16(*parts)) == 16
    assert short_hash(*parts).replace("-", "").replace("_", "").isalnum()


def test_keys_are_the_same_for_ever():
    """A successor of a newer version sends the key that the dead replica sent."""
    assert effect_key("acme", SESSION, turn_id(SESSION, 2), "call_1") == "0gX5Cd3Zja5RPwHXApQiVA"
