"""Everything that can go wrong, in one tree. Knows no other module.

Exception
└── DalsegnoError
    ├── Refused           the caller asked for something that is not so; nothing was applied; do not retry as it is
    ├── Unavailable       a tier did not answer; `outcome` says what is known; retry with the same key
    ├── Unreadable        stored state is corrupt, foreign or from a newer version; an operator must look
    ├── ConfigError       the process cannot start with what it was given
    └── BadArguments      a model called a tool with arguments that do not fit; the model is told

BaseException
└── PlatformSignal        no agent code can swallow these; caught in one place, `runtime.turn`
    ├── LeaseLost         another replica owns the session now: stop at once, write nothing
    ├── Parked            the turn waits for a human or an outside tool: leave, hold nothing
    └── HandedOver        this replica drains: leave at the step boundary, another goes on
"""

from typing import Literal

Outcome = Literal["not_applied", "unknown"]


class DalsegnoError(Exception):
    """Base of every error that Dalsegno raises on purpose."""


class Refused(DalsegnoError):
    """The request contradicts the session's state or the contract; nothing was applied.

    `code` is one of the documented error codes (`session_busy`, `key_reused`, `not_found`, ...).
    """

    outcome: Outcome = "not_applied"

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Unavailable(DalsegnoError):
    """A tier did not answer in time. With `outcome="unknown"` the write may have been applied: retry by key."""

    def __init__(self, detail: str, *, outcome: Outcome = "unknown", code: str = "store_unavailable") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.outcome: Outcome = outcome


class Unreadable(DalsegnoError):
    """Stored bytes cannot be verified or understood. Never answered with an empty or an older history (law 7)."""


class ConfigError(DalsegnoError):
    """What the operator gave does not make a working process; the message says what to change."""


class BadArguments(DalsegnoError):
    """Arguments that do not fit the tool's parameters. Not an error of the agent: the text goes back to the model."""


class PlatformSignal(BaseException):
    """Control flow of the platform, not an error of the user (law 6)."""


class LeaseLost(PlatformSignal):
    """A write was refused because its epoch is stale. Whoever holds it must stop: the session moved on elsewhere."""


class Parked(PlatformSignal):
    """The turn's next move is somebody else's; the log already says so and the lease is given back."""


class HandedOver(PlatformSignal):
    """The replica is draining and the turn reached a step boundary."""
