"""A background duty: the loop, written once. What a duty does is its verb; when and how often is decided here."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from dalsegno.errors import DalsegnoError

log = logging.getLogger("dalsegno")


class Duty:
    """Calls `verb` every `interval`, and at once when poked, until stopped. A failing verb is logged and tried
    again.
    """

    def __init__(self, name: str, verb: Callable[[], Awaitable[None]], *, interval: timedelta) -> None:
        self.name = name
        self._verb = verb
        self._interval = interval.total_seconds()
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first call comes at once."""
        self._task = asyncio.get_running_loop().create_task(self._loop(), name=f"duty:{self.name}")

    def poke(self) -> None:
        """Do not wait for the interval."""
        self._poked.set()

    async def stop(self) -> None:
        """End the loop; a verb that is under way is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._poked.clear()
            try:
                await self._verb()
            except DalsegnoError as error:
                log.warning("duty %s: %s", self.name, error)
            timer = loop.call_later(self._interval, self._poked.set)
            await self._poked.wait()
            timer.cancel()
