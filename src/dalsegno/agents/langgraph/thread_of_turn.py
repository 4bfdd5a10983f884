"""The thread of a session that is served: its records are notes of the session's turns, fenced by their lease."""

from collections.abc import AsyncIterator, Sequence

import msgspec

from dalsegno.agents.langgraph.book import Book, Numbered
from dalsegno.agents.langgraph.book import Reading as Pages
from dalsegno.agents.langgraph.record import is_page
from dalsegno.agents.turn import Turn
from dalsegno.core import codec
from dalsegno.core.event import Event, ItemDone
from dalsegno.core.json import JsonObject
from dalsegno.errors import DalsegnoError

CREATED = 1
"""A session's first event: it says so, and is never a page."""
AHEAD_EVENTS = 100
"""So many events are read with the one that was read last before: mostly all that there are."""
CHECKPOINT_BYTES = 4 * 1024
"""What a checkpoint takes in memory besides the values in it, roughly."""


class Reading(msgspec.Struct, frozen=True):
    """What was read of a session's thread, and the last event that was looked at."""

    pages: Pages
    last: Event

    def weight(self) -> int:
        """How many bytes it takes, roughly."""
        return self.pages.packer.size + CHECKPOINT_BYTES * len(self.pages.thread) + len(self.last.data)


class TurnThreads:
    """The one thread that a turn has: its session's."""

    def __init__(self, turn: Turn) -> None:
        self._session = turn.session
        self._turn = turn.id
        self._ledger = _TurnLedger(turn)
        self._book = Book(self._ledger)

    async def read(self, known: Reading | None) -> Reading | None:
        """Read the thread up to where the turn found the log, from where `known` ends if the log has the same there.
        What there is to be known now, if the session has checkpoints.
        """
        if known is not None and await self._ledger.goes_on(known.last):
            self._book.go_on(known.pages)
        await self._book.refresh()
        pages, last = self._book.reading(), self._ledger.last
        return Reading(pages, last) if last is not None and last.seq == pages.head and pages.since else None

    def book(self, thread: str) -> Book:
        """Its book."""
        if thread != self._session:
            raise DalsegnoError(f"a turn of session {self._session} keeps no checkpoints of thread {thread}")
        return self._book

    async def every(self) -> AsyncIterator[str]:
        """Its name."""
        yield self._session

    async def delete(self, thread: str) -> None:
        """Refused: the session does it."""
        raise DalsegnoError("the thread of a session is deleted with it: DELETE /v1/sessions/{id}")

    def name(self) -> str:
        """The turn's: within it nobody can be overtaken, since its lease is the only one."""
        return self._turn


class _TurnLedger:
    """The session's log up to where the turn found it; what the turn adds is known to the book."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._head = turn.context.through
        self._ahead: Sequence[Event] = ()
        """What follows the last event that was looked at, if it was read with it."""
        self.last: Event | None = None
        """The last event that was looked at."""

    async def goes_on(self, event: Event) -> bool:
        """Whether the log has that very event, and up to where the turn found it what follows."""
        found = await self._events(event.seq - 1, AHEAD_EVENTS)
        if not found or found[0] != event:
            return False
        self.last, self._ahead = event, found[1:]
        return True

    async def head(self) -> int:
        return self._head

    async def read(self, after: int, limit: int) -> tuple[Sequence[Numbered], int]:
        ahead, self._ahead = self._ahead, ()
        events = ahead if ahead and ahead[0].seq == after + 1 else await self._events(after, limit)
        self.last = events[-1] if events else self.last
        found = [(event.seq, codec.decode(event)) for event in events if event.type == "item.done"]
        pages = [(seq, data.item) for seq, data in found if isinstance(data, ItemDone) and is_page(data.item)]
        return pages, events[-1].seq if events else after

    async def _events(self, after: int, limit: int) -> Sequence[Event]:
        until, after = min(after + limit, self._head), max(after, CREATED)
        return await self._turn.notes.read(after=after, limit=until - after) if until > after else ()

    async def append(self, items: Sequence[JsonObject], *, expect: int) -> int:
        for item in items:
            self._turn.notes.keep(item)
        return expect
