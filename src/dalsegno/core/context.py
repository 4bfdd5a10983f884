"""The context: what a model is shown, as a function of the log and of nothing else (law 13).

Turns follow each other in the order of their admission, each beginning with its message. Within a turn items follow the
log, except that whatever was said while calls were unanswered comes after their results. Every prefix of a log gives a
transcript that providers accept: each call has exactly one result, and where the log has none yet, or never will, the
context says so in its place.
"""

from collections.abc import Iterable

import msgspec

from dalsegno.core import codec
from dalsegno.core.event import ContextSummarized, Event, ItemDone, TurnCancelled, TurnCreated, TurnInput
from dalsegno.core.ids import item_id, turn_id
from dalsegno.core.input import Message
from dalsegno.core.item import CALL, CONVERSATION, MESSAGE, OUTPUT, output, user_message
from dalsegno.core.json import JsonObject

PENDING = "No result yet."
ABANDONED = "The turn ended before this call had a result."


class Context(msgspec.Struct, frozen=True):
    """What a model is shown, up to event `through`: the summary's item, if any, then the conversation."""

    items: tuple[JsonObject, ...]
    through: int


class _Turn(msgspec.Struct):
    items: list[JsonObject] = []
    held: list[JsonObject] = []
    waiting: dict[str, None] = {}
    partial: list[JsonObject] = []
    started: bool = False
    weight: int = 0


class _Border(msgspec.Struct, frozen=True):
    """Where an ended turn's items begin in the settled list, and how many bytes of log it took."""

    first: int
    index: int
    weight: int


class Transcript:
    """Folds events into a context, one after another, from a session's `summary` event or its beginning on.

    The fold is incremental: a replica that holds a session adds what it writes instead of reading it again, and an
    ended turn is never looked at a second time.
    """

    def __init__(self, session: str) -> None:
        self.head = 0
        self.weight = 0
        """Bytes of log that the context stands for, the summary left out."""
        self._session = session
        self._through = 0
        self._summary: JsonObject | None = None
        self._settled: list[JsonObject] = []
        self._borders: list[_Border] = []
        self._turns: dict[int, _Turn] = {}

    def add(self, event: Event) -> None:
        """Take one more event into account, in `seq` order."""
        self.head = max(self.head, event.seq)
        if event.type == "context.summarized":
            self._summarize(codec.decode(event))
            return
        if event.turn is None or event.turn <= self._through:
            return
        turn = self._turns.get(event.turn)
        if turn is None:
            turn = self._turns[event.turn] = _Turn()
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
        items = [] if self._summary is None else [self._summary]
        items += self._settled
        for first, turn in sorted(self._turns.items()):
            if turn.started:
                items += turn.items
                items += _answers(self._session, first, turn, PENDING)
                items += turn.held
                items += turn.partial
        return Context(tuple(items), self.head)

    def excess(self, limit: int) -> int | None:
        """The event through which ended turns must go so that about half of `limit` bytes remain; None = all fits."""
        if self.weight <= limit:
            return None
        left, through = self.weight, None
        for place, border in enumerate(self._borders):
            left -= border.weight
            later = self._borders[place + 1].first if place + 1 < len(self._borders) else min(self._turns, default=0)
            through = later - 1 if later else self.head
            if left <= limit // 2:
                break
        return through

    def _summarize(self, data: object) -> None:
        if not isinstance(data, ContextSummarized):
            return
        self._through, self._summary = data.through, data.item
        kept = [border for border in self._borders if border.first > data.through]
        cut = kept[0].index if kept else len(self._settled)
        self._settled = self._settled[cut:]
        self._borders = [_Border(border.first, border.index - cut, border.weight) for border in kept]
        self._turns = {first: turn for first, turn in self._turns.items() if first > data.through}
        self.weight = sum(border.weight for border in kept) + sum(turn.weight for turn in self._turns.values())

    def _settle(self, first: int, turn: _Turn, event: Event) -> None:
        del self._turns[first]
        data = codec.decode(event)
        if not turn.started or (isinstance(data, TurnCancelled) and data.hidden):
            self.weight -= turn.weight
            return
        self._borders.append(_Border(first, len(self._settled), turn.weight))
        self._settled += turn.items
        self._settled += _answers(self._session, first, turn, ABANDONED)
        self._settled += turn.held
        self._settled += turn.partial

    def _hear(self, turn: _Turn, event: Event) -> None:
        data = codec.decode(event)
        if isinstance(data, TurnCreated | TurnInput) and isinstance(data.input, Message):
            said = message_items(data.input, session=self._session, turn=event.turn or 0, seq=event.seq)
            (turn.held if turn.waiting else turn.items).extend(said)


def _note(turn: _Turn, event: Event) -> None:
    data = codec.decode(event)
    if not isinstance(data, ItemDone) or data.item["type"] not in CONVERSATION:
        return
    item = data.item
    if item.get("status") == "incomplete" and item["type"] != OUTPUT:
        # a piece of an answer that was cut off: shown if nothing took its place, and only if it is text
        if item["type"] == MESSAGE:
            turn.partial.append(item)
        return
    turn.partial = []
    if item["type"] == OUTPUT:
        turn.waiting.pop(str(item["call_id"]), None)
    elif item["type"] == CALL:
        turn.waiting[str(item["call_id"])] = None
    turn.items.append(item)
    if not turn.waiting and turn.held:
        turn.items += turn.held
        turn.held = []


def _answers(session: str, first: int, turn: _Turn, text: str) -> list[JsonObject]:
    name = turn_id(session, first)
    return [
        output(call_id, text, item_id=item_id(name, OUTPUT, f"0.{index}"), status="incomplete")
        for index, call_id in enumerate(turn.waiting)
    ]


def message_items(said: Message, *, session: str, turn: int, seq: int) -> list[JsonObject]:
    """The items that a message adds to the conversation; each has an id, its own or a derived one."""
    name = turn_id(session, turn)
    if said.items is None:
        return [user_message(said.content or "", item_id=item_id(name, MESSAGE, f"0.{seq}"))]
    return [
        {"type": MESSAGE, "id": item_id(name, MESSAGE, f"0.{seq}.{index}"), **item}
        for index, item in enumerate(said.items)
    ]


def context(events: Iterable[Event], *, session: str) -> Context:
    """The context of a whole log, or of the part of it that begins with the summary."""
    transcript = Transcript(session)
    for event in events:
        transcript.add(event)
    return transcript.context()
