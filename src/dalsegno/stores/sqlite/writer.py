"""The one writer of a process: what waits is committed together, where that costs least. Knows no table."""

import asyncio
import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from dalsegno.errors import Outcome, Unavailable
from dalsegno.stores.sqlite.committer import Committer, Job, Work
from dalsegno.stores.sqlite.file import PATIENCE_SECONDS, Gate, beside

R = TypeVar("R")
BATCH_MAX = 64
BUSY_PAUSE_SECONDS = 0.002


class Waiting(Job[Any]):
    """A job and the future that its caller awaits. It is withdrawn if it could not begin in time."""

    __slots__ = ("begun", "born", "future")

    def __init__(self, work: Work[Any], future: "asyncio.Future[Any]") -> None:
        super().__init__(work)
        self.future = future
        self.born = time.monotonic()
        self.begun = False

    def settle(self) -> None:
        """Tell who waits; on the event loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """Commits what the event loop's tasks bring, in batches, each in one transaction behind the gate.

    A commit is a sync of the disk (some 30 µs on a fast one, 10 ms on a slow one); a hop to a thread and back costs
    about as much as a fast sync, and a thread that runs Python beside a busy loop waits for the interpreter's lock.
    So:

    * while recent commits were quick, nobody else is inside the gate and the thread is idle, the loop itself commits
      what was brought during one of its rounds: a slow disk or a second writer never blocks it, a fast one never pays
      the hop;
    * a task that was alone with its commit the last time commits at once, without a round of the loop in between, but
      only once a round, so that a task that does nothing but commit still lets the others run;
    * everything else goes to the thread, which goes on as long as something waits.

    The committer belongs to the thread while `_thread_runs`, else to the loop. Only the loop changes that flag.
    """

    def __init__(self, path: Path) -> None:
        self.committer = Committer(path)
        self._gate = Gate(beside(path, "-gate"))
        self._waiting: deque[Waiting] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._round_pending = False
        self._alone = True
        self._closed = False
        self._thread_runs = False
        self._thread: threading.Thread | None = None
        self._calls: SimpleQueue[asyncio.AbstractEventLoop | None] = SimpleQueue()
        self._begin = threading.Lock()
        self._running: Sequence[Waiting] = ()

    async def do(self, work: Work[R]) -> R:
        """Run `work` in a transaction; when this returns, what it wrote is on the disk.

        Raises what `work` raises, or `Unavailable`, whose outcome is `unknown` only if the commit itself failed.
        """
        if self._closed:
            raise Unavailable("the database is closed", outcome="not_applied")
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if self._alone and not self._round_pending and not self._thread_runs and self.committer.pace.quick:
            job: Job[Any] = Job(work)
            if self._commit_here((job,)):
                self._round_pending = True
                loop.call_soon(self._round)
                if job.error is not None:
                    raise job.error
                result: R = job.result
                return result
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append(Waiting(work, future))
        if not self._round_pending:
            self._round_pending = True
            loop.call_soon(self._round)
        return await future

    async def close(self) -> None:
        """Finish what waits, then stop."""
        self._closed = True
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (self._waiting or self._thread_runs) and time.monotonic() < deadline:
            await asyncio.sleep(0.002)  # noqa: ASYNC110 (an event would burden every commit with it)
        if self._thread is not None:
            self._calls.put(None)
            await asyncio.to_thread(self._thread.join, PATIENCE_SECONDS)
        await asyncio.to_thread(self.committer.close)
        self._gate.close()

    def _round(self) -> None:
        """Once a round of the loop: commit what was brought in it."""
        self._round_pending = False
        if self._thread_runs or not self._waiting:
            return
        if self.committer.pace.quick:
            batch = self._take()
            if self._commit_here(batch):
                self._alone = len(batch) == 1
                _settle(batch)
                if self._waiting:
                    self._round_again()
                return
            self._waiting.extendleft(reversed(batch))
        self._hand_over()

    def _round_again(self) -> None:
        if not self._round_pending and self._loop is not None:
            self._round_pending = True
            self._loop.call_soon(self._round)

    def _commit_here(self, batch: Sequence[Job[Any]]) -> bool:
        if not self._gate.try_enter():
            return False
        try:
            return self.committer.run(batch)
        finally:
            self._gate.leave()

    def _take(self) -> list[Waiting]:
        batch: list[Waiting] = []
        while self._waiting and len(batch) < BATCH_MAX:
            batch.append(self._waiting.popleft())
        return batch

    def _hand_over(self) -> None:
        if self._loop is None:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="dalsegno-sqlite-writer", daemon=True)
            self._thread.start()
        self._thread_runs = True
        self._calls.put(self._loop)
        self._loop.call_later(PATIENCE_SECONDS / 5, self._lose_patience)

    def _thread_done(self, batch: Sequence[Waiting]) -> None:
        self._thread_runs = False
        self._alone = len(batch) == 1
        _settle(batch)
        if self._waiting:
            self._round_again()

    def _lose_patience(self) -> None:
        """Withdraw what could not begin in time; what began long ago has an unknown end."""
        if not self._thread_runs or self._loop is None:
            return
        now = time.monotonic()
        with self._begin:
            for job in (*self._running, *self._waiting):
                if now - job.born > PATIENCE_SECONDS * (4 if job.begun else 1) and not job.future.done():
                    outcome: Outcome = "unknown" if job.begun else "not_applied"
                    job.future.set_exception(Unavailable("the database did not answer in time", outcome=outcome))
        self._loop.call_later(PATIENCE_SECONDS / 5, self._lose_patience)

    # ------------------------------------------------------------------ on the thread

    def _serve(self) -> None:
        while (loop := self._calls.get()) is not None:
            batch: Sequence[Waiting] = self._take()
            while True:
                self._running = batch
                self._gate.enter()
                try:
                    batch = self._run_patiently(batch)
                finally:
                    self._gate.leave()
                following = self._take()
                # The loop may be gone: then nobody waits for the answer.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_settle if following else self._thread_done, batch)
                if not following:
                    self._running = ()
                    break
                batch = following

    def _run_patiently(self, batch: Sequence[Waiting]) -> Sequence[Waiting]:
        """Run what nobody has withdrawn. A writer that does not know the gate is waited for."""
        with self._begin:
            wanted = [job for job in batch if not job.future.done()]
            for job in wanted:
                job.begun = True
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.committer.run(wanted):
            if time.monotonic() > deadline:
                for job in wanted:
                    job.error = Unavailable("another program keeps the database locked", outcome="not_applied")
                break
            time.sleep(BUSY_PAUSE_SECONDS * (1 + random.random()))
        return wanted


def _settle(batch: Sequence[Waiting]) -> None:
    for job in batch:
        job.settle()
