"""The open step: what was shown is repeated in silence, grown, or closed; never taken back (design §5)."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core import item as items
from dalsegno.core.generation import Diverged, Generation
from dalsegno.core.item import text_of
from dalsegno.core.json import JsonObject
from dalsegno.core.stream import Piece

Said = list[tuple[str, list[str]]]
said: st.SearchStrategy[Said] = st.lists(
    st.tuples(
        st.sampled_from(["message", "reasoning", "tool a", "tool b"]), st.lists(st.text("ab𝄋", max_size=3), max_size=4)
    ),
    max_size=4,
)
paces = st.integers(1, 5)


def new(kind: str, number: int) -> JsonObject:
    if kind.startswith("tool"):
        return items.opened(items.call(f"call_{number}", kind, "", item_id=f"fc_{number}"))
    make = items.message if kind == "message" else items.reasoning
    return items.opened(make("", item_id=f"{kind}_{number}"))


class Speech:
    """A generation under way: every piece that was published, and the items that were closed on the way. What is new is
    published each time that so many parts were said.
    """

    def __init__(self, generation: Generation, *, pace: int = 1) -> None:
        self.generation = generation
        self.pieces: list[Piece] = []
        self.closed: list[JsonObject] = []
        self.diverged = 0
        self._pace = pace
        self._parts = 0

    def hear(self, diverged: Diverged | None) -> None:
        if diverged is not None:
            self.diverged += 1
            self.closed += diverged.items
            self.generation.restart(base=self.generation.base + len(diverged.items))
        self._parts += 1
        if self._parts % self._pace == 0:
            self.publish()

    def publish(self) -> None:
        self.pieces += self.generation.news()

    def say(self, what: Said, *, first: int = 0) -> "Speech":
        for number, (kind, texts) in enumerate(what, first):
            self.hear(self.generation.open(new(kind, number)))
            for text in texts:
                if text:
                    self.hear(self.generation.text(text))
        return self

    def finish(self) -> list[JsonObject]:
        made = self.generation.finish()
        if isinstance(made, Diverged):
            self.hear(made)
            made = self.generation.finish()
            assert not isinstance(made, Diverged)
        self.publish()
        return list(made)


def fresh(*, pace: int = 1) -> Speech:
    return Speech(Generation(turn=2, base=7), pace=pace)


def units(piece: Piece) -> int:
    return piece.end - piece.at


def parted(text: str, length: int) -> list[str]:
    return [text[first : first + length] for first in range(0, len(text), length)]


def texts(what: Said) -> list[str]:
    return ["".join(parts) for _, parts in what]


def assembled(pieces: Sequence[Piece]) -> dict[str, str]:
    """What a client puts together; the places must fit."""
    found: dict[str, str] = {}
    units = 0
    for piece in pieces:
        assert piece.at == units
        if piece.item is not None:
            found[piece.item_id] = ""
        else:
            assert piece.offset == len(found[piece.item_id])
            found[piece.item_id] += piece.delta
        units = piece.end
    return found


@given(said, paces)
def test_what_is_said_is_what_is_recorded(what: Said, pace: int):
    """The pieces add up to the items, and are no more than there is to tell."""
    speech = fresh(pace=pace).say(what)
    made = speech.finish()
    assert [text_of(item) for item in made] == texts(what)
    assert assembled(speech.pieces) == {str(item["id"]): text_of(item) for item in made}
    assert all(item["status"] == "completed" for item in made)
    assert all(piece.item is not None or piece.delta for piece in speech.pieces)
    assert not speech.generation.news()


def test_what_was_said_meanwhile_is_one_piece():
    """However many words there were: an item's beginning and its text are two."""
    speech = fresh(pace=100).say([("message", ["a", "b", "c"]), ("reasoning", ["d", "e"])])
    speech.publish()
    assert [(piece.at, piece.offset, piece.delta) for piece in speech.pieces] == [
        (0, 0, ""),
        (1, 0, "abc"),
        (4, 0, ""),
        (5, 0, "de"),
    ]
    speech.hear(speech.generation.text("f"))
    speech.hear(speech.generation.text("g"))
    speech.publish()
    assert (speech.pieces[-1].at, speech.pieces[-1].offset, speech.pieces[-1].delta) == (7, 2, "fg")


