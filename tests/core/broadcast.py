"""A session's stream as it can happen: what is generated, shown, lost, carried on and recorded, in one timeline.

A program drives the real `Generation`; replicas die, keeping as much of what they showed as a hot tier happened to get.
The result is what all composers of the world are fed with: `timeline`, in order, and `hot`, the pieces of the open step
that can be read at each moment.
"""

from collections.abc import Sequence

import msgspec
from hypothesis import strategies as st

from dalsegno.core import item as items
from dalsegno.core.append import Draft, record
from dalsegno.core.event import (
    Data,
    Event,
    ItemDone,
    SessionCreated,
    TurnCompleted,
    TurnCreated,
    TurnInput,
    TurnStarted,
)
from dalsegno.core.generation import Diverged, Generation
from dalsegno.core.input import Message
from dalsegno.core.session import Session
from dalsegno.core.stream import Composer, Frame, Piece
from tests.core.walk import SESSION, TENANT

OPERATIONS = (
    "open",
    "open",
    "text",
    "text",
    "text",
    "text",
    "text",
    "finish",
    "finish",
    "input",
    "die",
    "retry",
    "whole",
    "end",
)
WORDS = ("a", "bc", "déf", "𝄋 dal segno", "ghi j")
Program = list[tuple[str, int]]
programs: st.SearchStrategy[Program] = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 9)), max_size=40
).map(lambda program: [("open", 0), ("text", 1), *program])


class Moment(msgspec.Struct, frozen=True):
    """Something that readers can see: an event, or a piece; and what the hot tier held after it."""

    what: Event | Piece
    hot: tuple[Piece, ...]


class Broadcast:
    """One turn after another, all of them streamed."""

    def __init__(self) -> None:
        self.session = Session(id=SESSION, tenant=TENANT)
        self.events: list[Event] = []
        self.timeline: list[Moment] = []
        self.hot: list[Piece] = []
        self.count = self.turn = self.epoch = 0
        self.generation: Generation | None = None
        self.kinds: list[int] = []
        self.said: list[str] = []
        self.write(SessionCreated())
        self.begin()

    def play(self, program: Program) -> "Broadcast":
        for name, number in program:
            getattr(self, f"_{name}")(number)
        return self

    def write(self, *data: Data, turn: int | None = None) -> None:
        """One commit."""
        drafts = [Draft(one, 0 if isinstance(one, TurnCreated) else turn) for one in data]
        self.session, events = record(self.session, drafts, len(self.events))
        self.events += events
        if any(isinstance(one, ItemDone) and one.streamed for one in data):
            self.hot = []
        self.timeline += [Moment(event, tuple(self.hot)) for event in events]

    def show(self, diverged: Diverged | None) -> None:
        """Publish, or close what was shown before and begin again."""
        assert self.generation is not None
        if diverged is not None:
            closed = [ItemDone(item, streamed=True) for item in diverged.items]
            self.write(*closed, turn=self.turn)
            self.generation.restart(base=self.session.head)
        for piece in self.generation.news():
            self.hot = [*self.hot, piece] if not self.hot or piece.base == self.hot[0].base else [piece]
            self.timeline.append(Moment(piece, tuple(self.hot)))

    def begin(self) -> None:
        self.epoch += 1
        self.write(TurnCreated(Message("go")))
        self.turn = self.session.head
        self.write(TurnStarted(1, self.epoch, 0), turn=self.turn)

    def _new(self, number: int) -> dict:
        self.count += 1
        name = f"it_{self.epoch}.{self.count}"
        kinds = (
            items.message("", item_id=name),
            items.reasoning("", item_id=name),
            items.call(f"call_{self.count}", "tool", "", item_id=name),
        )
        return items.opened(kinds[number % 3])

    def _open(self, number: int) -> None:
        if self.generation is None:
            self.generation = Generation(turn=self.turn, base=self.session.head)
            self.said = []
        self.said.append("")
        self.kinds = [*self.kinds[: len(self.said) - 1], number % 3]
        self.show(self.generation.open(self._new(number)))

    def _text(self, number: int) -> None:
        if self.generation is not None and self.said:
            self.show(self.generation.text(WORDS[number % len(WORDS)]))
            self.said[-1] += WORDS[number % len(WORDS)]

    def _finish(self, number: int) -> None:
        if self.generation is None or not self.said:
            return
        made = self.generation.finish()
        if isinstance(made, Diverged):
            self.show(made)
            made = self.generation.finish()
            assert not isinstance(made, Diverged)
        assert [items.text_of(item) for item in made] == self.said
        step = f"model#{self.count}"
        self.write(*(ItemDone(item, step=step, streamed=True) for item in made), turn=self.turn)
        self.generation, self.said = None, []

    def _input(self, number: int) -> None:
        if number % 2:
            self.write(TurnCreated(Message("next")))
        else:
            self.write(TurnInput(Message("more", on_busy="steer")), turn=self.turn)

    def _die(self, number: int) -> None:
        """The replica dies; the hot tier has the beginning of what was shown, and the next replica is asked anew."""
        shown = list(zip(self.kinds, self.said, strict=False))
        kept = self.hot[: len(self.hot) - number % 4] if number < 8 else []
        carried = kept[-1].end if kept else 0
        self.epoch += 1
        self.hot = kept
        self.write(TurnStarted(self.epoch, self.epoch, carried), turn=self.turn)
        self.generation = Generation(turn=self.turn, base=kept[0].base, carried=kept) if kept else None
        self.said = []
        self._say_again(shown, number)

    def _retry(self, number: int) -> None:
        """The model fails and is asked again in the same attempt."""
        if self.generation is not None:
            shown, self.said = list(zip(self.kinds, self.said, strict=False)), []
            self.generation.ask("")
            self._say_again(shown, number)

    def _say_again(self, shown: Sequence[tuple[int, str]], number: int) -> None:
        """The same words, in other pieces; for odd numbers not all of them."""
        for kind, text in shown:
            self._open(kind)
            self.said[-1] = text if number % 2 == 0 else text[: number % 5]
            if self.said[-1]:
                assert self.generation is not None
                self.show(self.generation.text(self.said[-1]))

    def _whole(self, number: int) -> None:
        """A producer beside the model writes an item that was never streamed."""
        self.count += 1
        self.write(ItemDone(items.message("beside", item_id=f"it_{self.count}")), turn=self.turn)

    def _end(self, number: int) -> None:
        left = [] if self.generation is None else self.generation.abandon()
        self.write(*(ItemDone(item, streamed=True) for item in left), TurnCompleted(None), turn=self.turn)
        self.generation, self.said = None, []
        self.hot = []
        self.begin()


def composed(moments: Sequence[Moment], *, composer: Composer) -> list[Frame]:
    """The frames of a reader who is fed these moments as they come."""
    frames: list[Frame] = []
    for moment in moments:
        if isinstance(moment.what, Piece):
            frames += composer.live([moment.what])
        elif not composer.ended:
            frames += composer.durable(moment.what)
    return frames
