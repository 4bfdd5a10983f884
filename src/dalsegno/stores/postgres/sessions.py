"""Sessions, their events and keys in the database: decided on, read, claimed, listed and erased.

A session's folded state is kept from commit to commit beside the bytes it was decoded from, and decided on without
reading its row: the statement that writes the row has those bytes in its condition. So what other processes write needs
no invalidation: nothing is written, the row itself is read and decided on. A commit is one round trip.
"""

import contextlib
import logging
from collections.abc import Sequence
from typing import Any, TypeVar

from dalsegno.core.append import Decide, Decision, Fenced, Known, Write, follows
from dalsegno.core.claim import ATTEMPTS_MAX, Claimed, claim
from dalsegno.core.event import Event
from dalsegno.core.session import Session, fold, replace, tombstone
from dalsegno.errors import DalsegnoError, Shelved, Unreadable
from dalsegno.ports import Page, Query, Ref
from dalsegno.stores import sqlfile
from dalsegno.stores.clock import Clock
from dalsegno.stores.damage import named
from dalsegno.stores.outlast import Certain, outlasting
from dalsegno.stores.postgres import rows
from dalsegno.stores.postgres.connections import Connections, Cursor
from dalsegno.stores.postgres.failure import translating
from dalsegno.stores.postgres.rows import Change, Kept, Row
from dalsegno.stores.postgres.writer import Writer

R = TypeVar("R")
CACHED_MAX = 4096
CACHED_BYTES_MAX = 4096
GUESSES = 3
"""How often a decision is made without a lock; then its row is locked first, so that everybody's turn comes."""
ERASED_AT_ONCE = 500
SCANNED_MAX = 1000
"""How many sessions one page of a listing looks at, whatever its filters leave of them."""
FIRST_ID = "00000000-0000-0000-0000-000000000000"

_log = logging.getLogger(__name__)


