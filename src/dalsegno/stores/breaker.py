"""When to stop asking a server that fails: after failures in a row, for a short while. Then one call tries."""

import asyncio

FAILURES = 2
PAUSE_SECONDS = 1.0


class Breaker:
    """One server's. Failures are counted by exchange, not by call: many calls fail together."""

    def __init__(self, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._pause = pause_seconds
        self._failures = 0
        self._until = 0.0

    def admits(self) -> bool:
        """Whether a call may be made now. Of those that come when the pause is over only the first may: the probe."""
        if self._failures < FAILURES:
            return True
        now = asyncio.get_running_loop().time()
        if now < self._until:
            return False
        self._until = now + self._pause
        return True

    def succeeded(self) -> None:
        """The server did what it was asked."""
        self._failures = 0

    def failed(self) -> None:
        """It did not answer, or said that it cannot."""
        self._failures += 1
        self._until = asyncio.get_running_loop().time() + self._pause
