"""Waiting for a store to come back, and not letting go of what is under way. Nothing here decides whether to give
up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar, cast

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
    """Let `work` come to its end even if the caller is cancelled meanwhile; then the caller learns of that.

    A commit that nobody waits for may or may not happen, and so may its repetition; so it is always waited for. `work`
    begins at once, in the caller's own step: what need not wait for anything costs no task.
    """
    try:
        waits_for = work.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    task = asyncio.ensure_future(_go_on(work, waits_for))
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    return task.result()


async def _go_on(work: Coroutine[Any, Any, T], waits_for: "asyncio.Future[Any] | None") -> T:
    """Run a coroutine that has begun and was suspended on a future, or on nothing but the loop's next round."""
    if waits_for is not None:
        await asyncio.wait((waits_for,))
    return await _Begun(work)


class _Begun(Generic[T]):
    """Awaits a coroutine from where it is; `await` alone would refuse one that has begun."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, Any, T]:
        return (yield from self._work.__await__())