@given(said, paces, st.integers(0, 40), said)
def test_a_successor_goes_on_from_what_was_shown(what: Said, pace: int, kept: int, again: Said):
    """Whatever part was shown and whatever is said now: the record is what was said, and clients have exactly the
    record.
    """
    before = fresh(pace=pace).say(what).pieces[:kept]
    speech = Speech(Generation(turn=2, base=7, carried=before), pace=pace).say(again, first=100)
    made = speech.finish()
    assert [text_of(item) for item in made] == texts(again)
    assert [str(item["type"]) for item in made] == [
        "function_call" if kind.startswith("tool") else kind for kind, _ in again
    ]
    if not speech.diverged:
        assert assembled([*before, *speech.pieces]) == {str(item["id"]): text_of(item) for item in made}
        return
    shown = assembled(before)
    assert {str(item["id"]): text_of(item) for item in speech.closed}.items() >= shown.items()
    later = [piece for piece in speech.pieces if piece.base == 7 + len(speech.closed)]
    assert assembled(later) == {str(item["id"]): text_of(item) for item in made}
    assert all(item["status"] == "incomplete" for item in speech.closed)
    assert not {str(item["id"]) for item in speech.closed} & {str(item["id"]) for item in made}


@given(said, paces, st.integers(0, 40), st.integers(1, 7))
def test_a_repetition_is_silent(what: Said, pace: int, kept: int, length: int):
    """The same answer again, in parts of whatever length, shows only what had not been shown, under the names it was
    shown by.
    """
    first = fresh(pace=pace).say(what)
    first.publish()
    before = first.pieces[:kept]
    speech = Speech(Generation(turn=2, base=7, carried=before))
    speech.say([(kind, parted("".join(parts), length)) for kind, parts in what], first=100)
    made = speech.finish()
    assert speech.diverged == 0
    assert assembled([*before, *speech.pieces]) == {str(item["id"]): text_of(item) for item in made}
    assert [text_of(item) for item in made] == texts(what)
    assert sum(map(units, speech.pieces)) == sum(map(units, first.pieces[kept:]))


@given(said, said, paces)
def test_asking_again_is_like_taking_over(what: Said, again: Said, pace: int):
    """A model that failed and is asked again in the same attempt goes on from what it had said itself, whether it was
    out or not.
    """
    speech = fresh(pace=pace).say(what)
    speech.generation.ask("")
    made = speech.say(again, first=100).finish()
    assert [text_of(item) for item in made] == texts(again)
    last = [piece for piece in speech.pieces if piece.base == 7 + len(speech.closed)]
    assert assembled(last) == {str(item["id"]): text_of(item) for item in made}
    assert [text_of(item) for item in speech.closed] == (texts(what) if speech.diverged else [])


@given(said)
def test_what_is_abandoned_is_closed(what: Said):
    """All that was shown, and nothing else, becomes incomplete items."""
    speech = fresh().say(what)
    closed = speech.generation.abandon()
    assert [(text_of(item), item["status"]) for item in closed] == [(text, "incomplete") for text in texts(what)]


@pytest.mark.parametrize(
    ("shown", "again"),
    [
        ([("message", ["abc"])], [("message", ["abd"])]),
        ([("message", ["abc"])], [("message", ["ab"])]),
        ([("message", ["abc"])], [("reasoning", ["abc"])]),
        ([("message", ["abc"])], []),
        ([("message", ["abc"]), ("message", ["d"])], [("message", ["abcd"]), ("message", ["d"])]),
        ([("message", ["abc"]), ("message", ["d"])], [("message", ["abc"])]),
        ([("tool a", ["{}"])], [("tool b", ["{}"])]),
        ([("message", ["abc"])], [("message", ["ab"]), ("message", ["c"])]),
    ],
)
def test_another_answer_is_told_apart(shown: Said, again: Said):
    """An answer that is shorter, other, of another kind or otherwise divided is not a continuation."""
    before = fresh().say(shown).pieces
    speech = Speech(Generation(turn=2, base=7, carried=before)).say(again, first=100)
    speech.finish()
    assert speech.diverged == 1
    assert [text_of(item) for item in speech.closed] == texts(shown)


