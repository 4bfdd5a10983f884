"""Everything that can go wrong, in one tree. Knows no other module.

Exception
└── DalsegnoError
    ├── Refused           the caller asked for something that is not so; nothing was applied; do not retry as it is
    │   └── Conflict      somebody else was faster, or is at it: load again, decide again, try again
    ├── InDoubt           an effect may have happened: find out, and put it on record; do not repeat it blindly
    ├── NotDone           a function that runs once says so: nothing has happened, and it may be called again
    ├── Unavailable       a tier did not answer; `outcome` says what is known; retry with the same key
    │   └── TookTooLong   a tool's transaction outlived its own time and was undone: the tier is well, the tool is slow
    ├── Unreadable        stored state is corrupt, foreign or from a newer version; an operator must look
    │   ├── Damaged       the same of one session of many, and which one: go on behind it
    │   └── Shelved       the events are archived in the cold tier: bring them back and ask again (`runtime.shelf` does)
    ├── ConfigError       the process cannot start with what it was given
    └── BadArguments      a model called a tool with arguments that do not fit; the model is told

BaseException
└── PlatformSignal        no agent code can swallow these; caught in one place, `runtime.turn`
    ├── LeaseLost         another replica owns the session now: stop at once, write nothing
    ├── Parked            the turn waits for a human or an outside tool: leave, hold nothing
    ├── HandedOver        this replica drains: leave at the step boundary, another goes on
    └── TurnOver          the turn has ended or is being undone: nothing new is made for it
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


class Conflict(Refused):
    """Another writer was faster (`version_mismatch`), or has the session now (`session_busy`); nothing was applied."""


class InDoubt(DalsegnoError):
    """A call of a function that must not be repeated blindly (`store.idempotent`) did not live to report.

    Find out whether it happened, and tell its `settle`. `session` holds its record.
    """

    def __init__(self, session: str, why: str) -> None:
        super().__init__(f"{session} may have happened or not: {why}")
        self.session = session


class NotDone(DalsegnoError):
    """Raised by a function that runs once for each key (`store.idempotent`): nothing has happened, and it may be called
    again. Whatever else it raises may have come after the effect.
    """


class Unavailable(DalsegnoError):
    """A tier did not answer in time. With `outcome="unknown"` the write may have been applied: retry by key."""

    def __init__(self, detail: str, *, outcome: Outcome = "unknown", code: str = "store_unavailable") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.outcome: Outcome = outcome

    @property
    def brief(self) -> str:
        """What anybody may be told: the rest of `detail`, behind its first colon, may name hosts, paths and users."""
        return self.detail.partition(": ")[0]


class TookTooLong(Unavailable):
    """A tool's transaction was not over in the tool's own time, and was undone. The model is told."""

    def __init__(self, detail: str = "the transaction took too long and was undone") -> None:
        super().__init__(detail, outcome="not_applied")


class Unreadable(DalsegnoError):
    """Stored bytes cannot be verified or understood. Never answered with an empty or an older history (law 7)."""


class Damaged(Unreadable):
    """One session of many cannot be read; the others can, when whoever walks past them goes on behind this one."""

    def __init__(self, tenant: str, session: str, detail: str) -> None:
        super().__init__(detail)
        self.tenant = tenant
        self.session = session


class Shelved(Unreadable):
    """The events that were asked for are in the cold tier; `shelf` says where, in the words of whoever shelved them."""

    def __init__(self, tenant: str, session: str, shelf: bytes) -> None:
        super().__init__(f"session {session}: its events are archived")
        self.tenant = tenant
        self.session = session
        self.shelf = shelf


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


class TurnOver(PlatformSignal):
    """The turn has ended, or failed and is being undone: what its agent left behind makes nothing new, and leaves."""
