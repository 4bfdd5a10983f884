"""Waiting for a store to come back, and not letting go of what is under way. Nothing here decides whether to give
up.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from dalsegno.errors import LeaseLost, Unavailable

T = TypeVar("T")
PAUSES_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0)


async def patiently(work: Callable[[], Awaitable[T]], *, closing: Callable[[], bool]) -> T:
    """Do `work` again until its tier answers. Only for work that may be done twice.

    Raises `LeaseLost` when the replica closes first: somebody else will do it.
    """
    pauses = iter(PAUSES_SECONDS)
    while True:
        try:
            return await work()
        except Unavailable:
            if closing():
                raise LeaseLost from None
            await asyncio.sleep(next(pauses, PAUSES_SECONDS[-1]))


def _never() -> bool:
    return False


async def seen_through(work: Awaitable[T], *, unless: Callable[[], bool] = _never) -> T:
    """What `work` comes to. A caller that is cancelled meanwhile is told so once it is done, and not before.

    If `unless`, the work is cancelled, too, and the caller told so when that has let go.
    """
    return await _Seen(asyncio.ensure_future(work), unless)


class _Seen(asyncio.Future[T]):
    """What a task comes to, for the one who waits for it and may be cancelled."""

    def __init__(self, task: "asyncio.Future[T]", unless: Callable[[], bool]) -> None:
        super().__init__()
        self._task = task
        self._unless = unless
        task.add_done_callback(self._bring)

    def cancel(self, msg: Any = None) -> bool:
        """Not now: whoever waits has to remember it."""
        if self._unless():
            self._task.cancel(msg)
        return False

    def _bring(self, task: "asyncio.Future[T]") -> None:
        if task.cancelled():
            super().cancel()
        elif (error := task.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(task.result())
