"""Sessions, events and keys as rows. Every method works inside the transaction of the cursor it is given.

Knows how a decision becomes statements; knows nothing of transactions, threads or files.
"""

import contextlib
import logging
import re
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from dalsegno.core import codec
from dalsegno.core.append import Decide, Decision, Fenced, Known, Write, follows
from dalsegno.core.claim import ATTEMPTS_MAX, Claimed, claim
from dalsegno.core.event import Event
from dalsegno.core.session import VERSION, Session, fold, replace, tombstone
from dalsegno.errors import DalsegnoError, Shelved, Unreadable
from dalsegno.ports import Page, Query, Ref
from dalsegno.stores import sqlfile
from dalsegno.stores.damage import named
from dalsegno.stores.sqlite.file import is_damage

R = TypeVar("R")
Row: TypeAlias = tuple[Any, ...]

STATUS = {"idle": 0, "running": 1, "waiting": 2}
DELETED, ERASED = 3, 4
CACHED_MAX = 1024
CACHED_BYTES_MAX = 4096
ERASED_AT_ONCE = 500
SCANNED_MAX = 1000
"""How many sessions one page of a listing looks at, whatever its filters leave of them."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Session).decode


def packed(session_id: str) -> bytes | str:
    """The id as it is stored: 16 bytes, or as it is if it is not a UUID in canonical spelling."""
    return bytes.fromhex(session_id.replace("-", "")) if _UUID.fullmatch(session_id) else session_id


def unpacked(stored: bytes | str) -> str:
    """The id as it is spelled."""
    if isinstance(stored, str):
        return stored
    digits = stored.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Kept(NamedTuple):
    """A session as it was last read or written. The bytes of its state decide whether it still is."""

    n: int
    state: bytes | None
    session: Session
    since: int


class Rows:
    """Reads and writes rows. One instance belongs to one user at a time (a writer, or readers).

    A session's folded state is kept from commit to commit beside the bytes it was decoded from, and decided on without
    reading its row: the statement that writes the row has those bytes in its condition. So another process's write,
    and a transaction that was undone, need no invalidation: nothing is written, and the row itself is decided on.
    """

    def __init__(self, *, cache: dict[Ref, Kept] | None = None) -> None:
        sql = sqlfile.statements("sqlite")
        self._sql = sql
        self._find, self._at, self._head = sql["session_find"], sql["session_at"], sql["session_head"]
        self._add, self._set = sql["session_add"], sql["session_set"]
        self._event_add, self._event_read = sql["event_add"], sql["event_read"]
        self._key_find, self._key_add = sql["key_find"], sql["key_add"]
        self._cache: dict[Ref, Kept] = {} if cache is None else cache
        self._keeps = cache is None

    def for_reading(self) -> "Rows":
        """Another view for other threads: it looks into the same cache, and leaves keeping it to this one."""
        return Rows(cache=self._cache)

    def carry_out(
        self, cursor: sqlite3.Cursor, ref: Ref, decide: Decide[R], digest: bytes | None, now: int
    ) -> Decision[R]:
        """Show the session to `decide` and write what it returns."""
        kept = self._cache.get(ref)
        if kept is not None:
            # What does not lead to a write, an error too, may come from a session that is not like this any more.
            with contextlib.suppress(DalsegnoError):
                decision = decide(kept.session, self._known(cursor, kept.n, digest), now)
                if isinstance(decision, Write) and self._write(cursor, ref, kept, decision, now):
                    return decision
        row = cursor.execute(self._find, (ref.tenant, packed(ref.id))).fetchone()
        if row is None:
            kept = None
            decision = decide(None, None, now)
        else:
            kept = self._kept(cursor, ref, row)
            decision = decide(kept.session, self._known(cursor, kept.n, digest), now)
        if isinstance(decision, Write) and not self._write(cursor, ref, kept, decision, now):
            return Fenced()
        return decision

    def claim(self, cursor: sqlite3.Cursor, owner: str, moment: dict[str, int]) -> list[Claimed]:
        """Claim what `claimable` names. `moment` has `now` (Unix ms), `clock` (monotonic ms), `limit` and `chances`."""
        claimed, chances, shelved = [], moment["chances"], None
        for n in self._claimable(cursor, owner, moment):
            cursor.execute("SAVEPOINT one")
            try:
                *row, tenant, stored = cursor.execute(self._at, (n,)).fetchone()
                ref = Ref(tenant, unpacked(stored))
                kept = self._kept(cursor, ref, tuple(row))
                decision = claim(kept.session, moment["now"], owner=owner, chances=chances)
                if isinstance(decision, Write) and self._write(cursor, ref, kept, decision, moment["now"]):
                    claimed.append(decision.result)
                    lease = decision.result.lease
                    chances -= lease is not None and lease.attempt >= ATTEMPTS_MAX
            except Shelved as error:
                # It cannot be read here, but it can be brought back: nobody else has to wait for that.
                cursor.execute("ROLLBACK TO one")
                shelved = error
            except (Unreadable, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.Error) and not is_damage(error):
                    raise
                # One damaged session must not stop every other one (P5). It stays unreadable to whoever asks for it,
                # and is not offered again until somebody has mended and written it.
                cursor.execute("ROLLBACK TO one")
                cursor.execute(self._sql["session_park"], (n,))
                _log.error("session row %d cannot be claimed, an operator must look: %s", n, error)
            cursor.execute("RELEASE one")
        if shelved is not None and not claimed:
            raise shelved
        return claimed

    def any_claimable(self, cursor: sqlite3.Cursor, owner: str, moment: dict[str, int]) -> bool:
        """Whether a claim would find something."""
        return bool(self._claimable(cursor, owner, moment))

    def load(self, cursor: sqlite3.Cursor, ref: Ref) -> Session | None:
        """The session as its row says."""
        row = cursor.execute(self._find, (ref.tenant, packed(ref.id))).fetchone()
        return None if row is None else self._kept(cursor, ref, row).session

    def heads(self, cursor: sqlite3.Cursor, refs: Sequence[Ref]) -> dict[Ref, int]:
        """How many events each has."""
        rows = ((ref, cursor.execute(self._head, (ref.tenant, packed(ref.id))).fetchone()) for ref in refs)
        return {ref: row[0] for ref, row in rows if row is not None}

    def read(self, cursor: sqlite3.Cursor, ref: Ref, after: int, limit: int) -> list[Event]:
        """Events after `after`. The head is read first: what it counts is there for good, so this is one prefix."""
        try:
            return self._read(cursor, ref, after, limit)
        except Shelved:
            raise
        except Unreadable:
            # Between two looks events may have come back from where they were shelved.
            return self._read(cursor, ref, after, limit)

    def _read(self, cursor: sqlite3.Cursor, ref: Ref, after: int, limit: int) -> list[Event]:
        row = cursor.execute(self._find, (ref.tenant, packed(ref.id))).fetchone()
        if row is None:
            return []
        n, head = row[0], row[1]
        after = max(after, 0)
        events = self._events(cursor, ref, n, after, min(head, after + limit), limit)
        if len(events) == max(0, min(limit, head - after)):
            return events
        session = self.load(cursor, ref)
        if session is None or not session.deleted:
            raise self._missing(cursor, ref, n, f"events are missing between {after} and {after + limit} of {head}")
        # A deleted session's log is erased from its beginning on, up to its last event.
        events = self._events(cursor, ref, n, after, head, limit)
        if not events or events[-1].seq != min(head, events[0].seq + limit - 1):
            raise Unreadable(f"session {ref.id}: events are missing after {after} of {head}")
        return events

    def page(self, cursor: sqlite3.Cursor, tenant: str, query: Query) -> Page:
        """One page of a tenant's sessions."""
        wanted = STATUS[query.status] if query.status else None
        found: list[Session] = []
        after, looked = packed(query.after), 0
        while looked < SCANNED_MAX:
            window = min(max(query.limit, 50), SCANNED_MAX - looked)
            rows = cursor.execute(self._sql["session_page"], (tenant, after, window)).fetchall()
            for stored, *row, status, user in rows:
                if len(found) == query.limit:
                    return Page(tuple(found), found[-1].id)
                after = stored
                if status in (DELETED, ERASED) or wanted not in (None, status) or query.user not in (None, user):
                    continue
                session = self._kept(cursor, Ref(tenant, unpacked(stored)), tuple(row)).session
                if not session.deleted and session.has(query.metadata):
                    found.append(session)
            if len(rows) < window:
                return Page(tuple(found), None)
            looked += len(rows)
        return Page(tuple(found), unpacked(after))

    def held(self, cursor: sqlite3.Cursor, owner: str) -> list[Ref]:
        """The sessions whose lease `owner` has."""
        rows = cursor.execute(self._sql["session_held"], (owner,)).fetchall()
        return [Ref(tenant, unpacked(stored)) for tenant, stored in rows]

    def erase_some(self, cursor: sqlite3.Cursor, ref: Ref, epoch: int) -> bool:
        """Remove some of a deleted session's events and keys, but not its last event; whether there may be more.

        The columns decide: what cannot be read can be erased.
        """
        row = cursor.execute(self._sql["session_deleted"], (ref.tenant, packed(ref.id))).fetchone()
        if row is None:
            return False
        n, head = row
        base = n << 32
        events = cursor.execute(self._sql["event_erase"], (base, base | head, ERASED_AT_ONCE)).rowcount
        keys = cursor.execute(self._sql["key_erase"], (n, n, ERASED_AT_ONCE)).rowcount
        if ERASED_AT_ONCE in (events, keys):
            return True
        cursor.execute(self._sql["session_erased"], (n, epoch))
        return False

    def unerased(self, cursor: sqlite3.Cursor, after: Ref | None, limit: int) -> dict[Ref, int]:
        """Deleted sessions that do not count as erased, and their epochs."""
        behind = ("", "") if after is None else (after.tenant, packed(after.id))
        rows = cursor.execute(self._sql["session_unerased"], (*behind, limit)).fetchall()
        return {Ref(tenant, unpacked(stored)): epoch for tenant, stored, epoch in rows}

    def walk(self, cursor: sqlite3.Cursor, after: Ref | None, limit: int) -> list[Session]:
        """Sessions in the order of their numbers, up to one that cannot be read."""
        n = 0 if after is None else self._number(cursor, after)
        if n is None:
            raise Unreadable("a walk cannot go on behind a session that does not exist")
        found: list[Session] = []
        for *row, shelved, tenant, stored in cursor.execute(self._sql["session_walk"], (n, limit)).fetchall():
            ref = Ref(tenant, unpacked(stored))
            try:
                session = self._kept(cursor, ref, tuple(row)).session
                found.append(replace(session, shelved=True) if shelved else session)
            except (Unreadable, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.Error) and not is_damage(error):
                    raise
                if found:
                    break
                raise named(ref, error) from error
        return found

    def keys(self, cursor: sqlite3.Cursor, ref: Ref) -> dict[bytes, Known]:
        """What is known under the session's keys."""
        rows = cursor.execute(self._sql["key_read"], (self._number(cursor, ref),)).fetchall()
        return {digest: Known(*known) for digest, *known in rows}

    def _number(self, cursor: sqlite3.Cursor, ref: Ref) -> int | None:
        row: Row | None = cursor.execute(self._find, (ref.tenant, packed(ref.id))).fetchone()
        return None if row is None else row[0]

    def _claimable(self, cursor: sqlite3.Cursor, owner: str, moment: dict[str, int]) -> list[int]:
        return [n for n, _ in cursor.execute(self._sql["claimable"], {"owner": owner, **moment}).fetchall()]

    def _known(self, cursor: sqlite3.Cursor, n: int, digest: bytes | None) -> Known | None:
        if digest is None:
            return None
        found = cursor.execute(self._key_find, (n, digest)).fetchone()
        return Known(*found) if found else None

    def _kept(self, cursor: sqlite3.Cursor, ref: Ref, row: Row) -> Kept:
        n, head, epoch, owner, _, _, since, state = row
        kept = self._cache.get(ref)
        session = kept.session if kept is not None and kept.state == state else self._decoded(state)
        if session is None or session.head != head:
            session = self._rebuilt(cursor, ref, row)
        if session.epoch != epoch or session.owner != owner:
            # The columns are the lease.
            session = replace(session, epoch=epoch, owner=owner)
        kept = Kept(n, state, session, since)
        self._keep(ref, kept)
        return kept

    def _decoded(self, state: object) -> Session | None:
        """The snapshot, if it is whole and of today's version."""
        if type(state) is not bytes or codec.checksum(state[4:]) != int.from_bytes(state[:4], "big"):
            return None
        try:
            session = _decode(state[4:])
        except msgspec.MsgspecError:
            return None
        return session if session.version == VERSION else None

    def _rebuilt(self, cursor: sqlite3.Cursor, ref: Ref, row: Row) -> Session:
        n, head, epoch, owner, attempt, *_ = row
        events = self._events(cursor, ref, n, 0, head, head)
        if events and events[0].seq > 1 and events[-1].type == "session.deleted":
            return replace(tombstone(ref.id, ref.tenant, events[-1]), epoch=epoch, owner=owner)
        if len(events) != head:
            raise self._missing(cursor, ref, n, f"{head - len(events)} events of {head} are missing")
        session = fold(ref.id, ref.tenant, events)
        oldest = tuple(replace(turn, attempt=max(turn.attempt, attempt)) for turn in session.open[:1])
        return replace(session, epoch=epoch, owner=owner, open=oldest + session.open[1:])

    def _missing(self, cursor: sqlite3.Cursor, ref: Ref, n: int, what: str) -> Unreadable:
        """Why events are not here: they are shelved, or lost."""
        row = cursor.execute(self._sql["session_shelf"], (n,)).fetchone()
        lost = row is None or row[0] is None
        return Unreadable(f"session {ref.id}: {what}") if lost else Shelved(ref.tenant, ref.id, row[0])

    def _events(self, cursor: sqlite3.Cursor, ref: Ref, n: int, after: int, through: int, limit: int) -> list[Event]:
        if through <= after:
            return []
        rows = cursor.execute(self._event_read, (n << 32 | after, n << 32 | through, limit)).fetchall()
        return [_event(ref, row) for row in rows]

    def _write(self, cursor: sqlite3.Cursor, ref: Ref, kept: Kept | None, write: Write[R], now: int) -> bool:
        """Write the decision, if it follows from the row as it is in the database; else write nothing."""
        session = write.session
        before = None if kept is None else kept.session
        if not follows(ref, before, write):
            return False
        blob = _encode(session)
        state = codec.checksum(blob).to_bytes(4, "big") + blob
        waits = session.owner is None and session.ready_at == 0
        waited = before is not None and before.owner is None and before.ready_at == 0
        since = kept.since if kept is not None and waits and waited else now
        values = (
            session.head,
            session.epoch,
            session.owner,
            session.open[0].attempt if session.open else 0,
            session.ready_at,
            since,
            DELETED if session.deleted else STATUS[session.status],
            session.user,
            state,
        )
        if kept is None or before is None:
            cursor.execute(self._add, (*values, ref.tenant, packed(ref.id)))
            n = cursor.lastrowid or 0
        else:
            n = kept.n
            condition = (n, before.head, before.epoch, before.owner, kept.state)
            if cursor.execute(self._set, values + condition).rowcount != 1:
                return False
        self._append(cursor, n, write)
        self._keep(ref, Kept(n, state, session, since))
        return True

    def _append(self, cursor: sqlite3.Cursor, n: int, write: Write[R]) -> None:
        base = n << 32
        rows = [event_row(base, event) for event in write.events]
        if len(rows) == 1:
            cursor.execute(self._event_add, rows[0])
        elif rows:
            cursor.executemany(self._event_add, rows)
        for digest, known in write.keys:
            remembered = (n, digest, known.fingerprint, known.seq, known.turn, known.status)
            cursor.execute(self._key_add, remembered)

    def _keep(self, ref: Ref, kept: Kept) -> None:
        cache = self._cache
        if not self._keeps:
            return
        cache.pop(ref, None)
        if kept.state and len(kept.state) <= CACHED_BYTES_MAX:
            cache[ref] = kept
        if len(cache) > CACHED_MAX:
            del cache[next(iter(cache))]


def event_row(base: int, event: Event) -> Sequence[object]:
    """The row of an event whose session has the number `base >> 32`."""
    crc = codec.checksum(event.data)
    # SQLite keeps a signed 32-bit number in four bytes, an unsigned one often in six.
    signed = crc - 0x1_0000_0000 if crc >= 0x8000_0000 else crc
    kind = codec.number_of(event.type) + (codec.VERSION - 1) * 256
    return base | event.seq, kind, event.turn, event.at, signed, event.data


def _event(ref: Ref, row: Row) -> Event:
    number, kind, turn, at, crc, body = row
    seq = number & 0xFFFF_FFFF
    if not isinstance(body, bytes) or not isinstance(crc, int) or codec.checksum(body) != crc & 0xFFFF_FFFF:
        raise Unreadable(f"session {ref.id}: event {seq} does not match its checksum")
    if not isinstance(kind, int) or not isinstance(at, int) or not isinstance(turn, int | None):
        raise Unreadable(f"session {ref.id}: event {seq} has no readable envelope")
    name = codec.name_of(kind & 0xFF)
    return Event(seq, name, turn, at, codec.upcast(name, (kind >> 8) + 1, body))