def test_a_call_keeps_the_name_it_was_shown_by():
    """The call id that clients saw is the one on record, so that the effect's key is derived from it."""
    before = fresh().say([("tool a", ["{"])]).pieces
    speech = Speech(Generation(turn=2, base=7, carried=before)).say([("tool a", ["{}"])], first=100)
    (made,) = speech.finish()
    assert (made["call_id"], made["id"]) == ("call_0", "fc_0")


@given(said, st.integers(0, 40), st.lists(st.text("ab𝄋", min_size=1, max_size=3), max_size=3))
def test_a_model_may_be_given_the_beginning_of_its_answer(what: Said, kept: int, rest: list[str]):
    """What it says then comes after what was shown: nothing is asked for twice, and nothing is closed. There is a
    beginning only where a message was being said.
    """
    before = fresh().say(what)
    shown = before.pieces[:kept]
    speech = Speech(Generation(turn=2, base=7, carried=shown))
    names = list(assembled(shown))
    prefix = speech.generation.prefix
    assert prefix == (assembled(shown)[names[-1]] if names and names[-1].startswith("message") else "")
    assert speech.generation.go_on() == bool(prefix)
    if prefix:
        for text in rest:
            speech.hear(speech.generation.text(text))
        made = speech.finish()
        assert speech.diverged == 0
        assert [item["id"] for item in made] == names
        assert text_of(made[-1]) == prefix + "".join(rest)
        assert assembled([*shown, *speech.pieces]) == {str(item["id"]): text_of(item) for item in made}
        assert not speech.generation.go_on()


@given(said, st.integers(1, 40), st.sampled_from(["model#1", "model#2"]))
def test_the_beginning_is_for_the_step_that_it_belongs_to(what: Said, kept: int, asked: str):
    """Whoever goes on with it names itself, so that the next one knows whose words they are by then."""
    first = Generation(turn=2, base=7)
    first.ask("model#1")
    shown = Speech(first).say(what).pieces[:kept]
    again = Generation(turn=2, base=7, carried=shown)
    again.ask(asked)
    if asked != "model#1":
        assert not again.prefix
    names = assembled(shown)
    grown = Speech(again).say(what, first=100).pieces
    last = Generation(turn=2, base=7, carried=[*shown, *grown])
    last.ask(asked)
    mine = bool(shown) and (asked == "model#1" or bool(grown))
    found = assembled([*shown, *grown])
    said_last = list(found)[-1] if found else ""
    assert last.prefix == (found[said_last] if mine and said_last.startswith("message") else "")
    assert sum(bool(piece.step) for piece in [*shown, *grown]) == (asked != "model#1" and bool(grown)) + bool(shown)
    assert list(found)[: len(names)] == list(names)


def test_words_are_labelled_with_the_step_that_said_them():
    """Also those that go out when another step has begun to repeat them; from where it says more, they are its."""
    speech = fresh(pace=100)
    speech.generation.ask("one")
    speech.say([("message", ["ab"])])
    speech.generation.ask("other")
    speech.publish()
    speech.say([("message", ["a"])], first=100)
    speech.publish()
    assert [(piece.delta, piece.step) for piece in speech.pieces] == [("", "one"), ("ab", "")]
    speech.hear(speech.generation.text("bc"))
    speech.publish()
    assert [(piece.delta, piece.step) for piece in speech.pieces[2:]] == [("c", "other")]
    for first, word in enumerate("xy", 3):
        speech.generation.ask("third")
        speech.say([("message", [word])], first=100 * first)
        speech.publish()
        assert [(piece.delta, piece.step) for piece in speech.pieces[-2:]] == [("", "third"), (word, "")]
    assert speech.diverged == 2
    speech.generation.ask("third")
    assert speech.generation.prefix == "y"
