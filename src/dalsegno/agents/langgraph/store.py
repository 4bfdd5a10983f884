"""The checkpointer over a store: for graphs that run outside, in any process that reaches the tiers."""

import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from dalsegno.agents.langgraph.book import Behind, Book, Numbered
from dalsegno.agents.langgraph.record import is_page
from dalsegno.agents.langgraph.saver import Checkpointer
from dalsegno.core.json import JsonObject
from dalsegno.core.session import Session
from dalsegno.errors import Conflict, Refused

BOOKS = 256
"""Threads whose checkpoints a process keeps near."""
LIFE = "\n"
"""What stands between a thread's name and the number of its life, after it was deleted."""


class Store(Protocol):
    """What `open_store` gives, as far as it is needed here."""

    async def head(self, session: str) -> int:
        """The session's version; 0 for one that nobody began."""
        ...

    async def read(self, session: str, *, after: int = 0, limit: int = 1000) -> Any:
        """The items among `limit` events behind event `after`."""
        ...

    async def append(self, session: str, items: Sequence[JsonObject], *, expect: int | None = None) -> int:
        """Add items in one commit; the session's new version."""
        ...

    async def delete(self, session: str) -> None:
        """End the session for good."""
        ...

    def sessions(self, metadata: JsonObject) -> AsyncIterator[Session]:
        """The sessions whose metadata holds all of that."""
        ...


class Saver(Checkpointer):
    """`graph = builder.compile(checkpointer=Saver(store))`, with `store` from `dalsegno.open_store(url)`.

    A thread is a session: its id, if it is one, or else the one that `store.id_of(thread_id)` names. Async; the sync
    methods (`graph.invoke`) serve other threads than the one the saver was made in. A run that writes to a thread after
    another run has written to it since it began raises `Conflict`, and what it writes from then on is not kept.
    """

    def __init__(self, store: Store, *, serde: Any = None) -> None:
        super().__init__(_StoreThreads(store), serde=serde)


class _StoreThreads:
    """Every thread of a store, the latest used ones near."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._books: dict[str, Book] = {}
        self._ledgers: dict[str, _StoreLedger] = {}

    def book(self, thread: str) -> Book:
        book = self._books.pop(thread, None)
        if book is None:
            self._ledgers[thread] = ledger = _StoreLedger(self._store, thread)
            book = Book(ledger)
        self._books[thread] = book
        for name in list(self._books)[:-BOOKS]:
            del self._books[name], self._ledgers[name]
        return book

    async def every(self) -> AsyncIterator[str]:
        async for session in self._store.sessions({}):
            yield str(session.metadata.get("name", session.id)).partition(LIFE)[0]

    async def delete(self, thread: str) -> None:
        self.book(thread)
        ledger = self._ledgers[thread]
        if await ledger.head():
            await self._store.delete(ledger.session)
        self._books.pop(thread)
        self._ledgers.pop(thread)

    def name(self) -> str:
        return secrets.token_hex(6)


class _StoreLedger:
    """A thread's session. A session that was deleted stays so: the thread's next life has another one."""

    def __init__(self, store: Store, thread: str) -> None:
        self._store = store
        self._thread = thread
        self._life = 1

    @property
    def session(self) -> str:
        return self._thread if self._life == 1 else f"{self._thread}{LIFE}{self._life}"

    async def head(self) -> int:
        began = self._life
        while True:
            try:
                head = await self._store.head(self.session)
            except Refused as refused:
                if refused.code != "not_found":
                    raise
                self._life += 1
            else:
                if self._life != began and began:
                    raise Behind
                return head

    async def read(self, after: int, limit: int) -> tuple[Sequence[Numbered], int]:
        found = await self._store.read(self.session, after=after, limit=limit)
        pages = [(record.seq, record.item) for record in found.records if is_page(record.item)]
        return pages, found.last

    async def append(self, items: Sequence[JsonObject], *, expect: int) -> int:
        try:
            return await self._store.append(self.session, items, expect=expect)
        except Conflict as conflict:
            if conflict.code == "version_mismatch":
                raise Behind from None
            raise
