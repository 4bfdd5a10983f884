"""A thread that waits for the event loop, and is lent to it meanwhile."""

import asyncio
import concurrent.futures
import contextvars
import queue
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
Lend = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a function in the thread that waits."""

_Errand = tuple[contextvars.Context, Callable[[], Any], "asyncio.Future[Any]"]


class Thread:
    """One thread, while it waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._errands: queue.SimpleQueue[_Errand | None] = queue.SimpleQueue()

    async def lend(self, function: Callable[[], Any]) -> Any:
        """Have the thread run a function, in the context of who asks."""
        done = self._loop.create_future()
        self._errands.put((contextvars.copy_context(), function, done))
        return await done

    def serve(self, until: "concurrent.futures.Future[T]") -> T:
        """Run what is asked for until that is done; its result."""
        until.add_done_callback(lambda _: self._errands.put(None))
        while (errand := self._errands.get()) is not None:
            context, function, done = errand
            try:
                result = context.run(function)
            except BaseException as error:
                self._tell(done, partial(done.set_exception, _raisable(error)))
            else:
                self._tell(done, partial(done.set_result, result))
        return until.result()

    def _tell(self, done: "asyncio.Future[Any]", tell: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(lambda: None if done.done() else tell())


def _raisable(error: BaseException) -> BaseException:
    """A future refuses to hold a `StopIteration`."""
    return RuntimeError(str(error)) if isinstance(error, StopIteration) else error
