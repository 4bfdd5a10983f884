"""A background duty: the loop, written once. What a duty does is its verb; when and how often is decided here."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from dalsegno.errors import DalsegnoError, Unavailable

log = logging.getLogger("dalsegno")

STOP_SECONDS = 5.0
FAILING_SECONDS = 0.25
"""How often a verb that fails is tried again, at most."""


class Duty:
    """Calls `verb` every `interval`, and at once when poked, until stopped. A failing verb is tried again, not too
    often, and said to the log when it begins to fail and when it works again; that a tier is away others say (`Watch`).
    """

    def __init__(self, name: str, verb: Callable[[], Awaitable[None]], *, interval: timedelta) -> None:
        self.name = name
        self._verb = verb
        self._interval = interval.total_seconds()
        self._poked = asyncio.Event()
        self._stopping = False
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first call comes at once."""
        self._stopping = False
        self._task = asyncio.get_running_loop().create_task(self._loop(), name=f"duty:{self.name}")

    def poke(self) -> None:
        """Do not wait for the interval."""
        self._poked.set()

    async def stop(self) -> None:
        """End the loop once a verb that is under way is through; one that hangs is cancelled."""
        task, self._task = self._task, None
        if task is not None:
            self._stopping = True
            self._poked.set()
            await asyncio.wait((task,), timeout=STOP_SECONDS)
            task.cancel()

    async def _loop(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping:
            self._poked.clear()
            try:
                await self._verb()
                self._works()
            except DalsegnoError as error:
                self._fails(error)
            interval = max(self._interval, FAILING_SECONDS) if self._trouble else self._interval
            timer = loop.call_later(interval, self._poked.set)
            if not self._stopping:
                await self._poked.wait()
            timer.cancel()

    def _fails(self, error: DalsegnoError) -> None:
        if self._trouble != (trouble := type(error).__name__):
            self._trouble = trouble
            log.log(
                logging.DEBUG if isinstance(error, Unavailable) else logging.WARNING, "duty %s: %s", self.name, error
            )

    def _works(self) -> None:
        if self._trouble:
            level = logging.DEBUG if self._trouble == Unavailable.__name__ else logging.WARNING
            log.log(level, "duty %s works again", self.name)
            self._trouble = ""
