"""The end of a process whose event loop stands still: an agent blocks it, and nobody is served or heard any more.

The lease is renewed from a thread of its own, so peers cannot tell such a replica from a healthy one. It ends itself as
by a crash: others take its turns over, and the one that blocks fails as `poisoned` the third time. Knows no turns.
"""

import asyncio
import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable
from datetime import timedelta

log = logging.getLogger("dalsegno.watchdog")

STANDSTILL = timedelta(minutes=1)
LOOKS = 60
"""How often it looks in that time. Looks are counted, not time: a process that was stopped has not stood still."""
EXIT_CODE = 70


class Watchdog:
    """Watches the loop that it is made on, from `start` to `stop`."""

    def __init__(self, *, limit: timedelta = STANDSTILL, end: Callable[[], None] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._pause = limit.total_seconds() / LOOKS
        self._end = end or _end
        self._turned = True
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more: nothing is asked of the loop any more, which may be closed now."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        still = 0
        while not self._over.wait(self._pause):
            still = 0 if self._turned else still + 1
            if still >= LOOKS:
                self._end()
                return
            if self._turned:
                self._turned = False
                self._loop.call_soon_threadsafe(self._turn)

    def _turn(self) -> None:
        self._turned = True


def _end() -> None:
    log.critical("the event loop stands still since %s: an agent blocks it; this process ends", STANDSTILL)
    faulthandler.dump_traceback(sys.stderr)
    os._exit(EXIT_CODE)
