"""The archive: a session's events as compressed segments for the cold tier, and the shelf that lists them.

A segment is an object, named by the hash of its bytes; the shelf stays with the session's row. Both say which version
of this page wrote them. Whatever is not exactly the events that were put away is `Unreadable`.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from dalsegno.core import codec
from dalsegno.core.event import Event
from dalsegno.core.refs import Ref
from dalsegno.core.tier import folder
from dalsegno.errors import Unreadable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VERSION = 1
SEGMENT_BYTES = 1024 * 1024
"""About how much of a log, before compression, is one object."""
LEVEL = 3
_ENVELOPE_BYTES = 32


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """Where the events `first` to `last` are."""

    name: str
    first: int
    last: int


class Shelf(msgspec.Struct, frozen=True, array_like=True):
    """Where a session's events from 1 to the last segment's last are."""

    version: int
    segments: tuple[Segment, ...]


class _Record(msgspec.Struct, frozen=True, array_like=True):
    seq: int
    type: str
    version: int
    turn: int | None
    at: int
    data: bytes


class _Stretch(msgspec.Struct, frozen=True, array_like=True):
    version: int
    session: str
    events: tuple[_Record, ...]


_encode = msgspec.msgpack.Encoder().encode
_stretch = msgspec.msgpack.Decoder(_Stretch).decode
_shelf = msgspec.msgpack.Decoder(Shelf).decode


def cut(events: Iterable[Event], *, size: int = SEGMENT_BYTES) -> Iterator[Sequence[Event]]:
    """The events in stretches of about `size` bytes; each has at least one event."""
    stretch: list[Event] = []
    weight = 0
    for event in events:
        stretch.append(event)
        weight += _ENVELOPE_BYTES + len(event.data)
        if weight >= size:
            yield stretch
            stretch, weight = [], 0
    if stretch:
        yield stretch


def pack(ref: Ref, epoch: int, events: Sequence[Event]) -> tuple[Segment, bytes]:
    """The segment of a stretch of events, and the object's bytes. Put under `epoch`, like an artifact.

    Raises `Unreadable` for an event of a newer version: whoever brings it back would have lost what it was.
    """
    for event in events:
        codec.number_of(event.type)
    records = tuple(_Record(e.seq, e.type, codec.VERSION, e.turn, e.at, e.data) for e in events)
    content = zstd.compress(_encode(_Stretch(VERSION, ref.id, records)), LEVEL)
    name = f"{folder(ref.tenant, ref.id)}log/{epoch}-{hashlib.sha256(content).hexdigest()}"
    return Segment(name, events[0].seq, events[-1].seq), content


def unpack(ref: Ref, segment: Segment, content: bytes) -> list[Event]:
    """The events of a segment. Raises `Unreadable` unless they are all there, and this session's."""
    if not segment.name.endswith(hashlib.sha256(content).hexdigest()):
        raise Unreadable(f"session {ref.id}: its archived segment {segment.name} is damaged")
    try:
        found = _stretch(zstd.decompress(content))
    except (zstd.ZstdError, msgspec.MsgspecError) as error:
        raise Unreadable(f"session {ref.id}: its archived segment {segment.name} is no segment: {error}") from error
    seqs = [record.seq for record in found.events]
    if found.version != VERSION or found.session != ref.id or seqs != list(range(segment.first, segment.last + 1)):
        raise Unreadable(f"session {ref.id}: its archived segment {segment.name} is not what its shelf says")
    return [
        Event(record.seq, record.type, record.turn, record.at, codec.upcast(record.type, record.version, record.data))
        for record in found.events
    ]


def shelf_bytes(segments: Sequence[Segment]) -> bytes:
    """What the session's row keeps."""
    body = _encode(Shelf(VERSION, tuple(segments)))
    return codec.checksum(body).to_bytes(4, "big") + body


def parse_shelf(ref: Ref, stored: bytes) -> Sequence[Segment]:
    """The segments, the first events first. Raises `Unreadable` unless they are one stretch from event 1 on."""
    body, expected = stored[4:], 1
    try:
        found = _shelf(body) if codec.checksum(body) == int.from_bytes(stored[:4], "big") else None
    except msgspec.MsgspecError as error:
        raise Unreadable(f"session {ref.id}: what says where its archive is cannot be understood: {error}") from error
    if found is None or found.version != VERSION or not found.segments:
        raise Unreadable(f"session {ref.id}: what says where its archive is is damaged, or of a newer version")
    for segment in found.segments:
        if segment.first != expected or segment.last < segment.first:
            raise Unreadable(f"session {ref.id}: its archive has a gap before event {segment.first}")
        if not segment.name.startswith(folder(ref.tenant, ref.id)):
            raise Unreadable(f"session {ref.id}: its archive is said to be another session's")
        expected = segment.last + 1
    return found.segments
