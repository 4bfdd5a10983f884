"""Columns of values as array parameters, in PostgreSQL's binary format.

psycopg's own dumper for lists looks at each element for its type, and an empty list or a None changes the parameter's
type and so the prepared statement; these know theirs.
"""

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from psycopg import adapters
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format
from psycopg.types.numeric import Int8BinaryDumper

INT8, BYTEA, TEXT = 20, 17, 25
INT8_ARRAY, BYTEA_ARRAY, TEXT_ARRAY = 1016, 1001, 1009

_pack_header = struct.Struct(">iiiii").pack
_pack_empty = struct.Struct(">iii").pack
_pack_length = struct.Struct(">i").pack
_iter_numbers = struct.Struct(">iq").iter_unpack
_HEADER_BYTES = struct.calcsize(">iiiii")
_NULL = _pack_length(-1)


class Numbers(tuple[int | None, ...]):
    """A `bigint[]`."""


class Bodies(tuple[bytes | None, ...]):
    """A `bytea[]`."""


class Texts(tuple[str | None, ...]):
    """A `text[]`."""


Column: TypeAlias = Numbers | Bodies | Texts


_number = partial(struct.Struct(">iq").pack, 8)


SCALARS: dict[type[Column], tuple[int, Callable[[Any], bytes]]] = {
    Numbers: (INT8, struct.Struct(">q").pack),
    Bodies: (BYTEA, bytes),
    Texts: (TEXT, str.encode),
}
"""The type of a column's values, and how one that is not NULL is sent alone."""

ARRAYS: dict[type[Column], tuple[int, Callable[[Any], bytes]]] = {
    Numbers: (INT8_ARRAY, lambda values: _array(INT8, [_NULL if v is None else _number(v) for v in values])),
    Bodies: (BYTEA_ARRAY, lambda values: _array(BYTEA, _sized(values))),
    Texts: (TEXT_ARRAY, lambda values: _array(TEXT, _sized([None if v is None else v.encode() for v in values]))),
}
"""The type of a column, and how it is sent."""


def _array(oid: int, elements: Sequence[bytes]) -> bytes:
    return _pack_header(1, 1, oid, len(elements), 1) + b"".join(elements) if elements else _pack_empty(0, 0, oid)


def _sized(values: Sequence[bytes | None]) -> list[bytes]:
    return [_NULL if v is None else _pack_length(len(v)) + v for v in values]


def numbers(content: bytes | None) -> list[int]:
    """The elements of a `bigint[]` without NULLs, as the server sends it; NULL has none."""
    if content is None or len(content) < _HEADER_BYTES:
        return []
    return [number for _, number in _iter_numbers(content[_HEADER_BYTES:])]


class _NumbersDumper(Dumper):
    format = Format.BINARY
    oid = INT8_ARRAY

    def dump(self, obj: Numbers) -> bytes:
        return ARRAYS[Numbers][1](obj)


class _BodiesDumper(Dumper):
    format = Format.BINARY
    oid = BYTEA_ARRAY

    def dump(self, obj: Bodies) -> bytes:
        return ARRAYS[Bodies][1](obj)


class _TextsDumper(Dumper):
    format = Format.BINARY
    oid = TEXT_ARRAY

    def dump(self, obj: Texts) -> bytes:
        return ARRAYS[Texts][1](obj)


def adapted() -> AdaptersMap:
    """How a connection for our own statements translates. Every number is a `bigint`, however small it is."""
    ours = AdaptersMap(adapters)
    ours.register_dumper(Numbers, _NumbersDumper)
    ours.register_dumper(Bodies, _BodiesDumper)
    ours.register_dumper(Texts, _TextsDumper)
    ours.register_dumper(int, Int8BinaryDumper)
    return ours
