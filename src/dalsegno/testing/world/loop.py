"""A deterministic event loop: time is virtual, the order of what is ready is drawn from a seed, processes can be
killed.

Everything that a callback or a task starts belongs to the process that started it (a context variable). So a process
dies as with SIGKILL, between two steps and without a word to its own code, and stops as with SIGSTOP, its timers
included.
"""

import asyncio
import contextvars
import heapq
import random
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)
LATE_SECONDS = 0.002


class Deadlock(Exception):
    """Nothing is ready and nothing is scheduled: whoever waits now waits for ever."""


class Process:
    """What can be killed and stopped. `incarnation` is the replica's that runs in it."""

    def __init__(self, name: str, incarnation: str = "") -> None:
        self.name = name
        self.incarnation = incarnation
        self.dead = False
        self.stopped = False
        self.held: list[_Handle] = []
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)


def here() -> Process | None:
    """The process that the running code belongs to; None for the people and the world itself."""
    return PROCESS.get()


class _Handle(asyncio.TimerHandle):
    """What is to be called, soon or at a time, and whose it is. Worlds are made of these, so the rest of what asyncio
    keeps in a handle, for debugging and for the order of timers, is left out.
    """

    __slots__ = ("gone", "process")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context,
    ) -> None:
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = context
        self._source_traceback = None
        self.process = context.get(PROCESS)
        self.gone = False

    def cancel(self) -> None:
        """It is passed over when its time comes."""
        self.gone = True

    def cancelled(self) -> bool:
        return self.gone


class _Task(asyncio.Task[T]):
    """A task whose place in a set does not depend on its address: asyncio keeps tasks in sets and goes through them."""

    def __init__(self, coro: Any, *, loop: "WorldLoop", **options: Any) -> None:
        self._number = loop.number()
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class WorldLoop(asyncio.BaseEventLoop):
    """The loop of one world. `errors` are what nobody else has caught."""

    def __init__(self, chance: random.Random) -> None:
        self.closing = False
        super().__init__()
        self.chance = chance
        self.errors: list[dict[str, Any]] = []
        self._now = 0.0
        self._count = 0
        self._due: list[_Handle] = []
        self._dead: list[_Handle] = []
        self._waiting: list[tuple[float, int, _Handle]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._tasks_bound = 256

    # ------------------------------------------------------------------------------------------ what asyncio asks for

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return self.closing

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, T] | Generator[Any, None, T], **options: Any) -> "asyncio.Task[T]":
        """A task of the process that creates it, or of `context`'s. Held on to: the dead do not clean up."""
        task: asyncio.Task[T] = _Task(coro, loop=self, **options)
        if len(self._tasks) >= self._tasks_bound:
            self._tasks = [other for other in self._tasks if not other.done()]
            self._tasks_bound = 256 + 2 * len(self._tasks)
        self._tasks.append(task)
        return task

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if context is None:
            context = contextvars.copy_context()
        handle = _Handle(callback, args, self, context)
        self._due.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        if context is None:
            context = contextvars.copy_context()
        when = max(when, self._now) + self.chance.random() * LATE_SECONDS
        timer = _Handle(callback, args, self, context)
        heapq.heappush(self._waiting, (when, self.number(), timer))
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.closing:
            self.errors.append(context)

    # ---------------------------------------------------------------------------------------------------- the world's

    def number(self) -> int:
        """One more than ever before."""
        self._count += 1
        return self._count

    def run_until_complete(self, future: Any) -> Any:
        """Run until `future` is done. Raises `Deadlock`."""
        task = asyncio.ensure_future(future, loop=self)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=self._close_generator)
        asyncio._set_running_loop(self)
        try:
            while not task.done():
                self._once()
        finally:
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
        return task.result()

    def resume(self, process: Process) -> None:
        """SIGCONT: what became ready meanwhile is ready now."""
        process.stopped = False
        self._due += process.held
        process.held = []

    def end(self) -> None:
        """Cancel whatever is left, the dead included, so that nothing of this world outlives it."""
        self.closing = True
        self._due += self._dead
        for _ in range(50):
            left = [task for task in self._tasks if not task.done()]
            if not left:
                break
            for task in left:
                task.cancel()
            self.run_until_complete(asyncio.wait(left, timeout=1.0))
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
            elif not task.cancelled():
                task.exception()
        self._tasks, self._due, self._waiting, self._dead = [], [], [], []

    def _once(self) -> None:
        if not self._due:
            self._advance()
        batch, self._due = self._due, []
        if len(batch) > 1:
            self.chance.shuffle(batch)
        for handle in batch:
            if handle.gone:
                continue
            process = handle.process
            if process is not None and not self.closing:
                if process.dead:
                    self._dead.append(handle)
                    continue
                if process.stopped:
                    process.held.append(handle)
                    continue
            handle._run()

    def _advance(self) -> None:
        while self._waiting and self._waiting[0][2].gone:
            heapq.heappop(self._waiting)
        if not self._waiting:
            raise Deadlock(f"nothing is ready and nothing is scheduled at {self._now:.3f} s")
        self._now = self._waiting[0][0]
        while self._waiting and self._waiting[0][0] <= self._now:
            self._due.append(heapq.heappop(self._waiting)[2])

    def _close_generator(self, generator: Any) -> None:
        self.create_task(generator.aclose())
