"""What a client is sent: durable events in order and, between them, the pieces of the step that is still open.

The composer is fed the log from the client's cursor on, and the pieces of the open step from wherever they are known.
It gives the frames that this client lacks and keeps the cursor. It holds no more than the cursor and the ids of open
items, so any replica composes the same continuation from the same log (design §5).
"""

from collections.abc import Iterator, Sequence

import msgspec

from dalsegno.core import codec
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import TERMINAL, Event, ItemDone, TurnStarted
from dalsegno.core.item import FIELD_OF, text_of, units_of
from dalsegno.core.json import JsonObject


class Piece(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of the open step: an item that opens (`item` is set), or some text of the item that opened last.

    `at` counts the step's units before it, `base` is the event after which the step began, `offset` counts the code
    points of the item before it. `step` tells the step from others, with the first of its pieces.
    """

    base: int
    at: int
    turn: int
    item_id: str
    item: JsonObject | None = None
    field: str = ""
    offset: int = 0
    delta: str = ""
    step: str = ""

    @property
    def end(self) -> int:
        """The step's units up to and including this piece."""
        return self.at + (1 if self.item is not None else len(self.delta))


class Dropped(msgspec.Struct, frozen=True):
    """An item that a client saw opening and that nobody will finish."""

    turn: int
    item_id: str
    reason: str


class Frame(msgspec.Struct, frozen=True):
    """One thing to send, and the cursor that a client has once it received it."""

    cursor: Cursor
    what: Event | Piece | Dropped


def closes(event: Event) -> bool:
    """Whether no step that was open before this event can still be open after it."""
    if event.type == "item.done":
        return _streamed(event) is not None
    if event.type == "turn.started":
        return start_of(event).carried == 0
    return event.type in TERMINAL or event.type == "turn.waiting"


def start_of(started: Event) -> TurnStarted:
    """The content of a `turn.started`."""
    data = codec.decode(started)
    assert isinstance(data, TurnStarted)
    return data


def _streamed(event: Event) -> ItemDone | None:
    """The content of an `item.done` whose deltas were counted in cursors; decoded only if it may be one."""
    if b'"streamed":true' not in event.data:
        return None
    data = codec.decode(event)
    return data if isinstance(data, ItemDone) and data.streamed else None


class Composer:
    """Composes one client's stream. `turn` limits it to one turn's events.

    `ended` turns true after the event that nothing can follow: the turn's terminal event, or `session.deleted`.
    """

    def __init__(self, cursor: Cursor, *, turn: int | None = None) -> None:
        self.cursor = cursor
        self.ended = False
        self._turn = turn
        self._opened: list[tuple[int, str]] = []

    def durable(self, event: Event) -> Iterator[Frame]:
        """The frames for the next event of the log; the caller feeds them in `seq` order without a gap."""
        offset = self.cursor.offset
        finished = _streamed(event) if event.type == "item.done" else None
        if finished is not None:
            yield from self._finish(event, finished.item)
            return
        if event.type == "turn.started" or event.type in TERMINAL or event.type == "turn.waiting":
            offset = self._reopen(event)
            yield from self._drop(event, offset)
        cursor = Cursor(event.seq, offset)
        self.cursor = cursor
        if self._wanted(event.turn) or event.type == "session.deleted":
            yield Frame(cursor, event)
        terminal = event.type in TERMINAL and event.turn == self._turn
        self.ended = self.ended or event.type == "session.deleted" or terminal

    def live(self, pieces: Sequence[Piece]) -> Iterator[Frame]:
        """The frames for what is known of the open step; the caller has made sure that it is this log position's."""
        for piece in pieces:
            have, end = self.cursor.offset, piece.end
            if end <= have:
                continue
            if piece.at > have:
                return
            if piece.item is not None:
                self._opened.append((piece.turn, piece.item_id))
            elif have > piece.at:
                skip = have - piece.at
                piece = msgspec.structs.replace(piece, at=have, offset=piece.offset + skip, delta=piece.delta[skip:])
            self.cursor = Cursor(self.cursor.seq, end)
            if self._wanted(piece.turn):
                yield Frame(self.cursor, piece)

    def _wanted(self, turn: int | None) -> bool:
        return self._turn is None or turn == self._turn

    def _finish(self, event: Event, item: JsonObject) -> Iterator[Frame]:
        """A streamed item is done: give the rest of its text, then the item, and take its units off the cursor."""
        units, have, seq = units_of(item), self.cursor.offset, self.cursor.seq
        wanted = self._wanted(event.turn)
        if 0 < have < units:
            self.cursor = Cursor(seq, units)
            if wanted:
                rest = Piece(
                    base=seq,
                    at=have,
                    turn=event.turn or 0,
                    item_id=str(item["id"]),
                    field=FIELD_OF.get(str(item["type"]), "text"),
                    offset=have - 1,
                    delta=text_of(item)[have - 1 :],
                )
                yield Frame(self.cursor, rest)
        self._opened = [(turn, name) for turn, name in self._opened if name != item["id"]]
        self.cursor = Cursor(event.seq, max(0, self.cursor.offset - units))
        if wanted:
            yield Frame(self.cursor, event)

    def _reopen(self, event: Event) -> int:
        """How much of the open step is left to the client after an attempt began or ended: all of it, or nothing.

        A client that has more than was carried over cannot keep a part: it starts again from the step's first unit.
        """
        carried = start_of(event).carried if event.type == "turn.started" else 0
        return self.cursor.offset if self.cursor.offset <= carried else 0

    def _drop(self, event: Event, offset: int) -> Iterator[Frame]:
        if offset >= self.cursor.offset:
            return
        for turn, item_id in self._opened:
            if self._wanted(turn):
                yield Frame(self.cursor, Dropped(turn, item_id, "lost"))
        self._opened = []
