"""Effects, tiers and parts: the small tables of the core."""

import hashlib
import itertools
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core.effect import RECOVERY, Recovery, UnknownPolicy, dedupe_digest, recovery
from dalsegno.core.event import EffectClass
from dalsegno.core.item import output
from dalsegno.core.part import add_usage
from dalsegno.core.tier import Artifact, parse_artifact, spill_item
from tests.core.walk import SESSION

CLASSES = typing.get_args(EffectClass)
POLICIES = typing.get_args(UnknownPolicy)


@pytest.mark.parametrize(("effect", "policy"), list(itertools.product(CLASSES, POLICIES)))
def test_only_what_is_safe_runs_again(effect: EffectClass, policy: UnknownPolicy):
    """After a crash `once` follows its policy and never runs by itself; all others run again (P7)."""
    assert recovery(effect, policy) == (policy if effect == "once" else "again")
    assert recovery(effect, policy) in typing.get_args(Recovery)


def test_every_class_has_a_line():
    """A new class of effects needs a decision about crashes first."""
    assert set(RECOVERY) == set(CLASSES)


@given(st.dictionaries(st.text(max_size=3), st.integers(-(2**53), 2**53), max_size=4))
def test_a_call_is_recognised_by_what_it_asks(arguments: dict[str, Any]):
    """The order of arguments does not matter, nor how a number is written; the tool does."""
    assert dedupe_digest("t", arguments) == dedupe_digest("t", dict(reversed(arguments.items())))
    assert dedupe_digest("t", arguments) != dedupe_digest("u", arguments)
    assert dedupe_digest("t", {"n": 1}) == dedupe_digest("t", {"n": 1.0})


@pytest.mark.parametrize("number", [2**53, 1_234_567_890_123_456_789, 2**63 - 2])
def test_neighbours_are_not_one_call(number: int):
    """An id of 64 bits is not taken for the next one, though both are the same double."""
    assert float(number) == float(number + 1)
    assert dedupe_digest("t", {"id": number}) != dedupe_digest("t", {"id": number + 1})
    assert dedupe_digest("t", {"id": 10**22}) == dedupe_digest("t", {"id": 1e22})


@pytest.mark.parametrize(
    ("text", "spills"), [("", False), ("x" * 100, False), ("x" * 101, True), ("𝄋" * 25, False), ("𝄋" * 26, True)]
)
def test_a_large_output_leaves_a_pointer(text: str, spills: bool):
    """The bound is in bytes; what goes to cold storage is the whole text, under its hash."""
    item = output("c", text, item_id="fco_1")
    spill = spill_item(SESSION, 7, item, inline_max=100)
    assert (spill is not None) == spills
    if spill is not None:
        assert spill.payload.decode() == text
        assert spill.artifact.sha256 == hashlib.sha256(spill.payload).hexdigest()
        assert parse_artifact(str(spill.artifact)) == spill.artifact
        assert spill.kept["artifact"] == {
            "id": str(spill.artifact),
            "bytes": len(spill.payload),
            "characters": len(text),
        }
        assert str(spill.kept["output"]).startswith(text[:2000])
        assert {name: spill.kept[name] for name in item if name != "output"} == {
            name: item[name] for name in item if name != "output"
        }


@pytest.mark.parametrize(
    "text",
    ["", "x", SESSION, f"{SESSION}.", f"{SESSION}.{'g' * 64}", f"{SESSION}.{'a' * 63}", f"../{SESSION}.{'a' * 64}"],
)
def test_what_is_no_artifact(text: str):
    """Nothing that could leave the session's own place is a pointer."""
    assert parse_artifact(text) is None


def test_an_artifact_has_one_spelling():
    """Its id is what `str` gives."""
    artifact = Artifact(SESSION, 3, "a" * 64)
    assert parse_artifact(str(artifact)) == artifact


@pytest.mark.parametrize(
    ("total", "more", "expected"),
    [
        (None, None, None),
        (None, {"a": 1}, {"a": 1}),
        ({"a": 1}, None, {"a": 1}),
        ({"a": 1, "m": "x"}, {"a": 2, "b": 1, "m": "y"}, {"a": 3, "b": 1, "m": "y"}),
        ({"a": 1}, {"a": 0.5}, {"a": 1.5}),
    ],
)
def test_usage_adds_up(total, more, expected):
    """Numbers are summed, other things replaced, and nothing is changed in place."""
    before = None if total is None else dict(total)
    assert add_usage(total, more) == expected
    assert total == before
