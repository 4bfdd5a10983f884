"""What a turn leaves running: tasks and threads of the user's code that are still there when it has ended.

They die with the process, and nobody starts them again.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

from dalsegno.ops.check.talk import Trace

LAPS = 20
"""How often the loop may come round before what is still there counts as left behind: tasks end a little late."""


class Leftovers:
    """Sees tasks as they are made and threads as they are. `mine` says whose a code file is."""

    def __init__(self, *, mine: Callable[[str], bool], on: Callable[[], bool]) -> None:
        self._mine = mine
        self._on = on
        self._tasks: list[asyncio.Task[Any]] = []
        self._known: set[int] = {thread.ident or 0 for thread in threading.enumerate()}

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be the loop's task factory."""
        loop.set_task_factory(self._make)

    async def look(self) -> list[Trace]:
        """What is there now that was not there at the last look."""
        for _ in range(LAPS):
            if not any(not task.done() for task in self._tasks):
                break
            await asyncio.sleep(0)
        tasks = [task for task in self._tasks if not task.done()]
        self._tasks = []
        threads = [thread for thread in threading.enumerate() if (thread.ident or 0) not in self._known]
        self._known.update(thread.ident or 0 for thread in threads)
        return [_task(task) for task in tasks] + [found for thread in threads if (found := self._thread(thread))]

    def _make(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        context: Context | None = None,
    ) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context)
        code = getattr(coroutine, "cr_code", None)
        if code is not None and self._on() and self._mine(code.co_filename):
            self._tasks.append(task)
        return task

    def _thread(self, thread: threading.Thread) -> Trace | None:
        """A thread that runs the user's code; executors and libraries keep their own."""
        code = getattr(getattr(thread, "_target", None) or type(thread).run, "__code__", None)
        if code is None or not self._mine(code.co_filename):
            return None
        return Trace("thread", thread.name, where=f"{code.co_filename}:{code.co_firstlineno} in {code.co_name}")


def _task(task: "asyncio.Task[Any]") -> Trace:
    code = getattr(task.get_coro(), "cr_code", None)
    where = "" if code is None else f"{code.co_filename}:{code.co_firstlineno} in {code.co_name}"
    return Trace("task", "" if code is None else code.co_name, where=where)
