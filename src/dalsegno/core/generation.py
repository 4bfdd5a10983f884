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

Pieces = tuple[Piece, ...]


class Diverged(msgspec.Struct, frozen=True):
    """The new answer is not the one that was shown: close these items as incomplete, then `restart`."""

    items: tuple[JsonObject, ...]


class _Item(msgspec.Struct):
    """An item as opened, under the name it is shown by, and its text so far."""

    item: JsonObject
    own: JsonObject
    chunks: list[str] = []
    length: int = 0

    def add(self, text: str) -> None:
        self.chunks.append(text)
        self.length += len(text)

    def text(self) -> str:
        if len(self.chunks) > 1:
            self.chunks = ["".join(self.chunks)]
        return self.chunks[0] if self.chunks else ""


class Generation:
    """One open step's stream. Give it what the model says; it returns the pieces to publish."""

    def __init__(self, *, turn: int, base: int, carried: Iterable[Piece] = ()) -> None:
        self.base = base
        self._turn = turn
        self._shown: list[_Item] = []
        self._made: list[_Item] = []
        self._units = 0
        self._step = ""
        self._asked = ""
        for piece in carried:
            self._show(piece)
        self._repeating = bool(self._shown)

    @property
    def units(self) -> int:
        """How many units of the step clients have been shown."""
        return self._units

    def ask(self, step: str) -> None:
        """The model is asked, in the step of that label. If it is asked again, what it said so far is a prefix like any
        other.
        """
        self._asked = step
        self._made = []
        self._repeating = bool(self._shown)

    @property
    def made(self) -> int:
        """How many items the model has begun since it was asked."""
        return len(self._made)

    @property
    def prefix(self) -> str:
        """The text that was shown of a message which the model may be asked to go on with; of another step, none."""
        last = self._shown[-1] if self._repeating and self._step == self._asked else None
        return last.text() if last is not None and last.item["type"] == MESSAGE else ""

    def go_on(self) -> bool:
        """The model was given `prefix` and says what comes after it; False: there is none."""
        if not self.prefix or self._made:
            return False
        self._made = [_Item(shown.item, shown.item, [shown.text()], shown.length) for shown in self._shown]
        self._repeating = False
        return True

    def open(self, item: JsonObject) -> Pieces | Diverged:
        """A new item begins; `item` is empty and carries the id it is to have."""
        if self._repeating:
            place = len(self._made)
            if place and self._made[-1].length < self._shown[place - 1].length:
                self._made.append(_Item(item, item))
                return self._diverge()
            if place < len(self._shown):
                self._made.append(_Item(self._shown[place].item, item))
                return () if _alike(self._shown[place].item, item) else self._diverge()
            self._repeating = False
        made = _Item(item, item)
        self._made.append(made)
        return (self._add(made),)

    def text(self, delta: str) -> Pieces | Diverged:
        """More text of the item that opened last."""
        made = self._made[-1]
        start = made.length
        made.add(delta)
        if not self._repeating:
            return (self._grow(made, start, delta),)
        shown = self._shown[len(self._made) - 1]
        known = shown.text()[start : made.length]
        if known != delta[: len(known)]:
            return self._diverge()
        fresh = delta[len(known) :]
        if not fresh:
            return ()
        if len(self._made) < len(self._shown):
            return self._diverge()
        self._repeating = False
        return (self._grow(made, start + len(known), fresh),)

    def finish(self) -> tuple[JsonObject, ...] | Diverged:
        """The model is done: the step's items, complete."""
        if self._repeating:
            short = len(self._made) < len(self._shown)
            if short or self._made[-1].length < self._shown[-1].length:
                return self._diverge()
        return tuple(closed(made.item, made.text(), status="completed") for made in self._made)

    def abandon(self) -> tuple[JsonObject, ...]:
        """The items that were shown and will never be finished, as incomplete ones."""
        return tuple(closed(shown.item, shown.text(), status="incomplete") for shown in self._shown)

    def restart(self, *, base: int) -> Pieces:
        """The old items are closed in the log, up to event `base`: show what the model has said since it was asked."""
        self.base, self._units, self._repeating, self._shown, self._step = base, 0, False, [], ""
        pieces = []
        for made in self._made:
            made.item = made.own
            pieces.append(self._add(made))
            if made.length:
                pieces.append(self._grow(made, 0, made.text()))
        return tuple(pieces)

    def _diverge(self) -> Diverged:
        return Diverged(self.abandon())

    def _add(self, made: _Item) -> Piece:
        piece = Piece(self.base, self._units, self._turn, str(made.item["id"]), item=made.item, step=self._news())
        self._show(piece)
        return piece

    def _grow(self, made: _Item, offset: int, delta: str) -> Piece:
        field = FIELD_OF.get(str(made.item["type"]), "text")
        name = str(made.item["id"])
        news = self._news()
        piece = Piece(self.base, self._units, self._turn, name, field=field, offset=offset, delta=delta, step=news)
        self._shown[-1].add(delta)
        self._units += len(delta)
        self._step = news or self._step
        return piece

    def _news(self) -> str:
        """The step's label, where what was shown does not say it yet."""
        return "" if self._step == self._asked else self._asked

    def _show(self, piece: Piece) -> None:
        if piece.item is not None:
            self._shown.append(_Item(piece.item, piece.item))
        else:
            self._shown[-1].add(piece.delta)
        self._units = piece.end
        self._step = piece.step or self._step


def _alike(shown: JsonObject, said: JsonObject) -> bool:
    same = shown["type"] == said["type"]
    return same and (shown["type"] != CALL or shown["name"] == said["name"])
