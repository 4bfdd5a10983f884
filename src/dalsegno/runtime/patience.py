"""Waiting for a store to come back, and not letting go of what is under way. Nothing here decides whether to give
up.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

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
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if unless() or not await outlast(task, unless=unless):
            task.cancel()
            await outlast(task, unless=_never)
        if not task.cancelled():
            task.exception()  # nobody else may hear of it
        raise


async def outlast(task: "asyncio.Future[T]", *, unless: Callable[[], bool]) -> bool:
    """Wait until it is done, however often the caller is cancelled meanwhile. False: the caller was, and `unless`."""
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            if unless():
                return False
    return True
