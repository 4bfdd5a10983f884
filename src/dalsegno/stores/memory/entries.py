"""What the port `Cache` keeps, in a dict: entries that expire, that yield to newer ones, and that stay away once
forgotten.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta

import msgspec

from dalsegno.ports import Ref

ENTRY_BYTES_MAX = 512 * 1024
BYTES_MAX = 32 * 1024 * 1024
BESIDES_BYTES = 512
"""What an entry takes besides its content; most contents are smaller."""
FORGOTTEN_MAX = 10_000
FORGOTTEN = timedelta(minutes=10)
"""How long what arrives late is refused after a `forget`."""


class Entry(msgspec.Struct, frozen=True):
    """What is kept under a name. `expires` is in seconds."""

    version: int
    content: bytes
    expires: float


class MemoryEntries:
    """Entries within a budget of bytes; the oldest goes first. May be emptied."""

    def __init__(self, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._entries: OrderedDict[tuple[Ref, str], Entry] = OrderedDict()
        self._forgotten: OrderedDict[Ref, float] = OrderedDict()
        self._size = 0

    def put(self, ref: Ref, name: str, version: int, content: bytes, *, keep: timedelta) -> None:
        """Keep it, unless what is there is newer, it is too large, or `ref` was forgotten."""
        known = self.find(ref, name)
        newer = known is not None and known.version > version
        if newer or self._forgotten.get(ref, 0.0) > self._seconds() or len(content) > ENTRY_BYTES_MAX:
            return
        self._drop((ref, name))
        self._entries[ref, name] = Entry(version, content, self._seconds() + keep.total_seconds())
        self._size += len(content) + BESIDES_BYTES
        while self._size > BYTES_MAX:
            self._drop(next(iter(self._entries)))

    def find(self, ref: Ref, name: str) -> Entry | None:
        """What is kept under that name, if it has not expired."""
        found = self._entries.get((ref, name))
        if found is not None and found.expires <= self._seconds():
            self._drop((ref, name))
            return None
        return found

    def forget(self, ref: Ref) -> None:
        """Remove all that is kept of `ref`, and refuse what comes late."""
        for key in [key for key in self._entries if key[0] == ref]:
            self._drop(key)
        self._forgotten[ref] = self._seconds() + FORGOTTEN.total_seconds()
        self._forgotten.move_to_end(ref)
        while len(self._forgotten) > FORGOTTEN_MAX:
            self._forgotten.popitem(last=False)

    def clear(self) -> None:
        """Lose everything."""
        self._entries.clear()
        self._forgotten.clear()
        self._size = 0

    def _drop(self, key: tuple[Ref, str]) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._size -= len(found.content) + BESIDES_BYTES
