"""A session and its decisions as rows, and back. Pure: knows the columns, and nothing of connections."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from dalsegno.core import codec
from dalsegno.core.append import Write
from dalsegno.core.event import Event
from dalsegno.core.session import VERSION, Session, replace
from dalsegno.errors import Shelved, Unreadable
from dalsegno.ports import Ref
from dalsegno.stores.bodies import packed, unpacked
from dalsegno.stores.postgres.arrays import ARRAYS, SCALARS, Bodies, Column, Numbers, Texts

R = TypeVar("R")
Row: TypeAlias = tuple[Any, ...]

STATUS = {"idle": 0, "running": 1, "waiting": 2}
DELETED, ERASED = 3, 4
PACKED = 0x4000
"""The bit of an event's `kind` that says that its body is a frame."""

_SESSION: tuple[tuple[str, type[Column]], ...] = (
    ("n", Numbers),
    ("head", Numbers),
    ("epoch", Numbers),
    ("owner", Texts),
    ("attempt", Numbers),
    ("ready_at", Numbers),
    ("since", Numbers),
    ("status", Numbers),
    ("user", Bodies),
    ("state", Bodies),
    ("was_head", Numbers),
    ("was_epoch", Numbers),
    ("was_owner", Texts),
    ("was_state", Bodies),
    ("absent", Bodies),
)
_EVENT: tuple[tuple[str, type[Column]], ...] = (
    ("event_session", Numbers),
    ("event_seq", Numbers),
    ("event_kind", Numbers),
    ("event_turn", Numbers),
    ("event_at", Numbers),
    ("event_crc", Numbers),
    ("event_body", Bodies),
)
_KEY: tuple[tuple[str, type[Column]], ...] = (
    ("key_session", Numbers),
    ("key_digest", Bodies),
    ("key_fingerprint", Bodies),
    ("key_seq", Numbers),
    ("key_turn", Numbers),
    ("key_status", Texts),
)

LONE = {
    **{name: SCALARS[kind][0] for name, kind in _SESSION},
    **{name: ARRAYS[kind][0] for name, kind in _EVENT + _KEY},
}
"""The places of `session_write_one`, in order, and their types: a session's columns, and columns of events and keys."""

MANY = {name: ARRAYS[kind][0] for name, kind in _SESSION + _EVENT + _KEY}
"""The places of `session_write`, in order, and their types: all are columns."""

_SEND = [SCALARS[kind][1] for _, kind in _SESSION]
_SEND_SESSIONS = [ARRAYS[kind][1] for _, kind in _SESSION]
_SEND_EVENTS = [ARRAYS[kind][1] for _, kind in _EVENT]
_SEND_KEYS = [ARRAYS[kind][1] for _, kind in _KEY]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Session).decode


class Kept(NamedTuple):
    """A session as it was last read or written. The bytes of its state decide whether it still is."""

    n: int
    state: bytes | None
    session: Session
    since: int


class Change(NamedTuple):
    """A decision as rows: what is to be kept when it is written, and what goes with it."""

    kept: Kept
    session: Row
    was: Row
    events: Sequence[Row]
    keys: Sequence[Row]


def change(kept: Kept | None, write: Write[R], now: int, absent: bytes | None = None) -> Change:
    """The rows of a decision about `kept` (None = there is no such session). `absent` must not be a known digest."""
    session, n = write.session, 0 if kept is None else kept.n
    before = None if kept is None else kept.session
    blob = _encode(session)
    state = codec.checksum(blob).to_bytes(4, "big") + blob
    waits = session.owner is None and session.ready_at == 0
    waited = before is not None and before.owner is None and before.ready_at == 0
    since = kept.since if kept is not None and waits and waited else now
    row = (
        n,
        session.head,
        session.epoch,
        session.owner,
        session.open[0].attempt if session.open else 0,
        session.ready_at,
        since,
        DELETED if session.deleted else STATUS[session.status],
        None if session.user is None else session.user.encode(),
        state,
    )
    was = () if kept is None or before is None else (before.head, before.epoch, before.owner, kept.state, absent)
    events = [_event_row(n, event) for event in write.events]
    keys = [(n, digest, known.fingerprint, known.seq, known.turn, known.status) for digest, known in write.keys]
    return Change(Kept(n, state, session, since), row, was, events, keys)


