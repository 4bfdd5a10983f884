"""The ladder of degradation: what a replica still does while a tier fails. One table; everything that is said about it
is looked up here: `/readyz`, `/health`, and the rows of docs/explain/degradation.md.

The hot and the cold tier take no rung away: their loss costs time. Without the log nothing can be said. A log that
answers and does not accept is in between: what can be read is still served, so the replica stays where it can be asked.
"""

from collections.abc import Mapping
from functools import reduce
from typing import Literal

import msgspec

Tier = Literal["warm", "hot", "cold"]
State = Literal["ok", "refuses", "away"]
"""`refuses`: it answers, and does not do what it is asked: read-only, full, out of connections, here and there late."""


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """What is possible. `ready`: whether a load balancer should send requests here."""

    accepts: bool
    reads: bool

    @property
    def ready(self) -> bool:
        """Somebody is served here, if only a reader. In an outage of the log all replicas are unready alike."""
        return self.reads


WHOLE = Rung(accepts=True, reads=True)
READING = Rung(accepts=False, reads=True)
NOTHING = Rung(accepts=False, reads=False)

LADDER: Mapping[tuple[Tier, State], Rung] = {
    ("warm", "ok"): WHOLE,
    ("warm", "refuses"): READING,
    ("warm", "away"): NOTHING,
    ("hot", "ok"): WHOLE,
    ("hot", "refuses"): WHOLE,
    ("hot", "away"): WHOLE,
    ("cold", "ok"): WHOLE,
    ("cold", "refuses"): WHOLE,
    ("cold", "away"): WHOLE,
}


def standing(states: Mapping[Tier, State]) -> Rung:
    """The lowest of the rungs that the tiers leave."""
    return reduce(_lower, (LADDER[tier, state] for tier, state in states.items()), WHOLE)


def _lower(one: Rung, other: Rung) -> Rung:
    return Rung(accepts=one.accepts and other.accepts, reads=one.reads and other.reads)
