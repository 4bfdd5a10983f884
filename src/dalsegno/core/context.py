"""The context: what a model is shown, as a function of the log and of nothing else (law 13).

Turns follow each other in the order of their admission, each beginning with its message; between them stand, as if they
were turns, the stretches that were brought in from outside (`core.stretch`). Within a turn items follow the log, except
that whatever was said while calls were unanswered comes after their results, and a message that joined the turn after
the model was asked comes after the answer. Every prefix of a log gives a transcript that providers accept: each call
has exactly one result, and where the log has none yet, or never will, the context says so in its place.
"""

from collections.abc import Iterable

import msgspec

from dalsegno.core import codec, json
from dalsegno.core.event import ContextSummarized, Event, ItemsRemoved, TurnCancelled, TurnCreated, TurnInput
from dalsegno.core.ids import item_id, turn_id
from dalsegno.core.input import Message
from dalsegno.core.item import MESSAGE, Items, user_message
from dalsegno.core.json import JsonObject
from dalsegno.core.session import Session
from dalsegno.core.shown import Shown, note, parsed, place, shown
from dalsegno.core.stretch import without
from dalsegno.errors import Unreadable

PENDING = "No result yet."
ABANDONED = "The turn ended before this call had a result."


class Context(msgspec.Struct, frozen=True):
    """What a model is shown, up to event `through`: the summary's item, if any, then the conversation."""

    items: Items
    through: int


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
    removed: tuple[tuple[int, int], ...] = ()
    """From which event to which nothing is shown, and what was open at its beginning ends (`Session.removed`)."""
    weight: int = 0
    """Bytes of log that the context stands for, the summary left out."""
    last: Event | None = None
    """The event `head`, if it has been added here."""
    through: int = 0
    summary: bytes | None = None
    settled: list[bytes] = []
    borders: list[_Border] = []
    turns: dict[int, Shown] = {}
    stretch: int = 0
    """The stretch that may go on, which is among the `turns`."""

    def add(self, event: Event) -> None:
        """Take one more event into account, in `seq` order. Raises `Unreadable` for a removal that `removed` does not
        tell of: what was to be passed over has been folded in.
        """
        if event.type == "context.summarized":
            self._summarize(codec.decode(event))
        elif event.type == "items.removed":
            self._remove(codec.decode(event), event.seq)
        elif not self._passes_over(event.seq):
            self._fold(event)
        self.head, self.last = event.seq, event

    def goes_on(self, session: Session) -> bool:
        """Whether what was folded here is still the session's; what was removed since is passed over from now on."""
        if _until(session.removed, self.head) != _until(self.removed, self.head):
            return False
        self.removed = session.removed
        return True

    def _passes_over(self, seq: int) -> bool:
        return bool(self.removed) and any(first <= seq <= last for first, last in self.removed)

    def _fold(self, event: Event) -> None:
        if event.turn is None and event.type == "item.done":
            self._bring(event)
            return
        if event.turn is None or event.turn <= self.through:
            return
        turn = self.turns.get(event.turn)
        if turn is None:
            self._end_stretch()
            turn = self.turns[event.turn] = Shown()
        self._weigh(turn, event)
        match event.type:
            case "item.done":
                note(turn, event)
            case "turn.created":
                for item in self._heard(event):
                    place(turn, item, None)
            case "turn.input":
                turn.joined += ((event.seq, item) for item in self._heard(event))
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
                items += shown(turn, PENDING, (self.session, first))
        return Context(Items(items), self.head)

    def opening(self, first: int, count: int) -> Context:
        """The context that turn `first` began with: what was there before it, and its message of `count` items."""
        items = [] if self.summary is None else [self.summary]
        items += self.settled
        for number, turn in sorted(self.turns.items()):
            if number == first:
                items += turn.items[:count]
            elif number < first and turn.started:
                items += shown(turn, PENDING, (self.session, number))
        return Context(Items(items), self.head)

    def excess(self, limit: int) -> int | None:
        """The event through which ended turns must go so that about half of `limit` bytes remain; None = all fits."""
        if self.weight <= limit:
            return None
        left, through = self.weight, None
        for number, border in enumerate(self.borders, 1):
            left -= border.weight
            later = self.borders[number].first if number < len(self.borders) else min(self.turns, default=0)
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

    def _remove(self, data: object, seq: int) -> None:
        if not self._passes_over(seq):
            raise Unreadable(f"session {self.session}: what event {seq} removes was folded in")
        if isinstance(data, ItemsRemoved) and data.after == 0:
            self.summary, self.settled, self.borders, self.turns, self.weight = None, [], [], {}, 0
        for first in sorted(self.turns):
            self._keep(first)
        self.stretch = 0

    def _bring(self, event: Event) -> None:
        done, head = parsed(event)
        first = done.since
        if first is None or first <= self.through:
            return
        if first != self.stretch:
            self._end_stretch()
            self.stretch, self.turns[first] = first, Shown(started=True, outside=True)
        self._weigh(self.turns[first], event)
        place(self.turns[first], bytes(done.item), None, head)

    def _end_stretch(self) -> None:
        if self.stretch in self.turns:
            self._keep(self.stretch)
        self.stretch = 0

    def _weigh(self, turn: Shown, event: Event) -> None:
        turn.weight += len(event.data)
        self.weight += len(event.data)

    def _settle(self, first: int, turn: Shown, event: Event) -> None:
        data = codec.decode(event)
        turn.started = turn.started and not (isinstance(data, TurnCancelled) and data.hidden)
        self._keep(first)

    def _keep(self, first: int) -> None:
        """The turn is over: what is shown of it stays as it is."""
        turn = self.turns.pop(first)
        if not turn.started:
            self.weight -= turn.weight
            return
        self.borders.append(_Border(first, len(self.settled), turn.weight))
        self.settled += shown(turn, ABANDONED, (self.session, first))

    def _heard(self, event: Event) -> list[bytes]:
        data = codec.decode(event)
        if not (isinstance(data, TurnCreated | TurnInput) and isinstance(data.input, Message)):
            return []
        said = message_items(data.input, session=self.session, turn=event.turn or 0, seq=event.seq)
        return list(map(json.dumps, said))


def message_items(said: Message, *, session: str, turn: int, seq: int) -> list[JsonObject]:
    """The items that a message adds to the conversation; each has an id, its own or a derived one."""
    name = turn_id(session, turn)
    if said.items is None:
        return [user_message(said.content or "", item_id=item_id(name, MESSAGE, f"0_{seq}"))]
    return [
        {"type": MESSAGE, "id": item_id(name, MESSAGE, f"0_{seq}_{index}"), **item}
        for index, item in enumerate(said.items)
    ]


def _until(removed: tuple[tuple[int, int], ...], head: int) -> list[tuple[int, int]]:
    """The same of the log up to event `head`."""
    return [(first, min(last, head)) for first, last in removed if first <= head]


def removed(events: Iterable[Event]) -> tuple[tuple[int, int], ...]:
    """What these events say was removed (`Session.removed`)."""
    found: tuple[tuple[int, int], ...] = ()
    for event in events:
        data = codec.decode(event) if event.type == "items.removed" else None
        if isinstance(data, ItemsRemoved):
            found = without(found, after=data.after, seq=event.seq)
    return found


def context(events: Iterable[Event], *, session: str) -> Context:
    """The context of a whole log, or of the part of it that begins with the summary."""
    events = list(events)
    transcript = Transcript(session, removed=removed(events))
    for event in events:
        transcript.add(event)
    return transcript.context()
