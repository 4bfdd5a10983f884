"""Waiting for a store to come back, and not letting go of what is under way. Nothing here decides whether to give
up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
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


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Let `work` come to its end even if the caller is cancelled meanwhile; the caller learns of both.

    A commit that nobody waits for any more may or may not happen, and so may its repetition. So it is always waited
    for.
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    return task.result()
