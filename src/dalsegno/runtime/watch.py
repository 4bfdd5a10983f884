"""How the tiers have answered of late: noticed where they are used, said once when it begins and once after its end."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from dalsegno.errors import TookTooLong, Unavailable

log = logging.getLogger("dalsegno.tiers")

R = TypeVar("R")
SETTLED_SECONDS = 2.0
"""A tier that fails now and then is one that fails: it is over when nothing has failed for so long."""


class Watch:
    """One tier's. `count` is called for each call that fails."""

    def __init__(
        self,
        tier: str,
        *,
        count: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tier = tier
        self._count = count
        self._clock = clock
        self._trouble = ""
        self._began = self._last = 0.0
        self._failed = 0

    @property
    def trouble(self) -> str:
        """What the tier said when it last failed, in brief, if that is not over; else nothing."""
        if self._trouble and self._clock() - self._last >= SETTLED_SECONDS:
            # Perhaps nobody has asked since; whoever asks next finds out.
            return ""
        return self._trouble

    async def seen(self, asking: Awaitable[R]) -> R:
        """The answer. Whether there was one is noted."""
        try:
            answer = await asking
        except TookTooLong:
            raise
        except Unavailable as error:
            self.failed(error)
            raise
        if self._trouble:
            self.answered()
        return answer

    def failed(self, error: Unavailable) -> None:
        """A call was not answered."""
        self._last = self._clock()
        if not self._trouble:
            self._began = self._last
            log.warning("the %s tier fails: %s", self.tier, error)
        self._trouble = error.brief
        self._failed += 1
        if self._count is not None:
            self._count()

    def answered(self) -> None:
        """A call was answered."""
        if self._trouble and self._clock() - self._last >= SETTLED_SECONDS:
            seconds = self._last - self._began
            log.warning("the %s tier is well again after %.1f s; %d calls failed", self.tier, seconds, self._failed)
            self._trouble, self._failed = "", 0


class Watches(msgspec.Struct, frozen=True):
    """One for each tier."""

    warm: Watch = msgspec.field(default_factory=lambda: Watch("warm"))
    hot: Watch = msgspec.field(default_factory=lambda: Watch("hot"))
    cold: Watch = msgspec.field(default_factory=lambda: Watch("cold"))
