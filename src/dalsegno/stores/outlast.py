"""Port `Log`, sentence 8: who is cancelled while it waits for its commit is told once that has been decided."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar

R = TypeVar("R")


class Certain(asyncio.Future[R]):
    """Brings its result, however often the task that awaits it is cancelled meanwhile; then that is told so."""

    def cancel(self, msg: Any = None) -> bool:
        """Not now: the task has to remember it."""
        return False


async def outlasting(work: Awaitable[R]) -> R:
    """Do it to its end, however often the caller is cancelled meanwhile; then it is told so."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await outlast(task)
        raise


async def outlast(future: "asyncio.Future[Any]") -> None:
    """Wait until the future is done, however often the caller is cancelled meanwhile; what it comes to is not asked."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait((future,))
    if not future.cancelled():
        # Nobody else may: an error is not to be reported as one that was forgotten.
        future.exception()
