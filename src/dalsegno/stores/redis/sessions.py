"""Sessions, their events and keys in the log: decided on, written, read and erased.

A commit is one script in the slot of the session's part. Decisions are made here, on the session as it was last seen,
and the server writes one only if the row still bears the stamp that it was decided on; else the row is read and decided
on again. So a cache needs no invalidation, and a row that went back, since a server lost what it had, is another one.

A write that arrives twice is written once, since its own stamp says that it was there before. So what was sent on a
connection that broke is sent once more, and only if that is lost, too, its caller is told that nobody knows.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

from dalsegno.core.append import Decide, Decision, Fenced, Known, Write, follows
from dalsegno.core.event import Event
from dalsegno.core.session import Session, fold, replace, tombstone
from dalsegno.errors import DalsegnoError, Shelved, Unavailable, Unreadable
from dalsegno.ports import Ref
from dalsegno.stores.clock import Clock
from dalsegno.stores.outlast import outlasting
from dalsegno.stores.redis import rows
from dalsegno.stores.redis.asking import Asker
from dalsegno.stores.redis.keys import Layout, Part, name_of
from dalsegno.stores.redis.line import Word
from dalsegno.stores.redis.place import Place
from dalsegno.stores.redis.rows import Kept, Row, Terms

R = TypeVar("R")
CACHED_MAX = 4096
CACHED_BYTES_MAX = 4096
TRIES = 100
"""How often a decision is made that others are faster than; each time one of them has written."""
PAGE = 1000
STAMP_BYTES = 12
CHANGED = 0
EVER = 2**52
Claim: TypeAlias = tuple[str, int]
"""Who claims, and when it was looked."""


class Line:
    """Who of this process wants to write a session."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.length = 0


