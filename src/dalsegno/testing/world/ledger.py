"""The outside world as tools change it: what was tried, what took effect, and in whose name.

The ledger honours keys as a good payment service does: a key that it has seen changes nothing. It remembers more than
such a service could: which recorded decision each attempt was for, and whether its replica still held the lease.
"""

from collections import Counter
from typing import Literal

import msgspec

from dalsegno.ports import Call

Lease = Literal["held", "stale"]


class Attempt(msgspec.Struct, frozen=True):
    """One run of a tool. `lease` says whether its replica had the session's lease when it acted."""

    tool: str
    identity: str
    key: str
    lease: Lease
    at: float


class Ledger:
    """One per world."""

    def __init__(self) -> None:
        self.attempts: dict[str, list[Attempt]] = {}
        self.applied: Counter[str] = Counter()
        self.applied_stale: Counter[str] = Counter()
        self.problems: list[str] = []
        self._keys: dict[str, str] = {}

    def attempt(self, call: Call, *, lease: Lease, at: float) -> None:
        """A tool begins to act for this call."""
        name = identity(call)
        self.attempts.setdefault(name, []).append(Attempt(call.name, name, call.key, lease, at))

    def apply(self, call: Call, *, lease: Lease) -> None:
        """Change the world, whatever the key."""
        self.applied[identity(call)] += 1
        if lease == "stale":
            self.applied_stale[identity(call)] += 1

    def apply_keyed(self, call: Call, *, lease: Lease) -> None:
        """Change the world unless this key has."""
        owner = self._keys.get(call.key)
        if owner is None:
            self._keys[call.key] = identity(call)
            self.apply(call, lease=lease)
        elif owner != identity(call):
            self.problems.append(f"{owner} and {identity(call)} have the same key")


def identity(call: Call) -> str:
    """The recorded decision behind a call, without its key: tenant, session, turn and call id."""
    return f"{call.tenant}/{call.session}/{call.turn}/{call.id}"
