"""Effects: what a tool does to the world, and what follows from that after a crash.

A call's intent is recorded before it acts. When a replica dies between intent and result, the successor finds the
intent alone, and this table says what it may do. Nothing here runs a tool.
"""

from typing import Literal

import msgspec

from dalsegno.core import json
from dalsegno.core.event import EffectClass
from dalsegno.core.ids import short_hash
from dalsegno.core.json import Json

UnknownPolicy = Literal["probe", "ask", "tell"]
"""What to do about a `once` call whose outcome is unknown: ask a function, ask a human, or tell the model."""

Recovery = Literal["again", "probe", "ask", "tell"]

RECOVERY: dict[EffectClass, Recovery | None] = {
    "read": "again",
    "keyed": "again",
    "transactional": "again",
    "once": None,
}
"""What a successor does with an intent without a result. `again` is safe: reads change nothing, a keyed call carries
the key it had, and a transactional one that had happened would have left its record. `once` has its own policy."""

UNKNOWN = (
    "The outcome of this call is unknown: the process that ran it died before it could report. "
    "It was not repeated. Find out whether it happened before you try again."
)
DENIED = "The call was not carried out: a human denied it."


class Happened(msgspec.Struct, frozen=True):
    """A probe's finding: the effect happened, and this is what the tool would have returned."""

    result: Json


class DidNotHappen(msgspec.Struct, frozen=True):
    """A probe's finding: the effect did not happen, and the call may run."""


Finding = Happened | DidNotHappen | None
"""What a probe may answer; None = it cannot tell, and the model is told so."""


def recovery(effect: EffectClass, policy: UnknownPolicy) -> Recovery:
    """What to do with a call whose intent is on record and whose result is not."""
    return RECOVERY[effect] or policy


def dedupe_digest(name: str, arguments: Json) -> str:
    """The name of a call by what it asks: same tool and same canonical arguments (RFC 8785) give the same digest."""
    return short_hash("call", name, json.canonical(arguments))
