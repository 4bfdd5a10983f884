"""What the memory handles of a fleet share: tables, clocks, and the atomic steps on them. Nothing here awaits."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

import msgspec

from dalsegno.core import codec
from dalsegno.core.append import Decide, Decision, Fenced, Known, Write, follows
from dalsegno.core.claim import ATTEMPTS_MAX, Claimed, claim
from dalsegno.core.event import Event
from dalsegno.core.session import VERSION, Session, fold, replace, tombstone
from dalsegno.errors import Shelved, Unreadable
from dalsegno.ports import Member, Page, Query, Ref
from dalsegno.stores.damage import named

R = TypeVar("R")
ERASED_AT_ONCE = 500
_log = logging.getLogger(__name__)


class StoredEvent(msgspec.Struct):
    """An event as a database would keep it."""

    number: int
    version: int
    turn: int | None
    at: int
    data: bytes
    checksum: int


class StoredSession(msgspec.Struct):
    """A session's row: the columns that conditions need, the folded session as bytes, and what hangs on it.

    `attempt` is the oldest open turn's; like `epoch` and `owner` it is not in the log. `since` is when the session last
    became free to claim.
    """

    head: int
    epoch: int
    owner: str | None
    attempt: int
    ready_at: int | None
    since: int
    version: int
    state: bytes
    checksum: int
    events: dict[int, StoredEvent] = {}
    known: dict[bytes, bytes] = {}
    deleted: bool = False
    erased: bool = False
    shelf: bytes | None = None


class StoredMember(msgspec.Struct):
    """A liveness record; `expires` is a time of the database's monotonic clock, in seconds."""

    member: Member
    expires: float


