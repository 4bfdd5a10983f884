"""What the model was shown and what it answered, request by request, so that a test can prove both."""

import time
from collections import deque
from typing import Any, Literal, TypeAlias

import msgspec

from dalsegno.testing.model.answer import Answer
from dalsegno.testing.model.faults import Fault
from dalsegno.testing.model.shown import Protocol, Shown

KEPT = 10_000
SECRETS = ("authorization", "x-api-key", "api-key")
End: TypeAlias = Literal["open", "done", "refused", "failed", "cut", "left"]


class Entry(msgspec.Struct):
    """One request, which came `at` (Unix milliseconds). `sent` deltas out of `deltas` have been written so far.

    `ended`: `done`, `refused` (400, why in `refusal`), `failed` or `cut` (a fault), `left` (by the client).
    """

    number: int
    protocol: Protocol
    headers: dict[str, str]
    at: int
    request: Any = None
    shown: Shown | None = None
    status: int = 0
    refusal: str = ""
    fault: Fault | None = None
    answer: Answer | None = None
    sent: int = 0
    deltas: int = 0
    ended: End = "open"


class Log:
    """The latest entries, the oldest first."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._count = 0

    def begin(self, protocol: Protocol, headers: dict[str, str]) -> Entry:
        """A request has come. Keys are not kept."""
        self._count += 1
        kept = {name: "…" if name in SECRETS else value for name, value in headers.items()}
        entry = Entry(self._count, protocol, kept, time.time_ns() // 10**6)
        self._entries.append(entry)
        return entry

    def after(self, number: int) -> list[Entry]:
        """The entries behind that one."""
        return [entry for entry in self._entries if entry.number > number]

    @property
    def entries(self) -> list[Entry]:
        """All of them."""
        return [*self._entries]

    @property
    def shown(self) -> list[Shown]:
        """Every context that was taken, in order."""
        return [entry.shown for entry in self._entries if entry.shown is not None]

    @property
    def refusals(self) -> list[str]:
        """Why contexts were not taken. No test of an agent should end without looking here."""
        return [entry.refusal for entry in self._entries if entry.ended == "refused"]

    def clear(self) -> None:
        """Forget everything; numbers go on."""
        self._entries.clear()
