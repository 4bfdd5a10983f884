"""What differs, and what that says: laws."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.ops.check.compare import Facts, Path, canonical, changed, detours, differences, leaves, neutral

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.tuples(st.integers(1, 3), st.sampled_from(["context", "request", "said", "call"]), st.text(max_size=3))
FACTS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=5)


@given(FACTS, FACTS)
def test_equal_plays_have_no_differences(facts, control):
    """Whatever the control came to."""
    assert differences(facts, [control], dict(facts)) == []


@given(FACTS, st.data())
def test_a_planted_difference_is_found_and_blamed_on_the_process(facts, data):
    """In any fact, at any place, if the controls agree with the first play."""
    name = data.draw(st.sampled_from(sorted(facts, key=repr)))
    place = data.draw(st.sampled_from([at for at, _ in leaves(facts[name])]))
    fresh = {**facts, name: planted(facts[name], place)}
    (found,) = differences(facts, [facts, facts], fresh)
    assert (found.turn, found.kind, found.name, found.verdict) == (*name, "process")
    assert found.diff


@given(FACTS, st.data())
def test_what_differs_in_a_control_is_not_blamed_on_the_process(facts, data):
    """The same difference everywhere: something that the first play left. Another one: chance."""
    name = data.draw(st.sampled_from(sorted(facts, key=repr)))
    place = data.draw(st.sampled_from([at for at, _ in leaves(facts[name])]))
    once, twice = ({**facts, name: planted(facts[name], place, mark)} for mark in ("once", "twice"))
    assert [found.verdict for found in differences(facts, [once, once], once)] == ["elsewhere"]
    assert [found.verdict for found in differences(facts, [once, facts], twice)] == ["chance"]


def test_a_clock_beside_a_counter_does_not_hide_it():
    """Each place in a value is judged by itself."""

    def facts(at: int, count: int) -> Facts:
        return {(1, "request", "r"): {"at": at, "count": count}}

    first, again, fresh = facts(1, 2), facts(5, 2), facts(9, 1)
    (found,) = differences(first, [again], fresh)
    assert (found.verdict, found.at) == ("process", "count")


@given(VALUES, VALUES)
def test_changes_are_where_two_values_differ(one, other):
    """None exactly if they are the same JSON."""
    same = msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
    assert bool(changed(one, other)) == (not same)


@given(VALUES)
def test_names_made_anew_are_no_difference(value):
    """Whatever stands around them; and leaving them out twice is leaving them out."""
    one, other = ({"value": value, "id": f"msg_0123456789ab3_{epoch}_1"} for epoch in (1, 7))
    assert neutral(one) == neutral(other) == neutral(neutral(one))


def test_steps_of_a_graph_have_the_same_names_in_every_play():
    """By the order in which they come; all others keep theirs."""
    one = canonical(["model@chat.pnFpalz5K_#1", "say#1", "model@chat.fx3h9LIgIf#1", "model@tools.fx3h9LIgIf#1"])
    assert one == ["model@chat#1", "say#1", "model@chat#2", "model@tools#1"]
    assert canonical(["a@b.c#1", "a#2"]) == ["a@b.c#1", "a#2"]


def test_a_way_that_is_not_found_again_is_a_detour():
    """A step nobody asks for again, other steps, or no end; and not what only the controls did otherwise."""
    was = Path(("a#1", "say#1"))
    assert not detours([was], [[Path(("b#1",))]], [was])
    for now in (Path(("a#1", "b#1", "say#1"), unasked=("b#1",)), Path(("b#1",)), Path(("a#1",), endless=True)):
        (found,) = detours([was], [[was]], [now])
        assert found.kind == "path" and found.words
    assert not detours([was], [[was]], [Path(("a#1",), status="failed")])


def planted(value, place, mark="planted"):
    """The value with another leaf at that place."""
    if not place:
        return [value, mark]
    first, *rest = place
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[first] = planted(copy[first], rest, mark)
    return copy
