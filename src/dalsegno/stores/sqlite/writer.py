"""The one writer of a process: what waits is committed together, where that costs least. Knows no table."""

import asyncio
import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from dalsegno.errors import Unavailable
from dalsegno.stores.outlast import outlast
from dalsegno.stores.sqlite.committer import Committer, Job, Pace, Work
from dalsegno.stores.sqlite.file import PATIENCE_SECONDS, Gate, Sync, beside

R = TypeVar("R")
BATCH_MAX = 64
WAITING_MAX = 10_000
AT_ONCE_MAX = 4
"""Commits of one task in one round of the loop that wait for nobody: as many as a turn with a tool has."""
THINKING_SECONDS = 0.0001
"""What the loop has to do for a session between two of its commits: a quarter of `make bench`'s turn."""
BUSY_PAUSE_SECONDS = 0.002
FIRST_NUDGE_SECONDS = 0.001
NUDGE_SECONDS = 0.00005
PATIENCE_AFTER_WORK = 4
"""How many times as long as for its turn a commit waits for the disk."""


class Waiting(Job[Any]):
    """A job and the future that its caller awaits."""

    __slots__ = ("born", "future")

    def __init__(self, work: Work[Any], future: "asyncio.Future[Any]") -> None:
        super().__init__(work)
        self.future = future
        self.born = time.monotonic()

    def settle(self) -> None:
        """Tell who waits."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """Commits what the event loop's tasks bring, in batches, each in one transaction behind the gate.

    All statements run on the loop; a thread only waits: for the gate when another process is inside, and for the disk
    when it is slow. A thread that ran the statements would wait for the interpreter's lock after each of them, beside a
    busy loop 5 ms a time: with 64 sessions a batch took seconds. A commit itself is a sync of the disk, some 30 µs on a
    fast one and 10 ms on a slow one, and a hop to a thread and back costs about as much as a fast one. So:

    * what tasks bring during one round of the loop is one batch;
    * while recent commits were quick, the loop commits the batch, else the thread does, and the next batch gathers;
    * who stood in line behind another process commits all that waits: a half would have to stand in line once more;
    * a task that was alone with its commit the last time does not wait for the end of the round; only one task a round,
      and only a few times, so that one that does nothing but commit still lets the others run.
    """

    def __init__(self, path: Path, *, sync: Sync = "FULL", patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.pace = Pace()
        self._patience = patience_seconds
        self._committer = Committer(path, sync=sync)
        self._gate = Gate(beside(path, "-gate"))
        self._waiting: deque[Waiting] = deque()
        self._committing: Sequence[Waiting] = ()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._round_comes = False
        self._at_once_in_round = 0
        self._task: asyncio.Task[Any] | None = None
        self._away = False
        """The gate or the disk is being waited for; whatever is brought now waits for the next batch."""
        self._journey = 0
        self._alone = True
        self._closed = self._ended = False
        self._helper = Helper("dalsegno-sqlite-writer")

    async def do(self, work: Work[R]) -> R:
        """Run `work` in a transaction; when this returns, what it wrote is on the disk.

        Raises what `work` raises, or `Unavailable`, whose outcome is `unknown` only if the commit itself failed. Who is
        cancelled is told so once it is decided: what is not under way yet will not be.
        """
        if self._closed:
            raise Unavailable("the database is closed", outcome="not_applied")
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable(f"{WAITING_MAX} commits are waiting already", outcome="not_applied")
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if self._alone and not self._waiting and not self._away and self.pace.quick:
            job: Job[Any] = Job(work)
            if self._may_go_ahead(asyncio.current_task()) and self._at_once(job):
                self._look_next_round(loop)
                if job.error is not None:
                    raise job.error
                result: R = job.result
                return result
        future: asyncio.Future[R] = loop.create_future()
        waiting = Waiting(work, future)
        self._waiting.append(waiting)
        self._look_next_round(loop)
        try:
            return await future
        except asyncio.CancelledError:
            if waiting in self._committing:
                waiting.future = loop.create_future()
                await outlast(waiting.future)
            raise

    async def close(self) -> None:
        """Finish what waits, then stop."""
        self._closed = True
        deadline = time.monotonic() + self._patience
        # An event would burden every commit with it.
        while (self._waiting or self._away) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        self._ended = True
        await asyncio.to_thread(self._helper.stop)
        await asyncio.to_thread(self._committer.close)
        self._gate.close()

    def _may_go_ahead(self, task: asyncio.Task[Any] | None) -> bool:
        if self._at_once_in_round == 0:
            self._task = task
        elif task is not self._task:
            return False
        self._at_once_in_round += 1
        return self._at_once_in_round <= AT_ONCE_MAX

    def _look_next_round(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._round_comes:
            self._round_comes = True
            loop.call_soon(self._round)

    def _at_once(self, job: Job[Any]) -> bool:
        if not self._gate.try_enter():
            return False
        try:
            found = self._committer.work((job,))
            if found == "written":
                self._commit_here((job,))
            return found != "busy"
        finally:
            self._gate.leave()

    def _round(self, *, others_think: bool = False) -> None:
        """Once a round of the loop in which something was brought."""
        self._round_comes, self._at_once_in_round, self._task = False, 0, None
        if self._away or not self._waiting:
            return
        if self._gate.try_enter():
            self._inside(others_think)
        else:
            # Those who are inside now think while we are.
            self._go_away(self._gate.enter, lambda: self._inside(others_think=True))

    def _inside(self, others_think: bool) -> None:
        """The gate is ours: run the batch's statements."""
        if self._ended:
            return
        self._away = False
        batch = self._take(len(self._waiting) if others_think else self._part())
        try:
            found = self._committer.work(batch)
        except BaseException:
            self._gate.leave()
            raise
        if found == "busy":
            # A program that does not know the gate is writing.
            self._gate.leave()
            self._waiting.extendleft(reversed(batch))
            self._go_away(_pause, self._back)
        elif found == "done" or self.pace.bears(_weight(len(batch))):
            if found == "written":
                self._commit_here(batch)
            self._gate.leave()
            self._finish(batch)
        else:
            self._committing = batch
            self._go_away(lambda: self._commit_there(batch), self._back)

    def _commit_here(self, batch: Sequence[Job[Any]]) -> None:
        started = time.perf_counter()
        self._committer.commit(batch)
        self.pace.note_here((time.perf_counter() - started) / _weight(len(batch)))

    def _commit_there(self, batch: Sequence[Job[Any]]) -> None:
        try:
            started = time.perf_counter()
            self._committer.commit(batch)
            self.pace.note_elsewhere((time.perf_counter() - started) / _weight(len(batch)))
        finally:
            self._gate.leave()

    def _back(self) -> None:
        self._away = False
        batch, self._committing = self._committing, ()
        # What has gathered goes to the disk before those of this batch go on: else all would soon wait for one another.
        self._round(others_think=len(batch) > 0)
        self._finish(batch)

    def _finish(self, batch: Sequence[Waiting]) -> None:
        self._alone = len(batch) <= 1
        for job in batch:
            job.settle()
        if self._waiting and self._loop is not None:
            self._look_next_round(self._loop)

    def _take(self, most: int) -> list[Waiting]:
        batch: list[Waiting] = []
        while self._waiting and len(batch) < min(most, BATCH_MAX):
            job = self._waiting.popleft()
            if not job.future.done():
                batch.append(job)
        return batch

    def _part(self) -> int:
        """How many go together when there is nobody else. Who is in the same batch waits at the same time and thinks at
        the same time; when the loop has more to do for them than the disk, two halves take turns, and neither is idle.
        """
        waiting = min(len(self._waiting), BATCH_MAX)
        seconds = self.pace.expected(_weight(waiting))
        if self.pace.bears(_weight(waiting)) or seconds > waiting * THINKING_SECONDS:
            return waiting
        return (waiting + 1) // 2

    def _go_away(self, wait: Callable[[], None], then: Callable[[], None]) -> None:
        if self._loop is not None:
            self._away = True
            self._journey += 1
            self._helper.call(self._loop, wait, then)
            # The thread begins at once, not when the loop next gives the interpreter's lock away.
            time.sleep(NUDGE_SECONDS)
            self._loop.call_later(FIRST_NUDGE_SECONDS, self._nudge, self._journey, FIRST_NUDGE_SECONDS)

    def _nudge(self, journey: int, waited: float) -> None:
        """While the thread is away, now and then: let it have the interpreter's lock, and look who waits for too long.

        A loop that is never idle gives the lock away and takes it back before a thread can wake up: without a nudge
        such a thread was seen to wait for more than 20 s.
        """
        if not self._away or journey != self._journey or self._loop is None:
            return
        time.sleep(NUDGE_SECONDS)
        now = time.monotonic()
        for job in self._waiting:
            if now - job.born > self._patience and not job.future.done():
                error = Unavailable("another process keeps the database locked", outcome="not_applied")
                job.future.set_exception(error)
        for job in self._committing:
            if now - job.born > self._patience * PATIENCE_AFTER_WORK and not job.future.done():
                job.future.set_exception(Unavailable("the disk does not answer", outcome="unknown"))
        following = min(2 * waited, self._patience / 10)
        self._loop.call_later(following, self._nudge, journey, following)


def _weight(jobs: int) -> float:
    """A large batch has more pages to write than one job."""
    return 1 + jobs / 16


class Helper:
    """A thread that waits in an event loop's stead. It is made when it is first needed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def call(self, loop: asyncio.AbstractEventLoop, wait: Callable[[], None], then: Callable[[], None]) -> None:
        """Call `wait` on the thread, then `then` on the loop."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()

        def both() -> None:
            wait()
            # The loop may be gone: then nobody waits for the answer.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(then)

        self._calls.put(both)

    def stop(self) -> None:
        """End the thread, unless it still waits."""
        self._calls.put(None)
        if self._thread is not None:
            self._thread.join(timeout=1)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _pause() -> None:
    time.sleep(BUSY_PAUSE_SECONDS * (1 + random.random()))
