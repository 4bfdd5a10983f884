"""Event ↔ bytes, in today's shape and in every older one.

`VERSION` counts changes of meaning. A store keeps the version beside the bytes; reading an older one runs the upcasters
between, one small function per step. A newer one is `Unreadable`: this replica must not guess.
"""

import zlib
from collections.abc import Callable

import msgspec

from dalsegno.core.event import NAME_OF, TYPES, Data, Event, Unknown
from dalsegno.core.json import JsonObject
from dalsegno.errors import Unreadable

VERSION = 1

Upcaster = Callable[[str, JsonObject], JsonObject]
UPCASTERS: dict[int, Upcaster] = {}
"""`UPCASTERS[n]` turns the data of version n into version n + 1; it is given the event's type."""

_encoder = msgspec.json.Encoder()
_decoders = {name: msgspec.json.Decoder(struct) for name, (_, struct) in TYPES.items()}
_plain = msgspec.json.Decoder(dict)


def encode(data: Data) -> bytes:
    """The bytes that go into the log."""
    return _encoder.encode(data)


def decode(event: Event) -> Data | Unknown:
    """The typed content of an event. An unknown type is `Unknown`; bytes that do not fit their type are
    `Unreadable`.
    """
    decoder = _decoders.get(event.type)
    if decoder is None:
        return Unknown(event.type)
    try:
        return decoder.decode(event.data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unreadable(f"event {event.seq} ({event.type}) cannot be understood: {error}") from error


def upcast(kind: str, version: int, data: bytes, upcasters: dict[int, Upcaster] | None = None) -> bytes:
    """Bytes of an older version in today's shape. Raises `Unreadable` for a version from the future."""
    table = UPCASTERS if upcasters is None else upcasters
    today = 1 + len(table)
    if version == today:
        return data
    if version > today or version < 1:
        raise Unreadable(f"an event of version {version} is newer than this replica, which knows {today}; upgrade it")
    try:
        value: JsonObject = _plain.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unreadable(f"an event of version {version} cannot be understood: {error}") from error
    for step in range(version, today):
        value = table[step](kind, value)
    return _encoder.encode(value)


def number_of(kind: str) -> int:
    """The number under which stores keep an event type. A writer refuses a type that it does not know."""
    try:
        return TYPES[kind][0]
    except KeyError:
        raise Unreadable(f"this version does not know the event type {kind!r} and will not write it") from None


_NAMES = {number: name for name, (number, _) in TYPES.items()}


def name_of(number: int) -> str:
    """The event type of a stored number; an unknown one is passed through under a name of its own."""
    return _NAMES.get(number, f"x.{number}")


def type_of(data: Data) -> str:
    """The event type that a struct is the content of."""
    return NAME_OF[type(data)]


def checksum(data: bytes) -> int:
    """What a store keeps to recognise damaged bytes."""
    return zlib.crc32(data)
