"""A book: one thread's records in one session's log, read as far as needed and written one page at a time.

Knows neither LangGraph nor a store: a ledger reads and appends.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec

from dalsegno.agents.langgraph.record import Packer, Page, Record, page_item, page_of
from dalsegno.agents.langgraph.thread import Thread
from dalsegno.core.json import JsonObject

REPEAT_BYTES_MIN = 64 * 1024
REPEAT_RATIO = 6
"""Of what must be read to what it comes to: over that, a page repeats what is still wanted, and needs none before it. A
conversation that only grows stays below; state that is replaced again and again is repeated once in a while.
"""
LOOK_BACK_EVENTS = 64

Numbered = tuple[int, JsonObject]
Make = Callable[[Thread], Record | None]
"""The record to be written for a thread as it is, or None if there is none; raises what its caller is to be told."""


class Behind(Exception):
    """The log has gone on: read it, and decide again."""


class Ledger(Protocol):
    """One session's log, as a book needs it."""

    async def head(self) -> int:
        """The last event; 0 if there is none. Raises `Behind` once if it has become another log."""
        ...

    async def read(self, after: int, limit: int) -> tuple[Sequence[Numbered], int]:
        """The items among the `limit` events behind `after`, with their numbers, and the last event that was looked at;
        `after` itself if nothing follows it.
        """
        ...

    async def append(self, items: Sequence[JsonObject], *, expect: int) -> int:
        """Write items behind event `expect`, in one commit; the number of the last. Raises `Behind`."""
        ...


class Reading(msgspec.Struct, frozen=True):
    """What a book has read of its ledger, up to event `head`."""

    thread: Thread
    packer: Packer
    head: int
    since: int
    complete: bool


class _Job(msgspec.Struct):
    make: Make
    done: "asyncio.Future[None]"


