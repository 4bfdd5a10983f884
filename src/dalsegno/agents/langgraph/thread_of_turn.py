"""The thread of a session that is served: its records are notes of the session's turns, fenced by their lease."""

from collections.abc import AsyncIterator, Sequence

from dalsegno.agents.langgraph.book import Book, Numbered
from dalsegno.agents.langgraph.record import is_page
from dalsegno.agents.turn import Turn
from dalsegno.core import codec
from dalsegno.core.event import ItemDone
from dalsegno.core.json import JsonObject
from dalsegno.errors import DalsegnoError


class TurnThreads:
    """The one thread that a turn has: its session's."""

    def __init__(self, turn: Turn) -> None:
        self._session = turn.session
        self._turn = turn.id
        self._book = Book(_TurnLedger(turn))

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

    async def head(self) -> int:
        return self._head

    async def read(self, after: int, limit: int) -> tuple[Sequence[Numbered], int]:
        limit = min(limit, self._head - after)
        events = await self._turn.notes.read(after=after, limit=limit) if limit > 0 else ()
        found = [(event.seq, codec.decode(event)) for event in events if event.type == "item.done"]
        pages = [(seq, data.item) for seq, data in found if isinstance(data, ItemDone) and is_page(data.item)]
        return pages, events[-1].seq if events else after

    async def append(self, items: Sequence[JsonObject], *, expect: int) -> int:
        for item in items:
            self._turn.notes.keep(item)
        return expect
