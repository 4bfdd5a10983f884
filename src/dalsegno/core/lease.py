"""The lease: a replica's right to run a session's turns. The states and the order of epochs, and what a claim does.

    free ──claim──► held ──release──► free
                     │
                     └─ owner dies ─► orphaned ──claim──► held (epoch + 1, attempt + 1)

The epoch is the fencing token: it only grows, and a store refuses every write that carries an older one.
"""

import msgspec


class Lease(msgspec.Struct, frozen=True):
    """The right of `owner` (a replica's incarnation) to write turn `turn` of a session, under `epoch`."""

    tenant: str
    session: str
    epoch: int
    owner: str
    turn: int
    attempt: int
    orphaned: bool = False
    """The turn was found under a dead owner: its open step must be picked up before it is started again."""
