"""One connection that commits batches, and the copying back of its write-ahead log. All of it blocks."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from dalsegno.errors import Outcome
from dalsegno.stores.sqlite.file import (
    Gate,
    Sync,
    beside,
    cannot_have_committed,
    connect,
    is_busy,
    is_environment,
    translated,
)

R = TypeVar("R")
Work: TypeAlias = Callable[[sqlite3.Cursor, int], R]
"""(cursor of the open transaction, Unix milliseconds) → result. Is run again when its transaction had to be undone."""

QUICK_SECONDS = 0.0006
CACHE_KIB = 8 * 1024
PAGES_BETWEEN_CHECKPOINTS = 1000


class Pace:
    """How long something takes of late, and whether that is short enough for an event loop to wait for it."""

    def __init__(self, *, quick_below: float = QUICK_SECONDS) -> None:
        self._quick_below = quick_below
        self._average = 0.0

    @property
    def quick(self) -> bool:
        """Whether the loop may wait for the next one."""
        return self.bears(1.0)

    def bears(self, weight: float) -> bool:
        """Whether the loop may wait for one that is `weight` times as much as usual."""
        return self.expected(weight) < self._quick_below

    def expected(self, weight: float) -> float:
        """Seconds that one takes which is `weight` times as much as usual."""
        return self._average * weight

    def note_here(self, seconds: float) -> None:
        """The loop waited so long. One long wait is enough for the next ones to go elsewhere."""
        self._average += (min(seconds, 8 * self._quick_below) - self._average) * 0.5

    def note_elsewhere(self, seconds: float) -> None:
        """A thread waited so long. It may have waited for the interpreter's lock, so only a short wait proves anything:
        a few of them bring the work back to the loop."""
        if seconds < self._average:
            self.note_here(seconds)


class Job(Generic[R]):
    """Something to do in a transaction: then it has a result or an error."""

    __slots__ = ("error", "result", "work")

    def __init__(self, work: Work[R]) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None


class Committer:
    """Runs jobs in one transaction, so that they share one sync of the disk: first `work`, then `commit`.

    A job that fails fails alone. Decisions come before their writes, so most failures have written nothing and cost
    nothing. After one that did write, the transaction is undone and the other jobs are run again: cheaper than a
    savepoint around each of them, for something that does not happen in a healthy process.
    """

    def __init__(self, path: Path, *, sync: Sync) -> None:
        self.keeper = Keeper(path, sync=sync)
        self._connection = connect(path, sync=sync, cache_kib=CACHE_KIB)
        self._cursor = self._connection.cursor()
        self._before = 0

    def work(self, jobs: Sequence[Job[Any]]) -> Literal["busy", "done", "written"]:
        """Begin, and run the jobs: no waiting for the disk, only for pages that are not in memory yet.

        `busy`: another process is writing, and nothing was begun. `done`: every job has its result or error, and there
        is nothing to commit. `written`: `commit` must follow, whoever calls it.
        """
        left = jobs
        while left:
            try:
                self._cursor.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                if is_busy(error):
                    return "busy"
                _fail(left, error, "not_applied")
                return "done"
            self._before = self._connection.total_changes
            failed = self._run(left)
            if failed is None:
                if self._connection.total_changes != self._before:
                    return "written"
                self._undo()
                return "done"
            left = [job for job in left if job not in failed]
        return "done"

    def commit(self, jobs: Sequence[Job[Any]]) -> None:
        """Put what the jobs have written on the disk; if that fails, it is the error of them all."""
        try:
            self._cursor.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            _fail(jobs, error, "not_applied" if cannot_have_committed(error) else "unknown")
        self.keeper.note(len(jobs))

    def close(self) -> None:
        """Let go of the file."""
        self.keeper.close()
        self._connection.close()

    def _run(self, jobs: Sequence[Job[Any]]) -> Sequence[Job[Any]] | None:
        """Run the jobs. Returns those whose error undid the transaction: the others must be run again."""
        connection, cursor = self._connection, self._cursor
        now = time.time_ns() // 1_000_000
        changes = self._before
        try:
            for job in jobs:
                try:
                    job.error = None
                    job.result = job.work(cursor, now)
                    changes = connection.total_changes
                except Exception as error:  # whatever a decision raises belongs to the one who brought it
                    if isinstance(error, sqlite3.Error) and is_environment(error):
                        self._undo()
                        _fail(jobs, error, "not_applied")
                        return jobs
                    job.error = translated(error) if isinstance(error, sqlite3.Error) else error
                    if connection.total_changes != changes:
                        self._undo()
                        return (job,)
        except BaseException:
            self._undo()
            raise
        return None

    def _undo(self) -> None:
        # Some errors have undone the transaction already.
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._cursor.execute("ROLLBACK")


def _fail(jobs: Sequence[Job[Any]], error: sqlite3.Error, outcome: Outcome) -> None:
    for job in jobs:
        job.error = translated(error, outcome=outcome)


class Keeper:
    """Copies the write-ahead log back into the database, on a thread, so that no commit pays for it.

    Two passes: the first copies most of it while others write; the second copies the rest with the gate held, for the
    moment that takes, and so lets the next writer begin the log anew. A log that is overwritten and never grows is also
    cheaper to sync than one that does (28 µs and 45 µs here).
    """

    def __init__(self, path: Path, *, sync: Sync) -> None:
        self._path = path
        self._sync: Sync = sync
        self._pages = 0
        self._wanted = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def note(self, jobs: int) -> None:
        """A commit of so many jobs: about two pages each, and two that they share."""
        self._pages += 2 * jobs + 2
        if self._pages >= PAGES_BETWEEN_CHECKPOINTS:
            self._pages = 0
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="dalsegno-sqlite-keeper", daemon=True)
                self._thread.start()
            self._wanted.set()

    def close(self) -> None:
        """Stop the thread."""
        self._closing = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _serve(self) -> None:
        while self._wanted.wait() and not self._closing:
            self._wanted.clear()
            # What fails (the disk is full, a reader stays) is made up for by a later time.
            with contextlib.suppress(sqlite3.Error, OSError):
                self._copy_back()

    def _copy_back(self) -> None:
        with (
            contextlib.closing(Gate(beside(self._path, "-gate"))) as gate,
            contextlib.closing(connect(self._path, sync=self._sync, cache_kib=64, wait_seconds=0.02)) as connection,
        ):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            gate.enter()
            try:
                connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
            finally:
                gate.leave()
