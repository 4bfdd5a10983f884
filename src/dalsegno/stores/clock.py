"""The server's clock, as far as a process knows it (law 11): what it last said, and the time that has passed since."""

import time

LATE_MS = 50
"""How late an answer may usually be. What differs by more is a clock that was set, or one of two that is slow."""


class Clock:
    """Unix milliseconds of the server. An answer that was quick says more about it than one that was late."""

    def __init__(self) -> None:
        self._ahead: int | None = None
        """How far the server's clock is before ours, at the least."""

    def hear(self, now: int) -> None:
        """The server has said so a moment ago."""
        ahead = now - _monotonic_ms()
        if self._ahead is None or ahead > self._ahead or self._ahead - ahead > LATE_MS:
            self._ahead = ahead

    def now(self) -> int:
        """What it says at this moment."""
        return _monotonic_ms() + (self._ahead or 0)


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
