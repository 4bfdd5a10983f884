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


class _Item:
    """An item as opened, and its text so far."""

    def __init__(self, item: JsonObject) -> None:
        self.item = item
        self.id = str(item["id"])
        self.field = FIELD_OF.get(str(item["type"]), "text")
        self.length = 0
        self._chunks: list[str] = []

    def add(self, text: str) -> None:
        self._chunks.append(text)
        self.length += len(text)

    def text(self) -> str:
        if len(self._chunks) > 1:
            self._chunks = ["".join(self._chunks)]
        return self._chunks[0] if self._chunks else ""


class Generation:
    """One open step's stream. Give it what the model says; it returns the pieces to publish."""

    def __init__(self, *, turn: int, base: int, carried: Iterable[Piece] = ()) -> None:
        self.base = base
        self._turn = turn
        self._shown: list[_Item] = []
        self._made = self._shown
        """What the model says: a list of its own only as long as it repeats what was shown."""
        self._units = 0
        self._step = ""
        self._asked = ""
        for piece in carried:
            if piece.item is not None:
                self._shown.append(_Item(piece.item))
            else:
                self._shown[-1].add(piece.delta)
            self._units = piece.end
            self._step = piece.step or self._step
        self.ask(self._asked)

    @property
    def units(self) -> int:
        """How many units of the step clients have been shown."""
        return self._units

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

    def open(self, item: JsonObject) -> Pieces | Diverged:
        """A new item begins; `item` is empty and carries the id it is to have."""
        if self._made is self._shown:
            return (self._begin(item),)
        place = len(self._made)
        complete = not place or self._made[-1].length == self._shown[place - 1].length
        if complete and place == len(self._shown):
            self._made = self._shown
            return (self._begin(item),)
        self._made.append(_Item(item))
        return () if complete and _alike(self._shown[place].item, item) else self._diverge()

    def text(self, delta: str) -> Pieces | Diverged:
        """More text of the item that opened last."""
        if self._made is self._shown:
            return (self._grow(delta),)
        made, shown = self._made[-1], self._shown[len(self._made) - 1]
        known = shown.text()[made.length : made.length + len(delta)]
        made.add(delta)
        fresh = delta[len(known) :]
        if not delta.startswith(known) or (fresh and shown is not self._shown[-1]):
            return self._diverge()
        if not fresh:
            return ()
        self._made = self._shown
        return (self._grow(fresh),)

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

    def restart(self, *, base: int) -> Pieces:
        """The old items are closed in the log, up to event `base`: show what the model has said since it was asked."""
        said, self._shown = self._made, []
        self.base, self._units, self._step, self._made = base, 0, "", self._shown
        pieces = []
        for made in said:
            pieces.append(self._begin(made.item))
            if made.length:
                pieces.append(self._grow(made.text()))
        return tuple(pieces)

    def _diverge(self) -> Diverged:
        return Diverged(self.abandon())

    def _begin(self, item: JsonObject) -> Piece:
        begun = _Item(item)
        piece = Piece(self.base, self._units, self._turn, begun.id, item=item, step=self._news())
        self._shown.append(begun)
        self._units += 1
        return piece

    def _grow(self, delta: str) -> Piece:
        grown = self._shown[-1]
        at, step = self._units, self._news()
        piece = Piece(self.base, at, self._turn, grown.id, None, grown.field, grown.length, delta, step)
        grown.add(delta)
        self._units += len(delta)
        return piece

    def _news(self) -> str:
        """The step's label, where what was shown does not say it yet."""
        if self._step == self._asked:
            return ""
        self._step = self._asked or self._step
        return self._asked


def _alike(shown: JsonObject, said: JsonObject) -> bool:
    same = shown["type"] == said["type"]
    return same and (shown["type"] != CALL or shown["name"] == said["name"])
