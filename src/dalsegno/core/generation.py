"""The open step while it is being generated: what clients were shown, and what the model says now.

When a replica dies in the middle of an answer its successor asks the model again. What was shown is a prefix that
cannot be taken back, so the new answer is held back while it repeats that prefix and goes on where it grows beyond
it. When it says something else, the caller closes the old items as incomplete and the new answer begins as new items
(design §5).
"""

from collections.abc import Iterable

import msgspec

from dalsegno.core.item import CALL, FIELD_OF, MESSAGE, closed
from dalsegno.core.json import JsonObject
from dalsegno.core.stream import Piece


class Diverged(msgspec.Struct, frozen=True):
    """The new answer is not the one that was shown: close these items as incomplete, then `restart`."""

    items: tuple[JsonObject, ...]


class _Item:
    """An item as opened, and its text so far."""

    def __init__(self, item: JsonObject) -> None:
        self.item = item
        self.id = str(item["id"])
        self.field = FIELD_OF.get(str(item["type"]), "text")
        self.length = 0
        self._known: list[str] = []
        self._fresh: list[str] = []

    def add(self, text: str) -> None:
        self._fresh.append(text)
        self.length += len(text)

    def news(self) -> str:
        """The text since the last call."""
        fresh = "".join(self._fresh)
        if fresh:
            self._known.append(fresh)
            self._fresh = []
        return fresh

    def text(self) -> str:
        if len(self._known) > 1:
            self._known = ["".join(self._known)]
        return "".join((*self._known, *self._fresh))


class Generation:
    """One open step's stream. Give it what the model says; it knows what is to be published of that, and recorded."""

    def __init__(self, *, turn: int, base: int, carried: Iterable[Piece] = ()) -> None:
        self.base = base
        self._turn = turn
        self._shown: list[_Item] = []
        self._made = self._shown
        """What the model says: a list of its own only as long as it repeats what was shown."""
        self._units = 0
        """How many units of the step are published."""
        self._asked = self._step = self._labelled = ""
        """The step that the model was asked for last; that which said what was shown last; that which pieces told."""
        for piece in carried:
            if piece.item is not None:
                self._shown.append(_Item(piece.item))
            else:
                self._shown[-1].add(piece.delta)
                self._shown[-1].news()
            self._units = piece.end
            self._step = self._labelled = piece.step or self._step
        self._told = len(self._shown)
        """How many items are published, the last one perhaps in part."""
        self.ask(self._asked)

    def news(self) -> tuple[Piece, ...]:
        """What is to be published, since the last call: of each item, its beginning and what its text has grown by."""
        pieces: list[Piece] = []
        first = max(self._told - 1, 0)
        for place, shown in enumerate(self._shown[first:], first):
            if place == self._told:
                self._told += 1
                pieces.append(self._piece(shown, None))
            delta = shown.news()
            if delta:
                pieces.append(self._piece(shown, delta))
        return tuple(pieces)

    def ask(self, step: str) -> None:
        """The model is asked, in the step of that label. If it is asked again, what it said so far is a prefix like any
        other.
        """
        self._asked = step
        self._made = [] if self._shown else self._shown

    @property
    def made(self) -> int:
        """How many items the model has begun since it was asked."""
        return len(self._made)

    @property
    def prefix(self) -> str:
        """The text that was shown of a message which the model may be asked to go on with; of another step, none."""
        if self._made is self._shown or self._step != self._asked:
            return ""
        last = self._shown[-1]
        return last.text() if last.item["type"] == MESSAGE else ""

    def go_on(self) -> bool:
        """The model was given `prefix` and says what comes after it; False: there is none."""
        if not self.prefix or self._made:
            return False
        self._made = self._shown
        return True

    def open(self, item: JsonObject) -> Diverged | None:
        """A new item begins; `item` is empty and carries the id it is to have."""
        if self._made is not self._shown:
            place = len(self._made)
            complete = not place or self._made[-1].length == self._shown[place - 1].length
            if not complete or place < len(self._shown):
                self._made.append(_Item(item))
                return None if complete and _alike(self._shown[place].item, item) else self._diverge()
            self._made = self._shown
        self._shown.append(_Item(item))
        self._step = self._asked or self._step
        return None

    def text(self, delta: str) -> Diverged | None:
        """More text of the item that opened last."""
        if self._made is self._shown:
            self._grow(delta)
            return None
        made, shown = self._made[-1], self._shown[len(self._made) - 1]
        known = shown.text()[made.length : made.length + len(delta)]
        made.add(delta)
        fresh = delta[len(known) :]
        if not delta.startswith(known) or (fresh and shown is not self._shown[-1]):
            return self._diverge()
        if fresh:
            self._made = self._shown
            self._grow(fresh)
        return None

    def finish(self) -> tuple[JsonObject, ...] | Diverged:
        """The model is done: the step's items, complete."""
        if self._made is not self._shown:
            short = len(self._made) < len(self._shown)
            if short or self._made[-1].length < self._shown[-1].length:
                return self._diverge()
            self._made = self._shown
        return tuple(closed(made.item, made.text(), status="completed") for made in self._made)

    def abandon(self) -> tuple[JsonObject, ...]:
        """The items that were shown and will never be finished, as incomplete ones."""
        return tuple(closed(shown.item, shown.text(), status="incomplete") for shown in self._shown)

    def restart(self, *, base: int) -> None:
        """The old items are closed in the log, up to event `base`: what the model has said since it was asked is shown
        instead.
        """
        self.base, self._units, self._told = base, 0, 0
        self._shown = self._made
        self._step, self._labelled = self._asked, ""

    def _diverge(self) -> Diverged:
        return Diverged(self.abandon())

    def _grow(self, delta: str) -> None:
        self._shown[-1].add(delta)
        self._step = self._asked or self._step

    def _piece(self, shown: _Item, delta: str | None) -> Piece:
        """The item's beginning, or more of its text; with the step's label, if no piece has told it yet."""
        at, label = self._units, "" if self._step == self._labelled else self._step
        self._labelled = self._step
        if delta is None:
            self._units += 1
            return Piece(self.base, at, self._turn, shown.id, shown.item, step=label)
        self._units += len(delta)
        offset = shown.length - len(delta)
        return Piece(self.base, at, self._turn, shown.id, None, shown.field, offset, delta, label)


def _alike(shown: JsonObject, said: JsonObject) -> bool:
    same = shown["type"] == said["type"]
    return same and (shown["type"] != CALL or shown["name"] == said["name"])
