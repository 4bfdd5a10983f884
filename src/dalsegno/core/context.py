"""The context: what a model is shown, as a function of the log and of nothing else (law 13).

Turns follow each other in the order of their admission, each beginning with its message. Within a turn items follow the
log, except that whatever was said while calls were unanswered comes after their results. Every prefix of a log gives a
transcript that providers accept: each call has exactly one result, and where the log has none yet, or never will, the
context says so in its place.
"""

from collections.abc import Iterable

import msgspec

from dalsegno.core import codec, json
from dalsegno.core.event import ContextSummarized, Event, TurnCancelled, TurnCreated, TurnInput
from dalsegno.core.ids import item_id, short_hash, turn_id
from dalsegno.core.input import Message
from dalsegno.core.item import CALL, CONVERSATION, MESSAGE, OUTPUT, Items, output, user_message
from dalsegno.core.json import JsonObject
from dalsegno.errors import Unreadable

PENDING = "No result yet."
ABANDONED = "The turn ended before this call had a result."


class Context(msgspec.Struct, frozen=True):
    """What a model is shown, up to event `through`: the summary's item, if any, then the conversation."""

    items: Items
    through: int


class _Head(msgspec.Struct):
    """As much of an item as its place depends on. A client's items may hold anything under these names."""

    type: str
    status: object = ""
    call_id: object = ""


class _Done(msgspec.Struct):
    item: msgspec.Raw
    step: str | None = None


_head = msgspec.json.Decoder(_Head).decode
_done = msgspec.json.Decoder(_Done).decode


class _Turn(msgspec.Struct):
    """A turn's items in the order they are shown. `waiting` are the calls of `step` that have no result yet, `held` is
    what came meanwhile: it is shown after their results."""

    items: list[bytes] = []
    step: str | None = None
    waiting: dict[str, None] = {}
    held: list[tuple[bytes, str | None]] = []
    partial: list[bytes] = []
    started: bool = False
    weight: int = 0


class _Border(msgspec.Struct, frozen=True):
    """Where an ended turn's items begin in the settled list, and how many bytes of log it took."""

    first: int
    index: int
    weight: int


class Transcript(msgspec.Struct):
    """Folds events into a context, one after another, from a session's `summary` event or its beginning on.

    The fold is incremental: a replica that holds a session adds what it writes instead of reading it again, and an
    ended turn is never looked at a second time. `core.frozen` makes bytes of it.
    """

    session: str
    head: int = 0
    weight: int = 0
    """Bytes of log that the context stands for, the summary left out."""
    last: Event | None = None
    """The event `head`, if it has been added here."""
    through: int = 0
    summary: bytes | None = None
    settled: list[bytes] = []
    borders: list[_Border] = []
    turns: dict[int, _Turn] = {}

    def add(self, event: Event) -> None:
        """Take one more event into account, in `seq` order."""
        self._fold(event)
        self.head, self.last = event.seq, event

    def _fold(self, event: Event) -> None:
        if event.type == "context.summarized":
            self._summarize(codec.decode(event))
            return
        if event.turn is None or event.turn <= self.through:
            return
        turn = self.turns.get(event.turn)
        if turn is None:
            turn = self.turns[event.turn] = _Turn()
        turn.weight += len(event.data)
        self.weight += len(event.data)
        match event.type:
            case "item.done":
                _note(turn, event)
            case "turn.created" | "turn.input":
                self._hear(turn, event)
            case "turn.started":
                turn.started = True
            case "turn.completed" | "turn.failed" | "turn.cancelled":
                self._settle(event.turn, turn, event)

    def context(self) -> Context:
        """The context as of the last event added."""
        items = [] if self.summary is None else [self.summary]
        items += self.settled
        for first, turn in sorted(self.turns.items()):
            if turn.started:
                items += _shown(turn, PENDING, (self.session, first))
        return Context(Items(items), self.head)

    def excess(self, limit: int) -> int | None:
        """The event through which ended turns must go so that about half of `limit` bytes remain; None = all fits."""
        if self.weight <= limit:
            return None
        left, through = self.weight, None
        for place, border in enumerate(self.borders):
            left -= border.weight
            later = self.borders[place + 1].first if place + 1 < len(self.borders) else min(self.turns, default=0)
            through = later - 1 if later else self.head
            if left <= limit // 2:
                break
        return through

    def _summarize(self, data: object) -> None:
        if not isinstance(data, ContextSummarized):
            return
        self.through, self.summary = data.through, json.dumps(data.item)
        kept = [border for border in self.borders if border.first > data.through]
        cut = kept[0].index if kept else len(self.settled)
        self.settled = self.settled[cut:]
        self.borders = [_Border(border.first, border.index - cut, border.weight) for border in kept]
        self.turns = {first: turn for first, turn in self.turns.items() if first > data.through}
        self.weight = sum(border.weight for border in kept) + sum(turn.weight for turn in self.turns.values())

    def _settle(self, first: int, turn: _Turn, event: Event) -> None:
        del self.turns[first]
        data = codec.decode(event)
        if not turn.started or (isinstance(data, TurnCancelled) and data.hidden):
            self.weight -= turn.weight
            return
        self.borders.append(_Border(first, len(self.settled), turn.weight))
        self.settled += _shown(turn, ABANDONED, (self.session, first))

    def _hear(self, turn: _Turn, event: Event) -> None:
        data = codec.decode(event)
        if isinstance(data, TurnCreated | TurnInput) and isinstance(data.input, Message):
            for item in message_items(data.input, session=self.session, turn=event.turn or 0, seq=event.seq):
                _place(turn, json.dumps(item), None)


