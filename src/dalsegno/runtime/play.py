"""Running somebody's agent: whatever it does, control comes back, and what comes back is one of three things.

It returns; or a signal of the platform ends its run, whatever the agent or the framework under it made of that (law 6);
or an `Exception` says what it did. One that hears of no cancellation is left behind: its turn goes on without it, and
the log takes nothing of it any more.
"""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from dalsegno.errors import DalsegnoError, PlatformSignal

log = logging.getLogger("dalsegno.agent")

CANCELS = 3
LEAVING_SECONDS = 1.0


class Stage(Protocol):
    """What is asked of a turn that an agent plays on."""

    @property
    def signal(self) -> PlatformSignal | None:
        """Why the agent has to leave, if it has to."""
        ...

    @property
    def acting(self) -> bool:
        """Whether a tool is being run: it is seen through."""
        ...


class Misbehaved(DalsegnoError):
    """The agent ended its run with what is neither an error nor a signal that was meant for it. `code` is its name."""

    def __init__(self, what: BaseException) -> None:
        super().__init__(f"the agent ended itself. {what}".rstrip())
        self.code = type(what).__name__


async def play(run: Callable[[], Awaitable[None]], stage: Stage) -> None:
    """Run the agent to its end. Raises the platform's signal, `CancelledError` if it was the caller who was cancelled,
    or an `Exception`.
    """
    context = contextvars.copy_context()
    task = asyncio.get_running_loop().create_task(_contained(run), context=context)
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        await leave(task, stage)
        if stage.signal is not None:
            raise stage.signal from None
        raise
    finally:
        _adopt(context)
    if stage.signal is not None:
        _heard(task)
        raise stage.signal
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    try:
        if isinstance(error, Exception):
            raise error
        if error is not None:
            raise Misbehaved(error)
    finally:
        del task, error  # its traceback holds this frame, and with it all that the turn had in memory


def _adopt(context: contextvars.Context) -> None:
    """What the agent set for the code that it calls (whose turn this is, for the log) is so for whoever ran it, too."""
    for name, value in context.items():
        if name.get(None) is not value:
            name.set(value)


async def _contained(run: Callable[[], Awaitable[None]]) -> None:
    """A task that raises these takes the whole loop with it."""
    try:
        await run()
    except (SystemExit, GeneratorExit) as leaving:
        raise Misbehaved(leaving) from leaving


async def leave(task: "asyncio.Future[None]", stage: Stage) -> None:
    """Have the agent stop: asked again if it does not hear, and left behind if it never does."""
    for _ in range(CANCELS):
        task.cancel()
        while not task.done():
            await _wait(task)
            if not stage.acting:
                break
        if task.done():
            _heard(task)
            return
    log.error("an agent does not stop when it is cancelled; it is left behind")
    task.add_done_callback(_heard)


async def _wait(task: "asyncio.Future[None]") -> None:
    """A moment, or until it is done. Whoever is cancelled here was cancelled before, and passes it on."""
    until = asyncio.get_running_loop().time() + LEAVING_SECONDS
    while not task.done() and (left := until - asyncio.get_running_loop().time()) > 0:
        try:
            await asyncio.wait((task,), timeout=left)
        except asyncio.CancelledError:
            task.cancel()


def _heard(task: "asyncio.Future[None]") -> None:
    """What it raised is of no interest any more."""
    if not task.cancelled():
        task.exception()