class MemoryDatabase:
    """What the handles of a fleet share: the tables, and the two clocks. Every method is one atomic step."""

    def __init__(
        self, *, seconds: Callable[[], float] = time.monotonic, unix_ms: Callable[[], int] | None = None
    ) -> None:
        self.rows: dict[Ref, StoredSession] = {}
        self.members: dict[str, StoredMember] = {}
        self.scratch: dict[str, bytes] = {}
        self.scratch_lock = asyncio.Lock()
        self._seconds = seconds
        self._unix_ms = unix_ms or _unix_ms
        self._killed: set[str] = set()

    def decide(self, ref: Ref, decide: Decide[R], *, digest: bytes | None = None) -> Decision[R]:
        """Carry out what `decide` returns, if it follows from what is stored; else it is `Fenced`."""
        row = self.rows.get(ref)
        known = None if row is None or digest is None else row.known.get(digest)
        session = None if row is None else self.session(ref, row)
        now = self._unix_ms()
        decision = decide(session, None if known is None else msgspec.msgpack.decode(known, type=Known), now)
        if isinstance(decision, Write):
            if not follows(ref, session, decision):
                return Fenced()
            self._write(ref, row, decision, now)
        return decision

    def session(self, ref: Ref, row: StoredSession) -> Session:
        """The session of a row; its state is a snapshot, folded again if it is damaged or another version's (law 1)."""
        if row.version != VERSION or codec.checksum(row.state) != row.checksum:
            return self._rebuild(ref, row)
        return msgspec.json.decode(row.state, type=Session)

    def events(self, ref: Ref, row: StoredSession, *, after: int, limit: int) -> Sequence[Event]:
        """Events by number; a missing one is an error and never a shorter log (law 7).

        A deleted session's log is erased from its beginning on, up to its last event.
        """
        first = min(row.events, default=row.head) if row.deleted else 1
        numbers = range(max(after + 1, first), row.head + 1)[:limit]
        if row.shelf is not None and not row.deleted and any(seq not in row.events for seq in numbers):
            raise Shelved(ref.tenant, ref.id, row.shelf)
        return [_event(ref, seq, row.events.get(seq)) for seq in numbers]

    def claim(self, owner: str, *, limit: int, chances: int = 1) -> Sequence[Claimed]:
        """Ready sessions whose owner is gone, the longest waiting first. A damaged one stops no other (P5)."""
        if not self.alive(owner):
            return []
        now = self._unix_ms()
        waiting = [
            (max(row.since, row.ready_at), ref.id, ref)
            for ref, row in self.rows.items()
            if row.ready_at is not None and row.ready_at <= now and not self.alive(row.owner)
        ]
        claimed: list[Claimed] = []
        shelved: Shelved | None = None
        for _, _, ref in sorted(waiting, key=lambda entry: entry[:2]):
            if len(claimed) == limit:
                break
            try:
                decide = partial(_claim, owner=owner, chances=chances)
                decision = self.decide(ref, decide)
            except Shelved as error:
                shelved = error
                continue
            except Unreadable as error:
                _log.error("session %s cannot be claimed, an operator must look: %s", ref.id, error)
                continue
            if isinstance(decision, Write):
                claimed.append(decision.result)
                lease = decision.result.lease
                chances -= lease is not None and lease.attempt >= ATTEMPTS_MAX
        if shelved is not None and not claimed:
            raise shelved
        return claimed

    def page(self, tenant: str, query: Query) -> Page:
        """A page of a tenant's sessions."""
        found: list[Session] = []
        for ref in sorted((ref for ref in self.rows if ref.tenant == tenant), key=lambda ref: ref.id):
            if ref.id <= query.after or not _matches(session := self.session(ref, self.rows[ref]), query):
                continue
            if len(found) == query.limit:
                return Page(tuple(found), next=found[-1].id)
            found.append(session)
        return Page(tuple(found))

    def erase_some(self, ref: Ref, epoch: int) -> bool:
        """Remove some of a deleted session's events and keys, but not its last event; whether there is more."""
        row = self.rows.get(ref)
        if row is None or not row.deleted:
            return False
        events = [seq for seq in sorted(row.events) if seq < row.head]
        digests = list(row.known)
        for seq in events[:ERASED_AT_ONCE]:
            del row.events[seq]
        for digest in digests[:ERASED_AT_ONCE]:
            del row.known[digest]
        if max(len(events), len(digests)) > ERASED_AT_ONCE:
            return True
        if row.epoch == epoch:
            row.erased, row.shelf = True, None
        return False

    def unerased(self, after: Ref | None, limit: int) -> dict[Ref, int]:
        """Deleted sessions that do not count as erased, in order of tenant and id, and their epochs."""
        found = sorted((ref.tenant, ref.id) for ref, row in self.rows.items() if row.deleted and not row.erased)
        behind = [name for name in found if after is None or name > (after.tenant, after.id)]
        return {(ref := Ref(*name)): self.rows[ref].epoch for name in behind[:limit]}

    def walk(self, after: Ref | None, limit: int) -> list[Session]:
        """Sessions in the order of their beginnings."""
        refs = list(self.rows)
        if after is not None and after not in self.rows:
            raise Unreadable(f"session {after.id}: a walk cannot go on behind it, there is none")
        begin = 0 if after is None else refs.index(after) + 1
        found: list[Session] = []
        for ref in refs[begin : begin + limit]:
            try:
                session = self.session(ref, self.rows[ref])
                found.append(replace(session, shelved=True) if self.rows[ref].shelf is not None else session)
            except Unreadable as error:
                if found:
                    break
                raise named(ref, error) from error
        return found

    def shelve(self, ref: Ref, shelf: bytes, *, head: int, epoch: int) -> bool:
        """Remove the events of an idle session, and keep what says where they are."""
        row = self.rows.get(ref)
        if row is None or row.deleted or row.shelf is not None or (row.head, row.epoch) != (head, epoch):
            return False
        if row.owner is not None or self.session(ref, row).open:
            return False
        row.shelf, row.events = shelf, {}
        return True

    def unshelve(self, ref: Ref, shelf: bytes, events: Sequence[Event]) -> None:
        """Put them back."""
        row = self.rows.get(ref)
        if row is not None and not row.deleted and row.shelf == shelf:
            row.shelf = None
            row.events.update((event.seq, _stored(event)) for event in events)

    def keys(self, ref: Ref) -> dict[bytes, Known]:
        """What is known under the session's keys."""
        row = self.rows.get(ref)
        known = {} if row is None else row.known
        return {digest: msgspec.msgpack.decode(one, type=Known) for digest, one in known.items()}

    def alive(self, incarnation: str | None) -> bool:
        """Whether a member has beaten within its time to live and its process is not known to be gone."""
        record = self.members.get(incarnation or "")
        return record is not None and incarnation not in self._killed and self._seconds() < record.expires

    def renew(self, member: Member, ttl: timedelta) -> None:
        """A beat: the member lives for `ttl` from now on. The dead do not beat."""
        if member.incarnation not in self._killed:
            self.members[member.incarnation] = StoredMember(member, self._seconds() + ttl.total_seconds())

    def kill(self, incarnation: str) -> None:
        """What the operating system would tell: this process is gone, and it will not come back."""
        self._killed.add(incarnation)

    def bury(self) -> Sequence[str]:
        """Take the dead off the list. Their sessions keep their owner's name, so that a claim counts the attempt."""
        dead = [incarnation for incarnation in self.members if not self.alive(incarnation)]
        for incarnation in dead:
            del self.members[incarnation]
        return dead

    def _write(self, ref: Ref, row: StoredSession | None, write: Write[R], now: int) -> None:
        session = write.session
        fresh = {event.seq: _stored(event) for event in write.events}
        keys = [(digest, msgspec.msgpack.encode(known)) for digest, known in write.keys]
        state = msgspec.json.encode(session)
        free_before = row is not None and row.owner is None and row.ready_at == 0
        still_free = free_before and session.owner is None and session.ready_at == 0
        stored = self.rows[ref] = StoredSession(
            head=session.head,
            epoch=session.epoch,
            owner=session.owner,
            attempt=session.open[0].attempt if session.open else 0,
            ready_at=session.ready_at,
            since=row.since if row is not None and still_free else now,
            version=VERSION,
            state=state,
            checksum=codec.checksum(state),
            deleted=session.deleted,
        )
        if row is not None:
            stored.events, stored.known, stored.shelf = row.events, row.known, row.shelf
        stored.events.update(fresh)
        for digest, known in keys:
            stored.known.setdefault(digest, known)

    def _rebuild(self, ref: Ref, row: StoredSession) -> Session:
        if row.deleted and 1 not in row.events:
            last = _event(ref, row.head, row.events.get(row.head))
            return replace(tombstone(ref.id, ref.tenant, last), epoch=row.epoch, owner=row.owner)
        session = fold(ref.id, ref.tenant, self.events(ref, row, after=0, limit=row.head))
        oldest = tuple(replace(turn, attempt=max(turn.attempt, row.attempt)) for turn in session.open[:1])
        return replace(session, epoch=row.epoch, owner=row.owner, open=oldest + session.open[1:])


def _stored(event: Event) -> StoredEvent:
    number = codec.number_of(event.type)
    return StoredEvent(number, codec.VERSION, event.turn, event.at, event.data, codec.checksum(event.data))


def _event(ref: Ref, seq: int, stored: StoredEvent | None) -> Event:
    if stored is None:
        raise Unreadable(f"session {ref.id}: event {seq} is missing")
    if codec.checksum(stored.data) != stored.checksum:
        raise Unreadable(f"session {ref.id}: event {seq} does not match its checksum")
    kind = codec.name_of(stored.number)
    return Event(seq, kind, stored.turn, stored.at, codec.upcast(kind, stored.version, stored.data))


def _matches(session: Session, query: Query) -> bool:
    return (
        not session.deleted
        and query.status in ("", session.status)
        and query.user in (None, session.user)
        and session.has(query.metadata)
    )


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


def _claim(session: Session | None, known: Known | None, now: int, *, owner: str, chances: int) -> Decision[Claimed]:
    return claim(session, now, owner=owner, chances=chances)