class Sessions:
    """What one process does with the sessions of a log. What may be large goes over a lane of its own, and so does what
    nobody has to wait for copies of.
    """

    def __init__(self, place: Place, layout: Layout) -> None:
        self.layout = layout
        self.writes = Asker(place, copies=place.copies)
        self.looks = Asker(place) if place.copies else self.writes
        self.reads = Asker(place)
        self.retention = place.retention
        self._clocks = [Clock() for _ in layout.parts]
        self._cache: dict[Ref, Kept] = {}
        self._lines: dict[Ref, Line] = {}

    async def commit(self, ref: Ref, decide: Decide[R], digest: bytes | None) -> Decision[R]:
        """Show the session to `decide` and write what it returns. Those of one session go one after another."""
        async with self._in_line(ref):
            return await outlasting(self._commit(ref, decide, digest))

    async def load(self, ref: Ref) -> Session | None:
        """The session as its row says."""
        kept, _ = await self._find(ref, None)
        return None if kept is None else kept.session

    async def read(self, ref: Ref, after: int, limit: int) -> list[Event]:
        """Events after `after`. Head and events are read at one moment, so this is one prefix."""
        name = name_of(ref)
        part = self.layout.part(name)
        keys = (part.row(name), part.events(name))
        found = await self.reads.run("read", keys, max(after, 0), max(limit, 0))
        if found is None:
            return []
        _, status, shelf, first, stored = found
        if shelf is not None and status < rows.DELETED and None in stored:
            raise Shelved(ref.tenant, ref.id, shelf)
        return [rows.event(ref, seq, one) for seq, one in enumerate(stored, start=first)]

    async def heads(self, refs: Sequence[Ref]) -> dict[Ref, int]:
        """How many events each has."""
        names = [name_of(ref) for ref in refs]
        keys = [self.layout.part(name).row(name) for name in names]
        found = await asyncio.gather(*(self.reads.do(key, "HGET", key, "head") for key in keys))
        return {ref: int(head) for ref, head in zip(refs, found, strict=True) if head and head.isdigit()}

    async def known(self, ref: Ref) -> Mapping[bytes, Known]:
        """What is known under the session's keys."""
        name = name_of(ref)
        key = self.layout.part(name).known(name)
        found = await self.reads.do(key, "HGETALL", key)
        return {digest: meant for digest, stored in _pairs(found) if (meant := rows.known(stored)) is not None}

    async def erase(self, ref: Ref, epoch: int) -> None:
        """Remove what a deleted session holds beside its last event."""
        name = name_of(ref)
        part = self.layout.part(name)
        keys = (part.row(name), part.events(name), part.known(name), part.unerased)
        await self.writes.run("erase", keys, name, epoch)

    async def shelve(self, ref: Ref, shelf: bytes, head: int, epoch: int) -> bool:
        """See port `Warm`."""
        name = name_of(ref)
        part = self.layout.part(name)
        done = await self.writes.run("shelve", (part.row(name), part.events(name)), shelf, head, epoch)
        return bool(done)

    async def unshelve(self, ref: Ref, shelf: bytes, events: Sequence[Event]) -> None:
        """See port `Warm`."""
        name = name_of(ref)
        part = self.layout.part(name)
        words: list[Word] = [shelf]
        for event in events:
            words += (event.seq, rows.packed_event(event))
        await self.writes.run("unshelve", (part.row(name), part.events(name)), *words)

    async def columns(self, ref: Ref) -> Row | None:
        """The session's row at this moment."""
        name = name_of(ref)
        part = self.layout.part(name)
        _, columns, _ = await self.reads.run("find", (part.row(name), part.known(name)), "")
        return None if columns is None else rows.row(columns)

    async def meant(self, ref: Ref, row: Row) -> Kept:
        """The session of a row. Raises `Unreadable` if neither its state nor its events say what it is."""
        cached = self._cache.get(ref)
        if cached is not None and cached.stamp == row.stamp:
            return cached
        session = rows.snapshot(row) or await self._rebuilt(ref, row)
        return Kept(row.stamp, session)

    async def wrote(
        self, ref: Ref, kept: Kept | None, write: Write[Any], *, absent: bytes | None = None, claim: Claim | None = None
    ) -> bool:
        """Write a decision about `kept` (None = there is no such session), unless the session is another one by now.

        `absent` must not be a known digest; who makes a `claim` must live, and whoever owns the session not.
        """
        if not follows(ref, None if kept is None else kept.session, write):
            return False
        name, stamp = name_of(ref), secrets.token_bytes(STAMP_BYTES)
        part, state = self.layout.part(name), rows.state_of(write.session)
        owner, at = ("", EVER) if claim is None else claim
        terms = Terms(b"" if kept is None else kept.stamp, absent or b"", owner, self.retention, at)
        words = rows.writing(stamp, name, state, write, terms)
        own = (part.row(name), part.events(name), part.known(name))
        keys = (*own, part.all, part.unerased, part.ready, part.held, part.expiring, part.members)
        script = "end" if write.session.deleted else "write"
        if not await self._written(script, part, keys, words):
            return False
        self._keep(ref, Kept(stamp, write.session), size=len(state))
        return True

    async def close(self) -> None:
        """Let go of the connections."""
        for lane in (self.writes, self.looks, self.reads):
            await lane.route.close()

    # ------------------------------------------------------------------ one commit

    async def _commit(self, ref: Ref, decide: Decide[R], digest: bytes | None) -> Decision[R]:
        kept = self._cache.get(ref)
        if kept is not None:
            guess = None
            # What does not lead to a write, an error too, may come from a session that is not like this any more.
            with contextlib.suppress(DalsegnoError):
                guess = decide(kept.session, None, self._clock(ref).now())
            if isinstance(guess, Write) and await self.wrote(ref, kept, guess, absent=digest):
                return guess
        for _ in range(TRIES):
            kept, known = await self._find(ref, digest)
            decision = decide(None if kept is None else kept.session, known, self._clock(ref).now())
            if not isinstance(decision, Write):
                return decision
            if not follows(ref, None if kept is None else kept.session, decision):
                return Fenced()
            if await self.wrote(ref, kept, decision, absent=digest if known is None else None):
                return decision
        raise Unavailable("others wrote to the session at the same time, again and again", outcome="not_applied")

    async def _written(self, script: str, part: Part, keys: Sequence[bytes], words: Sequence[Word]) -> bool:
        try:
            code, now = await self.writes.run(script, keys, *words)
        except Unavailable as error:
            if error.outcome != "unknown":
                raise
            try:
                code, now = await self.writes.run(script, keys, *words)
            except Unavailable:
                raise error from None
            if code == CHANGED:
                # By ourselves before somebody else, or by somebody else before us.
                raise
        self._clocks[part.number].hear(now)
        return bool(code != CHANGED)

    async def _find(self, ref: Ref, digest: bytes | None) -> tuple[Kept | None, Known | None]:
        name = name_of(ref)
        part = self.layout.part(name)
        now, columns, known = await self.looks.run("find", (part.row(name), part.known(name)), digest or b"")
        self._clocks[part.number].hear(now)
        if columns is None:
            self._cache.pop(ref, None)
            return None, None
        row = rows.row(columns)
        kept = await self.meant(ref, row)
        self._keep(ref, kept, size=len(row.state))
        return kept, rows.known(known)

    async def _rebuilt(self, ref: Ref, row: Row) -> Session:
        """The session of a row whose state is damaged or another version's, from its events (law 1)."""
        events: list[Event] = []
        while not events or events[-1].seq < row.head:
            page = await self.read(ref, events[-1].seq if events else 0, PAGE)
            if not page:
                raise Unreadable(f"session {ref.id}: the log ends before its head {row.head}")
            events += page
        events = [event for event in events if event.seq <= row.head]
        last = events[-1]
        if events[0].seq > 1 and last.type == "session.deleted":
            return replace(tombstone(ref.id, ref.tenant, last), epoch=row.epoch, owner=row.owner)
        session = fold(ref.id, ref.tenant, events)
        oldest = tuple(replace(turn, attempt=max(turn.attempt, row.attempt)) for turn in session.open[:1])
        return replace(session, epoch=row.epoch, owner=row.owner, open=oldest + session.open[1:])

    def _clock(self, ref: Ref) -> Clock:
        return self._clocks[self.layout.part(name_of(ref)).number]

    def _keep(self, ref: Ref, kept: Kept, *, size: int) -> None:
        self._cache.pop(ref, None)
        if size <= CACHED_BYTES_MAX:
            self._cache[ref] = kept
            if len(self._cache) > CACHED_MAX:
                del self._cache[next(iter(self._cache))]

    @asynccontextmanager
    async def _in_line(self, ref: Ref) -> AsyncIterator[None]:
        """Wait until nobody of this process writes the session; whoever came first goes first."""
        line = self._lines.setdefault(ref, Line())
        line.length += 1
        try:
            async with line.lock:
                yield
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[ref]


def _pairs(flat: Sequence[bytes]) -> Sequence[tuple[bytes, bytes]]:
    """What a server says of a hash: names and values in turn."""
    return list(zip(flat[::2], flat[1::2], strict=True))
