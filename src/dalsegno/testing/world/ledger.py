"""The outside world as tools change it: what was tried, what took effect, and in whose name.

The ledger honours keys as a good payment service does: a key that it has seen changes nothing. It remembers more than
such a service could: which recorded decision each attempt was for, and whether its replica still held the lease.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from dalsegno.ports import Call, Undo

Lease = Literal["held", "stale"]
UNDONE = "undone "
"""What the name of a row begins with that says how often a call was undone in the database."""


class Ledger:
    """One per world. `tries` are the keys under which each call was made; `lease`: whether its replica still had it."""

    def __init__(self) -> None:
        self.tries: dict[str, list[str]] = {}
        self.applied: Counter[str] = Counter()
        self.applied_stale: Counter[str] = Counter()
        self.problems: list[str] = []
        self.undone: list[str] = []
        """What was undone, in order, by the identities of the calls."""
        self._keys: dict[str, str] = {}
        self._undo_keys: set[str] = set()

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

    def undo(self, undo: Undo) -> None:
        """Undo what the call did, unless this key has; what comes under the call's own key from now on is too late."""
        if undo.key not in self._undo_keys:
            self._undo_keys.add(undo.key)
            self._keys[undo.call.key] = identity(undo.call)
            if self.applied[identity(undo.call)]:
                self.undone.append(identity(undo.call))


def rows_of(name: str, rows: Iterable[str]) -> int:
    """How many of the database's rows were written for the call of that identity."""
    return sum(row.partition("#")[0] == name for row in rows)


def identity(call: Call) -> str:
    """The recorded decision behind a call, without its key: tenant, session, turn and call id."""
    return f"{call.tenant}/{call.session}/{call.turn}/{call.id}"