def _note(turn: _Turn, event: Event) -> None:
    try:
        done = _done(event.data)
        item, head = bytes(done.item), _head(done.item)
    except msgspec.MsgspecError as error:
        raise Unreadable(f"event {event.seq} (item.done) cannot be understood: {error}") from error
    if head.type not in CONVERSATION:
        return
    if head.status == "incomplete" and head.type != OUTPUT:
        # a piece of an answer that was cut off: shown if nothing took its place, and only if it is text
        if head.type == MESSAGE:
            turn.partial.append(item)
        return
    turn.partial = []
    _place(turn, item, done.step)


def _place(turn: _Turn, item: bytes, step: str | None) -> None:
    head = _head(item)
    if turn.waiting:
        answers = head.type == OUTPUT and head.call_id in turn.waiting
        joins = head.type == CALL and step is not None and step == turn.step
        if not answers and not joins:
            turn.held.append((item, step))
            return
    turn.items.append(item)
    if head.type == CALL:
        turn.waiting[str(head.call_id)], turn.step = None, step
    elif head.type == OUTPUT:
        turn.waiting.pop(str(head.call_id), None)
        if not turn.waiting:
            held, turn.held = turn.held, []
            for later in held:
                _place(turn, *later)


def _shown(turn: _Turn, missing: str, name: tuple[str, int]) -> list[bytes]:
    """All that a model is shown of a turn; calls without a result have `missing` as theirs."""
    items = list(turn.items)
    for call_id in turn.waiting:
        made = item_id(turn_id(*name), OUTPUT, f"0_{short_hash(call_id)[:8]}")
        items.append(json.dumps(output(call_id, missing, item_id=made, status="incomplete")))
    if turn.held:
        rest = _Turn()
        for later in turn.held:
            _place(rest, *later)
        items += _shown(rest, missing, name)
    return items + turn.partial


def message_items(said: Message, *, session: str, turn: int, seq: int) -> list[JsonObject]:
    """The items that a message adds to the conversation; each has an id, its own or a derived one."""
    name = turn_id(session, turn)
    if said.items is None:
        return [user_message(said.content or "", item_id=item_id(name, MESSAGE, f"0_{seq}"))]
    return [
        {"type": MESSAGE, "id": item_id(name, MESSAGE, f"0_{seq}_{index}"), **item}
        for index, item in enumerate(said.items)
    ]


def context(events: Iterable[Event], *, session: str) -> Context:
    """The context of a whole log, or of the part of it that begins with the summary."""
    transcript = Transcript(session)
    for event in events:
        transcript.add(event)
    return transcript.context()
