"""A cursor says exactly what a client has of a session's stream: `seq`, or `seq.offset` inside an open step.

`seq` is the last durable event it has; `offset` counts the units of the open step that it has beyond that: one for each
item opened, one for each code point of its deltas. Closing an item takes that item's units off.
"""

import re

import msgspec

from dalsegno.errors import Refused

_CURSOR = re.compile(r"(0|[1-9][0-9]{0,9})(?:\.([1-9][0-9]{0,11}))?")


class Cursor(msgspec.Struct, frozen=True, order=True):
    """A position; cursors of one session are ordered, and what is streamed never goes backwards."""

    seq: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.seq}.{self.offset}" if self.offset else str(self.seq)


def parse(text: str) -> Cursor:
    """The cursor that a client sent. Raises `Refused("invalid_cursor")`; whether it is ahead only the log can tell."""
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise Refused("invalid_cursor", "a cursor is the `id` of an event as it was received, such as 17 or 17.240")
    return Cursor(int(found[1]), int(found[2] or 0))
