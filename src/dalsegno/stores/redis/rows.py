"""A session and its decisions as the log keeps them, and back. Pure: knows the columns, and nothing of connections."""

import struct
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec

from dalsegno.core import codec
from dalsegno.core.append import Known, Write
from dalsegno.core.event import Event
from dalsegno.core.session import VERSION, Session, replace
from dalsegno.errors import Unreadable
from dalsegno.ports import Ref
from dalsegno.stores.bodies import packed, unpacked
from dalsegno.stores.redis.line import Word

STATUS = {"idle": 0, "running": 1, "waiting": 2}
DELETED = 3
PACKED = 0x4000
"""The bit of an event's kind that says that its body is a frame."""

_ENVELOPE = struct.Struct(">IHIQ")
"""Number, kind, turn, time. Before it stands the CRC-32 of all that follows."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Session).decode
_decode_known = msgspec.msgpack.Decoder(Known).decode


class Row(NamedTuple):
    """A session's columns, in the order of the scripts."""

    stamp: bytes
    head: int
    epoch: int
    owner: str | None
    attempt: int
    ready_at: int | None
    since: int
    status: int
    state: bytes
    shelf: bytes | None


class Kept(NamedTuple):
    """A session as it was last read or written. The stamp says whether it still is."""

    stamp: bytes
    session: Session


class Terms(NamedTuple):
    """On which terms a write is written: the stamp it was decided on (nothing = there is no such session), a digest
    that must be unknown, a claimant who must live while the owner does not; how long the session is kept, and at what
    time at the latest it is written: those that are claimed together wait since the same moment.
    """

    was: bytes
    absent: bytes
    claimant: str
    retention: timedelta | None
    at: int


def row(columns: Sequence[Any]) -> Row:
    """The columns as a script shows them. Raises `Unreadable` if they are not what a script has written."""
    stamp, head, epoch, owner, attempt, ready_at, since, status, state, shelf = columns
    try:
        return Row(
            stamp=stamp,
            head=int(head),
            epoch=int(epoch),
            owner=owner.decode() or None,
            attempt=int(attempt),
            ready_at=int(ready_at) if ready_at else None,
            since=int(since),
            status=int(status),
            state=state or b"",
            shelf=shelf,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise Unreadable(f"a session's columns are damaged: {error}") from error


def writing(stamp: bytes, name: bytes, state: bytes, write: Write[Any], terms: Terms) -> list[Word]:
    """The arguments of `write`: a decision, the stamp that it is kept under, and its terms."""
    session = write.session
    words: list[Word] = [
        terms.was,
        stamp,
        name,
        session.head,
        session.epoch,
        session.owner or "",
        session.open[0].attempt if session.open else 0,
        "" if session.ready_at is None else session.ready_at,
        DELETED if session.deleted else STATUS[session.status],
        state,
        0 if terms.retention is None else round(terms.retention.total_seconds() * 1000),
        terms.absent,
        terms.claimant,
        terms.at,
        len(write.events),
        *map(packed_event, write.events),
    ]
    for digest, known in write.keys:
        words += (digest, _encode(known))
    return words


def state_of(session: Session) -> bytes:
    """The folded session as a row keeps it, behind its CRC-32."""
    blob = _encode(session)
    return codec.checksum(blob).to_bytes(4, "big") + blob


def snapshot(found: Row) -> Session | None:
    """The session of a row's state, if it is whole and of today's version; under the lease that the columns tell."""
    state = found.state
    if codec.checksum(state[4:]) != int.from_bytes(state[:4], "big"):
        return None
    try:
        session = _decode(state[4:])
    except msgspec.MsgspecError:
        return None
    if session.version != VERSION or session.head != found.head:
        return None
    leased = (session.epoch, session.owner) == (found.epoch, found.owner)
    return session if leased else replace(session, epoch=found.epoch, owner=found.owner)


def packed_event(event: Event) -> bytes:
    """An event as it is kept."""
    kind = codec.number_of(event.type) + (codec.VERSION - 1) * 256
    frame = packed(event.data)
    body = event.data if frame is None else frame
    content = _ENVELOPE.pack(event.seq, kind if frame is None else kind | PACKED, event.turn or 0, event.at) + body
    return codec.checksum(content).to_bytes(4, "big") + content


def event(ref: Ref, seq: int, stored: bytes | None) -> Event:
    """An event as it was given. Raises `Unreadable` for one that is missing, damaged or another's."""
    if stored is None:
        raise Unreadable(f"session {ref.id}: event {seq} is missing")
    content = stored[4:]
    if len(content) < _ENVELOPE.size or codec.checksum(content) != int.from_bytes(stored[:4], "big"):
        raise Unreadable(f"session {ref.id}: event {seq} does not match its checksum")
    number, kind, turn, at = _ENVELOPE.unpack_from(content)
    if number != seq:
        raise Unreadable(f"session {ref.id}: event {number} stands where event {seq} belongs")
    body = content[_ENVELOPE.size :]
    if kind & PACKED:
        body = unpacked(body)
    name = codec.name_of(kind & 0xFF)
    return Event(seq, name, turn or None, at, codec.upcast(name, (kind >> 8 & 0x3F) + 1, body))


def known(stored: bytes | None) -> Known | None:
    """What is known under a digest. Raises `Unreadable` if it is damaged."""
    try:
        return None if stored is None else _decode_known(stored)
    except msgspec.MsgspecError as error:
        raise Unreadable(f"what is known under a key is damaged: {error}") from error