class Book:
    """One thread's checkpoints. What is asked for side by side is written in one commit."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = asyncio.Lock()
        self._jobs: list[_Job] = []
        self._forget()

    def _forget(self) -> None:
        self.thread = Thread()
        self.head = 0
        self._packer = Packer()
        self._since = 0
        self._look_at = REPEAT_BYTES_MIN
        self._complete = True

    def reading(self) -> Reading:
        """What was read; nothing that is written from now on changes it."""
        return Reading(self.thread.copy(), self._packer.copy(), self.head, self._since, self._complete)

    def go_on(self, reading: Reading) -> None:
        """Read only what follows. Nobody else may use `reading` any more."""
        self.thread, self._packer, self.head = reading.thread, reading.packer, reading.head
        self._since, self._complete = reading.since, reading.complete

    async def refresh(self) -> Thread:
        """The thread as the log has it now, from the last page that needs none before it."""
        async with self._lock:
            await self._refresh()
            return self.thread

    async def everything(self) -> Thread:
        """The thread from its first checkpoint on."""
        async with self._lock:
            await self._refresh()
            if self._complete:
                return self.thread
            packer, thread, at = Packer(), Thread(), 0
            while True:
                found, last = await self._ledger.read(at, 1000)
                for seq, item in found:
                    page = page_of(item)
                    records = packer.unpack(page)
                    # what such a page holds was read before: it only stands for it
                    for record in [] if page.first and thread.all() else records:
                        thread.apply(record, at=seq)
                if last == at:
                    return thread
                at = last

    async def write(self, make: Make) -> None:
        """Record what `make` decides, in the commit that others share who ask now."""
        job = _Job(make, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        # one who is cancelled takes nobody along who shares the commit
        await asyncio.shield(asyncio.ensure_future(self._flush()))
        await job.done

    async def _refresh(self) -> None:
        try:
            head = await self._ledger.head()
        except Behind:
            self._forget()
            head = await self._ledger.head()
        if head == self.head:
            return
        if self.head == 0 or head < self.head:
            self._forget()
            await self._begin(head)
        while True:
            found, last = await self._ledger.read(self.head, 1000)
            if last == self.head:
                return
            self._take_all(found, last)

    async def _begin(self, head: int) -> None:
        """Find the event behind which everything is that is needed to read the newest page, from the end; what was read
        on the way need not be read again.
        """
        look, after, last = LOOK_BACK_EVENTS, head, head
        found: Sequence[Numbered] = ()
        while after > 0 and not found:
            after, last = max(0, after - look), after
            found, _ = await self._ledger.read(after, last - after)
            look *= 4
        if found:
            self._since = page_of(found[-1][1]).since
            self.head = max(0, self._since - 1)
        self._complete = self.head == 0
        if not found:
            self.head = head
        elif self.head >= after:
            self._take_all([numbered for numbered in found if numbered[0] > self.head], last)

    def _take_all(self, found: Sequence[Numbered], last: int) -> None:
        for seq, item in found:
            self._take(seq, page_of(item))
        self.head = last

    def _take(self, seq: int, page: Page) -> None:
        if page.since < self._since:
            return  # the turn that repeated what is wanted had written this before, and it needs what is not read
        if page.since > self._since and not self._complete:
            self.thread = Thread()  # a reader who begins now begins here
        for record in self._packer.unpack(page):
            self.thread.apply(record, at=seq)
        self._since = page.since

    async def _flush(self) -> None:
        async with self._lock:
            jobs, self._jobs = self._jobs, []
            if not jobs:
                return
            try:
                await self._write(jobs)
            except Exception as error:
                self._forget()
                for job in jobs:
                    if not job.done.done():
                        job.done.set_exception(error)

    async def _write(self, jobs: Sequence[_Job]) -> None:
        if self.head == 0:
            await self._refresh()
        while True:
            outcome = self._pages(jobs)
            try:
                if outcome.items:
                    self.head = await self._ledger.append(outcome.items, expect=self.head)
            except Behind:
                self._forget()
                await self._refresh()
                continue
            for job in jobs:
                if not job.done.done():
                    error = outcome.refused.get(id(job))
                    job.done.set_result(None) if error is None else job.done.set_exception(error)
            return

    def _pages(self, jobs: Sequence[_Job]) -> "_Pages":
        made = _Pages()
        first = self._since == 0
        if self._is_mostly_past():
            self._since = self.head + 1
            repeated = self.thread.repeat(self.thread.lasting())
            for one in repeated:
                self.thread.apply(one, at=self._since)
            made.items.append(page_item(self._packer.begin(repeated, since=self._since)))
            self._look_at = REPEAT_BYTES_MIN
        at, records = self.head + len(made.items) + 1, list[Record]()
        for job in jobs:
            try:
                record = job.make(self.thread)
            except Exception as error:
                made.refused[id(job)] = error
                continue
            if record is not None:
                self.thread.apply(record, at=at)
                records.append(record)
        if records:
            pack = self._packer.begin if first else self._packer.pack
            self._since = self._since or at
            made.items.append(page_item(pack(records, since=self._since)))
        return made

    def _is_mostly_past(self) -> bool:
        if self._packer.size <= self._look_at:
            return False
        wanted = self.thread.size(self.thread.lasting())
        self._look_at = max(REPEAT_BYTES_MIN, REPEAT_RATIO * wanted, self._packer.size * 5 // 4)
        return self._packer.size > REPEAT_RATIO * wanted


class _Pages(msgspec.Struct):
    items: list[JsonObject] = []
    refused: dict[int, Exception] = {}


class Threads(Protocol):
    """Where threads live."""

    def book(self, thread: str) -> Book:
        """The thread's book; the same one as long as somebody writes in it."""
        ...

    def every(self) -> AsyncIterator[str]:
        """The names of all threads."""
        ...

    async def delete(self, thread: str) -> None:
        """Remove a thread for good; its name may be used again."""
        ...

    def name(self) -> str:
        """A name that no writer ever had."""
        ...
