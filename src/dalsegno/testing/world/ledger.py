"""The outside world as tools change it: what was tried, what took effect, and in whose name.

The ledger honours keys as a good payment service does: a key that it has seen changes nothing. It remembers more than
such a service could: which recorded decision each attempt was for, and whether its replica still held the lease.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from dalsegno.ports import Call

Lease = Literal["held", "stale"]


class Ledger:
    """One per world. `tries` are the keys under which each call was made; `lease`: whether its replica still had it."""

    def __init__(self) -> None:
        self.tries: dict[str, list[str]] = {}
        self.applied: Counter[str] = Counter()
        self.applied_stale: Counter[str] = Counter()
        self.problems: list[str] = []
        self._keys: dict[str, str] = {}

    def attempt(self, call: Call) -> None:
        """A tool begins to act for this call."""
        self.tries.setdefault(identity(call), []).append(call.key)

    def row(self, call: Call) -> str:
        """A row that nobody writes but the try that has just begun."""
        return f"{identity(call)}#{len(self.tries[identity(call)])}"

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


def rows_of(name: str, rows: Iterable[str]) -> int:
    """How many of the database's rows were written for the call of that identity."""
    return sum(row.partition("#")[0] == name for row in rows)


def identity(call: Call) -> str:
    """The recorded decision behind a call, without its key: tenant, session, turn and call id."""
    return f"{call.tenant}/{call.session}/{call.turn}/{call.id}"