class Sessions:
    """What one process does with the sessions of a database."""

    def __init__(self, connections: Connections, clock: Clock) -> None:
        self._connections = connections
        self.clock = clock
        self._writer = Writer(connections, clock)
        self._sql = sqlfile.statements("postgres")
        self._cache: dict[Ref, Kept] = {}
        self._last: dict[Ref, Certain[None]] = {}
        """Of those of this process who want to write a session, the last in line."""

    async def commit(self, ref: Ref, decide: Decide[R], digest: bytes | None) -> Decision[R]:
        """Show the session to `decide` and write what it returns. Those of one session go one after another."""
        mine: Certain[None] = Certain()
        before, self._last[ref] = self._last.get(ref), mine
        try:
            if before is not None:
                await before
            return await self._commit(ref, decide, digest)
        finally:
            mine.set_result(None)
            if self._last[ref] is mine:
                del self._last[ref]

    async def commit_locked(self, cursor: Cursor, ref: Ref, decide: Decide[R], digest: bytes | None) -> Decision[R]:
        """The same inside the transaction of `cursor`, which must commit when this returns a `Write`, and else not."""
        name = {"tenant": ref.tenant, "id": ref.id}
        row = await (await cursor.execute(self._sql["session_lock"], name)).fetchone()
        kept = known = None
        if row is not None:
            *found, now, _ = row
            self.clock.hear(now)
            kept = await self._kept(cursor, ref, tuple(found))
            if digest is not None:
                await cursor.execute(self._sql["key_find"], {"n": kept.n, "digest": digest})
                known = _known(await cursor.fetchone())
        decision = decide(None if kept is None else kept.session, known, self.clock.now())
        if isinstance(decision, Write):
            if not follows(ref, None if kept is None else kept.session, decision):
                return Fenced()
            change = rows.change(kept, decision, self.clock.now())
            if kept is None:
                written = await self._add(cursor, ref, change) is not None
            else:
                await cursor.execute(self._sql["session_write"], rows.writing([change]))
                written = await _first(cursor) is not None
            if not written:
                return Fenced()
        return decision

    async def load(self, ref: Ref) -> Session | None:
        """The session as its row says."""
        async with self._connections.cursor() as cursor:
            kept, _ = await self._find(cursor, ref, None)
            return None if kept is None else kept.session

    async def read(self, ref: Ref, after: int, limit: int) -> list[Event]:
        """Events after `after`. Head and events are read at one moment, so this is one prefix."""
        after = max(after, 0)
        wanted = {"tenant": ref.tenant, "id": ref.id, "after": after, "limit": limit}
        async with self._connections.cursor() as cursor:
            found = await (await cursor.execute(self._sql["event_read"], wanted)).fetchall()
        if not found:
            return []
        head, shelf, status = found[0][0], *found[0][-2:]
        events = [rows.event(ref, row[1:-2]) for row in found if row[1] is not None]
        first = events[0].seq if events and status in (rows.DELETED, rows.ERASED) else after + 1
        # A deleted session's log is erased from its beginning on, up to its last event.
        expected = range(first, head + 1)[:limit]
        if [event.seq for event in events] != list(expected):
            raise rows.missing(ref, shelf, f"events are missing between {after} and {after + limit} of {head}")
        return events

    async def heads(self, refs: Sequence[Ref]) -> dict[Ref, int]:
        """How many events each has."""
        wanted = {"tenants": [ref.tenant for ref in refs], "ids": [ref.id for ref in refs]}
        async with self._connections.cursor() as cursor:
            found = await (await cursor.execute(self._sql["session_heads"], wanted)).fetchall()
        return {Ref(tenant, session_id): head for tenant, session_id, head in found}

    async def claim(self, owner: str, limit: int, chances: int) -> list[Claimed]:
        """Claim what is ready, in one transaction of two round trips."""
        wanted = {"owner": owner, "limit": limit, "chances": chances}
        async with self._connections.cursor() as cursor:
            async with cursor.connection.pipeline():
                await cursor.connection.execute("BEGIN")
                await cursor.execute(self._sql["session_claim"], wanted)
            found = await cursor.fetchall()
            if not found:
                return []
            claimed, changes = await self._decide_claims(cursor, owner, found, chances)
            with translating(lost="unknown"):
                async with cursor.connection.pipeline():
                    if changes:
                        changes.sort(key=lambda change: change.kept.n)
                        await cursor.execute(self._sql["session_write"], rows.writing(changes))
                    await cursor.connection.execute("COMMIT")
                written = set(await _first(cursor) or ()) if changes else set()
        for change in changes:
            if change.kept.n in written:
                self._keep(change.kept)
        return [one for n, one in claimed if n in written]

    async def page(self, tenant: str, query: Query) -> Page:
        """One page of a tenant's sessions."""
        wanted = rows.STATUS[query.status] if query.status else None
        user = None if query.user is None else query.user.encode()
        found: list[Session] = []
        after, looked = query.after, 0
        async with self._connections.cursor() as cursor:
            while looked < SCANNED_MAX:
                window = min(max(query.limit, 50), SCANNED_MAX - looked) + 1
                begin = {"tenant": tenant, "from": after or FIRST_ID, "limit": window}
                batch = await (await cursor.execute(self._sql["session_page"], begin)).fetchall()
                for *row, session_id, status, whose in batch:
                    if session_id == after:
                        continue
                    if len(found) == query.limit:
                        return Page(tuple(found), found[-1].id)
                    after = session_id
                    if (
                        status in (rows.DELETED, rows.ERASED)
                        or wanted not in (None, status)
                        or user not in (None, whose)
                    ):
                        continue
                    session = (await self._kept(cursor, Ref(tenant, session_id), tuple(row))).session
                    if not session.deleted and session.has(query.metadata):
                        found.append(session)
                if len(batch) < window:
                    return Page(tuple(found), None)
                looked += window
        return Page(tuple(found), after)

    async def held(self, owner: str) -> list[Ref]:
        """The sessions whose lease `owner` has."""
        async with self._connections.cursor() as cursor:
            found = await (await cursor.execute(self._sql["session_held"], {"owner": owner})).fetchall()
        return [Ref(tenant, session_id) for tenant, session_id in found]

    async def erase_some(self, ref: Ref, epoch: int) -> bool:
        """Remove some of a deleted session's events and keys, but not its last event; whether there may be more.

        When nothing is left, the session counts as erased, if nobody has written it since it had that epoch.
        """
        async with self._connections.cursor() as cursor:
            name = {"tenant": ref.tenant, "id": ref.id}
            found = await (await cursor.execute(self._sql["session_deleted"], name)).fetchone()
            if found is None:
                return False
            some = {"n": found[0], "head": found[1], "limit": ERASED_AT_ONCE}
            await cursor.execute(self._sql["event_erase"], some)
            events = await _first(cursor)
            await cursor.execute(self._sql["key_erase"], some)
            if ERASED_AT_ONCE in (events, await _first(cursor)):
                return True
            await cursor.execute(self._sql["session_erased"], {"n": found[0], "epoch": epoch})
            return False

    async def unerased(self, after: Ref | None, limit: int) -> dict[Ref, int]:
        """Deleted sessions that do not count as erased, and their epochs."""
        begin = Ref("", FIRST_ID) if after is None else after
        behind = {"tenant": begin.tenant, "id": begin.id, "limit": limit + 1}
        async with self._connections.cursor() as cursor:
            found = await (await cursor.execute(self._sql["session_unerased"], behind)).fetchall()
        named = {Ref(tenant, session_id): epoch for tenant, session_id, epoch in found}
        if after is not None:
            named.pop(after, None)
        return dict(list(named.items())[:limit])

    async def walk(self, after: Ref | None, limit: int) -> list[Session]:
        """Sessions in the order of their numbers, up to one that cannot be read. None of them is kept."""
        found: list[Session] = []
        async with self._connections.cursor() as cursor:
            n = 0
            if after is not None:
                name = {"tenant": after.tenant, "id": after.id}
                number = await (await cursor.execute(self._sql["session_number"], name)).fetchone()
                if number is None:
                    raise Unreadable(f"session {after.id}: a walk cannot go on behind it, there is none")
                n = number[0]
            behind = {"n": n, "limit": limit}
            batch = await (await cursor.execute(self._sql["session_walk"], behind)).fetchall()
            for *row, shelved, tenant, session_id in batch:
                ref = Ref(tenant, session_id)
                try:
                    session = (await self._meant(cursor, ref, tuple(row))).session
                    found.append(replace(session, shelved=True) if shelved else session)
                except Unreadable as error:
                    if found:
                        break
                    raise named(ref, error) from error
        return found

    async def keys(self, ref: Ref) -> dict[bytes, Known]:
        """What is known under the session's keys."""
        name = {"tenant": ref.tenant, "id": ref.id}
        async with self._connections.cursor() as cursor:
            found = await (await cursor.execute(self._sql["key_read"], name)).fetchall()
        return {digest: Known(*known) for digest, *known in found}

    # ------------------------------------------------------------------ one commit

    async def _commit(self, ref: Ref, decide: Decide[R], digest: bytes | None) -> Decision[R]:
        kept = self._cache.get(ref)
        if kept is not None:
            guess, now = None, self.clock.now()
            # What does not lead to a write, an error too, may come from a session that is not like this any more.
            with contextlib.suppress(DalsegnoError):
                guess = decide(kept.session, None, now)
            if isinstance(guess, Write) and await self._wrote(ref, kept, guess, now, digest):
                return guess
        return await outlasting(self._commit_after_look(ref, decide, digest))

    async def _commit_after_look(self, ref: Ref, decide: Decide[R], digest: bytes | None) -> Decision[R]:
        for _ in range(GUESSES):
            async with self._connections.cursor() as cursor:
                kept, known = await self._find(cursor, ref, digest)
            now = self.clock.now()
            decision = decide(None if kept is None else kept.session, known, now)
            if not isinstance(decision, Write):
                return decision
            if not follows(ref, None if kept is None else kept.session, decision):
                return Fenced()
            if await self._wrote(ref, kept, decision, now, digest if known is None else None):
                return decision
        return await self._commit_in_turn(ref, decide, digest)

    async def _commit_in_turn(self, ref: Ref, decide: Decide[R], digest: bytes | None) -> Decision[R]:
        async with self._connections.cursor() as cursor:
            await cursor.execute("BEGIN")
            decision = await self.commit_locked(cursor, ref, decide, digest)
            if isinstance(decision, Write):
                with translating(lost="unknown"):
                    await cursor.execute("COMMIT")
            return decision

    async def _wrote(self, ref: Ref, kept: Kept | None, write: Write[R], now: int, absent: bytes | None) -> bool:
        """Write the decision, if it follows from the row as it is in the database; else write nothing."""
        if not follows(ref, None if kept is None else kept.session, write):
            return False
        change = rows.change(kept, write, now, absent)
        if kept is not None:
            if not await self._writer.write(change):
                return False
            self._keep(change.kept)
            return True
        async with self._connections.cursor(lost="unknown") as cursor:
            written = await self._add(cursor, ref, change)
        if written is None:
            return False
        self._keep(change.kept._replace(n=written))
        return True

    async def _add(self, cursor: Cursor, ref: Ref, change: Change) -> int | None:
        await cursor.execute(self._sql["session_add"], rows.adding(ref, change))
        row = await cursor.fetchone()
        assert row is not None
        n, now = row
        self.clock.hear(now)
        written: int | None = n
        return written

    # ------------------------------------------------------------------ claims

    async def _decide_claims(
        self, cursor: Cursor, owner: str, found: Sequence[Row], chances: int
    ) -> tuple[list[tuple[int, Claimed]], list[Change]]:
        claimed: list[tuple[int, Claimed]] = []
        changes: list[Change] = []
        shelved: Shelved | None = None
        for *row, tenant, session_id, now in found:
            ref = Ref(tenant, session_id)
            self.clock.hear(now)
            try:
                kept = await self._kept(cursor, ref, tuple(row))
                decision = claim(kept.session, now, owner=owner, chances=chances)
            except Shelved as error:
                # It cannot be read here, but it can be brought back: nobody else has to wait for that.
                shelved = error
                continue
            except Unreadable as error:
                # One damaged session must not stop every other one (P5). It stays unreadable to whoever asks for it,
                # and is not offered again until somebody has mended and written it.
                await cursor.execute(self._sql["session_park"], {"n": row[0]})
                _log.error("session %s of %s cannot be claimed, an operator must look: %s", ref.id, tenant, error)
                continue
            if isinstance(decision, Write) and follows(ref, kept.session, decision):
                changes.append(rows.change(kept, decision, now))
                claimed.append((kept.n, decision.result))
                lease = decision.result.lease
                chances -= lease is not None and lease.attempt >= ATTEMPTS_MAX
        if shelved is not None and not changes:
            raise shelved
        return claimed, changes

    # ------------------------------------------------------------------ rows and what they mean

    async def _find(self, cursor: Cursor, ref: Ref, digest: bytes | None) -> tuple[Kept | None, Known | None]:
        name = {"tenant": ref.tenant, "id": ref.id, "digest": digest}
        row = await (await cursor.execute(self._sql["session_find"], name)).fetchone()
        assert row is not None
        self.clock.hear(row[-1])
        if row[0] is None:
            return None, None
        return await self._kept(cursor, ref, row[:7]), _known(row[7:11])

    async def _kept(self, cursor: Cursor, ref: Ref, row: Row) -> Kept:
        kept = await self._meant(cursor, ref, row)
        self._keep(kept)
        return kept

    async def _meant(self, cursor: Cursor, ref: Ref, row: Row) -> Kept:
        """The session of a row (n, head, epoch, owner, attempt, since, state)."""
        n, head, epoch, owner, _, since, state = row
        cached = self._cache.get(ref)
        session = cached.session if cached is not None and cached.state == state else rows.snapshot(state)
        if session is None or session.head != head:
            session = await self._rebuilt(cursor, ref, row)
        return Kept(n, state, rows.leased(session, epoch, owner), since)

    async def _rebuilt(self, cursor: Cursor, ref: Ref, row: Row) -> Session:
        n, head, epoch, owner, attempt, *_ = row
        found = await (await cursor.execute(self._sql["event_fold"], {"n": n, "head": head})).fetchall()
        events = [rows.event(ref, one[:-1]) for one in found if one[0] is not None]
        if events and events[0].seq > 1 and events[-1].type == "session.deleted":
            return rows.leased(tombstone(ref.id, ref.tenant, events[-1]), epoch, owner)
        if len(events) != head:
            shelf = found[0][-1] if found else None
            raise rows.missing(ref, shelf, f"{head - len(events)} events of {head} are missing")
        session = fold(ref.id, ref.tenant, events)
        oldest = tuple(replace(turn, attempt=max(turn.attempt, attempt)) for turn in session.open[:1])
        return replace(session, epoch=epoch, owner=owner, open=oldest + session.open[1:])

    def _keep(self, kept: Kept) -> None:
        ref = Ref(kept.session.tenant, kept.session.id)
        self._cache.pop(ref, None)
        if kept.state and len(kept.state) <= CACHED_BYTES_MAX:
            self._cache[ref] = kept
        if len(self._cache) > CACHED_MAX:
            del self._cache[next(iter(self._cache))]


def _known(row: Row | None) -> Known | None:
    return None if row is None or row[0] is None else Known(*row)


async def _first(cursor: Cursor) -> Any:
    """The first column of the one row."""
    row = await cursor.fetchone()
    assert row is not None
    return row[0]
