"""A client that believes nothing: it reads a stream frame by frame and raises at the first broken promise (P8).

It knows of the server's side nothing but the frames. What it keeps is what a client can keep: its cursor, the numbers
of the events it has, and the text of the items that are open for it.
"""

from collections.abc import Sequence

from dalsegno.core import codec
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import TERMINAL, Event, ItemDone
from dalsegno.core.item import text_of
from dalsegno.core.stream import Dropped, Frame, Piece


class Broken(Exception):
    """A promise that was not kept, in words."""


class OpenItem:
    """An item that a client saw opening: whose turn it is of, and its text so far."""

    def __init__(self, turn: int) -> None:
        self.turn = turn
        self.text = ""


class Reader:
    """One client of one session's stream, or of one turn's (`turn`), that began after event `after`."""

    def __init__(self, *, after: int = 0, turn: int | None = None) -> None:
        self.cursor = Cursor(after)
        self.seen: list[int] = []
        self.done: dict[str, str] = {}
        self.open: dict[str, OpenItem] = {}
        self.turn = turn
        self.deleted = False
        self._after = after

    def take(self, frame: Frame) -> None:
        """One more frame. Raises `Broken`."""
        if frame.cursor < self.cursor:
            raise Broken(f"the cursor went back from {self.cursor} to {frame.cursor}")
        what = frame.what
        if isinstance(what, Event):
            self._event(what, frame.cursor)
        elif isinstance(what, Piece):
            self._piece(what)
        else:
            self._drop(what)
        self.cursor = frame.cursor
        if self.turn is None and not isinstance(what, Dropped) and self.cursor.offset != self.units:
            raise Broken(f"cursor {self.cursor}, but this client has {self.units} units of the open step")

    @property
    def units(self) -> int:
        """What this client has of the open step, in the units of a cursor's offset."""
        return sum(1 + len(item.text) for item in self.open.values())

    def check_against(self, log: Sequence[Event]) -> None:
        """The stream so far is exactly the log after `after` (of the turn), and nothing of a closed item is missing."""
        wanted = [event.seq for event in log if event.seq > self._after and self._wants(event)]
        if log and log[-1].type == "session.deleted":
            # what was erased before it came is not seen any more, nor who was away at the time
            before = self.seen[:-1] if self.deleted else self.seen
            if before != wanted[: len(before)] or (self.deleted and self.seen[-1] != wanted[-1]):
                raise Broken(f"received {self.seen}, but the log had {wanted}")
        elif self.seen != wanted:
            raise Broken(f"received {self.seen}, but the log has {wanted}")

    def _wants(self, event: Event) -> bool:
        return self.turn is None or event.turn == self.turn or event.type == "session.deleted"

    def _event(self, event: Event, cursor: Cursor) -> None:
        last = self.seen[-1] if self.seen else self._after
        if event.seq <= last:
            raise Broken(f"event {event.seq} came again after {last}")
        self.deleted = event.type == "session.deleted"
        if self.turn is None and event.seq != last + 1 and not self.deleted:
            raise Broken(f"event {event.seq} came after {last}")
        if cursor.seq != event.seq:
            raise Broken(f"event {event.seq} came with the cursor {cursor}")
        self.seen.append(event.seq)
        data = codec.decode(event)
        if isinstance(data, ItemDone):
            self._close(data, event)
        if cursor.offset == 0 and (event.type in TERMINAL or event.type in ("turn.started", "turn.waiting")):
            for name in [name for name, item in self.open.items() if item.turn == event.turn]:
                del self.open[name]

    def _close(self, data: ItemDone, event: Event) -> None:
        name = str(data.item["id"])
        if name in self.done:
            raise Broken(f"event {event.seq} finishes {name} again")
        self.done[name] = text_of(data.item)
        item = self.open.pop(name, None)
        if item is not None and item.text != self.done[name]:
            raise Broken(f"event {event.seq} finishes {name} as {self.done[name]!r}; streamed was {item.text!r}")

    def _piece(self, piece: Piece) -> None:
        name = piece.item_id
        if name in self.done:
            raise Broken(f"a piece of {name}, which is finished: {piece}")
        if piece.item is not None:
            if name in self.open:
                raise Broken(f"{name} was opened again")
            self.open[name] = OpenItem(piece.turn)
            return
        item = self.open.get(name)
        if item is None:
            raise Broken(f"a delta of {name}, which is not open: {piece}")
        if piece.offset != len(item.text) or not piece.delta:
            raise Broken(f"a delta of {name} at {piece.offset}; this client has {len(item.text)}: {piece}")
        item.text += piece.delta

    def _drop(self, what: Dropped) -> None:
        if self.open.pop(what.item_id, None) is None:
            raise Broken(f"{what.item_id} was dropped; it was not open")