def writing(changes: Sequence[Change]) -> Mapping[str, object]:
    """The parameters of `session_write`, for psycopg."""
    return {
        **_columns(_SESSION, [one.session + one.was for one in changes]),
        **_columns(_EVENT, [row for one in changes for row in one.events]),
        **_columns(_KEY, [row for one in changes for row in one.keys]),
    }


def many(changes: Sequence[Change]) -> list[bytes | None]:
    """The parameters of `session_write`, as they are sent."""
    sessions = _sent(_SEND_SESSIONS, [one.session + one.was for one in changes])
    events = _sent(_SEND_EVENTS, [row for one in changes for row in one.events])
    return [*sessions, *events, *_sent(_SEND_KEYS, [row for one in changes for row in one.keys])]


def lone(one: Change) -> list[bytes | None]:
    """The parameters of `session_write_one`, as they are sent."""
    row = [None if value is None else send(value) for send, value in zip(_SEND, one.session + one.was, strict=True)]
    return [*row, *_sent(_SEND_EVENTS, one.events), *_sent(_SEND_KEYS, one.keys)]


def adding(ref: Ref, one: Change) -> Mapping[str, object]:
    """The parameters of `session_add`."""
    names = [name for name, _ in _SESSION]
    return {
        **dict(zip(names, one.session, strict=False)),
        **_columns(_EVENT, one.events),
        **_columns(_KEY, one.keys),
        "tenant": ref.tenant,
        "id": ref.id,
    }


def shelved(events: Sequence[Event]) -> Mapping[str, object]:
    """The parameters of `session_unshelve` that are events."""
    return _columns(_EVENT, [_event_row(0, event) for event in events])


def snapshot(state: object) -> Session | None:
    """The session of a row's state, if it is whole and of today's version."""
    if type(state) is not bytes or codec.checksum(state[4:]) != int.from_bytes(state[:4], "big"):
        return None
    try:
        session = _decode(state[4:])
    except msgspec.MsgspecError:
        return None
    return session if session.version == VERSION else None


def leased(session: Session, epoch: int, owner: str | None) -> Session:
    """The session under the lease that the row's columns tell."""
    return session if (session.epoch, session.owner) == (epoch, owner) else replace(session, epoch=epoch, owner=owner)


def event(ref: Ref, row: Row) -> Event:
    """The event of a row (seq, kind, turn, at, crc, body). Raises `Unreadable` if it is damaged."""
    seq, kind, turn, at, crc, stored = row
    if codec.checksum(stored) != crc & 0xFFFF_FFFF:
        raise Unreadable(f"session {ref.id}: event {seq} does not match its checksum")
    body = unpacked(stored) if kind & PACKED else stored
    name = codec.name_of(kind & 0xFF)
    return Event(seq, name, turn or None, at, codec.upcast(name, (kind >> 8 & 0x3F) + 1, body))


def missing(ref: Ref, shelf: bytes | None, what: str) -> Unreadable:
    """Why events are not here: they are shelved, or lost."""
    return Unreadable(f"session {ref.id}: {what}") if shelf is None else Shelved(ref.tenant, ref.id, shelf)


def _event_row(n: int, event: Event) -> Row:
    kind = codec.number_of(event.type) + (codec.VERSION - 1) * 256
    frame = packed(event.data)
    stored = event.data if frame is None else frame
    crc = codec.checksum(stored)
    signed = crc - 0x1_0000_0000 if crc >= 0x8000_0000 else crc
    return n, event.seq, kind if frame is None else kind | PACKED, event.turn or 0, event.at, signed, stored


def _columns(columns: Sequence[tuple[str, type[Any]]], rows: Sequence[Row]) -> dict[str, object]:
    if not rows:
        return {name: kind() for name, kind in columns}
    return {name: kind(values) for (name, kind), values in zip(columns, zip(*rows, strict=True), strict=True)}


def _sent(columns: Sequence[Callable[[Any], bytes]], rows: Sequence[Row]) -> list[bytes | None]:
    """NULL is an array without elements, too, and costs nothing."""
    if not rows:
        return [None] * len(columns)
    return [send(values) for send, values in zip(columns, zip(*rows, strict=True), strict=True)]
