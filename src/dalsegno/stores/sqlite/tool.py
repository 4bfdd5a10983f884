"""The port `Transactions`: a tool's own transaction in the database of the log, over a connection of its own.

While it is open it holds the gate, and everything else that wants to write waits; so its time is limited.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from dalsegno.core.append import Decide, Decision, Write
from dalsegno.errors import DalsegnoError, Outcome, Refused, TookTooLong, Unavailable
from dalsegno.ports import Ref
from dalsegno.stores.outlast import outlasting
from dalsegno.stores.sqlite.file import (
    Gate,
    beside,
    cannot_have_committed,
    connect,
    is_damage,
    is_environment,
    translated,
)
from dalsegno.stores.sqlite.rows import Rows

R = TypeVar("R")
OURS = "dalsegno_"
GATE_PAUSE_SECONDS = 0.002

_FORBIDDEN = frozenset(
    {sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_PRAGMA}
)


@contextlib.asynccontextmanager
async def transaction(path: Path, ref: Ref, *, timeout: timedelta) -> AsyncIterator["SqliteTransaction"]:
    """See port `Transactions`. Statements run on a thread of this transaction's own."""
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, thread_name_prefix="dalsegno-sqlite-tool")
    own = SqliteTransaction(path, ref, thread, time.monotonic() + timeout.total_seconds())
    timer = loop.call_later(timeout.total_seconds(), own.expire)
    try:
        await own.begin()
        yield own
    finally:
        timer.cancel()
        # Also when this task is cancelled: the thread undoes what is open, and that is not waited for twice.
        ended = own.end()
        thread.shutdown(wait=False)
        await asyncio.shield(ended)


class SqliteTransaction:
    """What a tool is given. Its thread runs one call after another; the loop only counts the time."""

    def __init__(self, path: Path, ref: Ref, thread: ThreadPoolExecutor, deadline: float) -> None:
        self._path = path
        self._ref = ref
        self._thread = thread
        self._deadline = deadline
        self._gate: Gate | None = None
        self._connection: sqlite3.Connection | None = None
        self._over: DalsegnoError | None = None
        """Why nothing can be done any more."""
        self._committing = False

    async def begin(self) -> None:
        """Wait for the gate, then begin."""
        await self._call(self._begin)

    async def execute(self, statement: str, parameters: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        """See port `Transaction`. An error of the tool's own statement is SQLite's, as it is."""
        return await self._call(lambda: self._execute(statement, parameters))

    async def commit(self, decide: Decide[R]) -> Decision[R]:
        """See port `Transaction`. Anything but a `Write` undoes what the tool wrote."""
        if self._over is not None:
            raise self._over
        self._committing = True
        return await outlasting(self._call(lambda: self._commit(decide)))

    def expire(self) -> None:
        """The time is over: whatever runs is interrupted and undone. A commit that has begun is let finish."""
        if not self._committing and self._over is None:
            self._over = TookTooLong()
            if self._connection is not None:
                # It may be closed at this moment.
                with contextlib.suppress(sqlite3.ProgrammingError):
                    self._connection.interrupt()
            self._thread.submit(self._close)

    def end(self) -> "asyncio.Future[None]":
        """Undo what is not committed."""
        if self._over is None:
            self._over = Refused("invalid_request", "the transaction has ended")
        return asyncio.get_running_loop().run_in_executor(self._thread, self._close)

    async def _call(self, function: Callable[[], R]) -> R:
        if self._over is not None:
            raise self._over
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, function)

    # ------------------------------------------------------------------ on the thread

    def _guarded(self, function: Callable[[], R]) -> R:
        try:
            return function()
        except sqlite3.Error as error:
            if self._over is not None:
                raise self._over from error
            if is_environment(error) or is_damage(error):
                raise translated(error) from error
            raise

    def _begin(self) -> None:
        gate = Gate(beside(self._path, "-gate"))
        try:
            # Not in line: a wait in line has no end.
            while not gate.try_enter():
                if time.monotonic() > self._deadline:
                    raise Unavailable("the database was busy for too long", outcome="not_applied")
                time.sleep(GATE_PAUSE_SECONDS)
            connection = connect(self._path, wait_seconds=max(0.0, self._deadline - time.monotonic()))
            self._gate, self._connection = gate, connection
            connection.execute("BEGIN IMMEDIATE")
            connection.set_authorizer(_authorize)
        except BaseException:
            if self._gate is None:
                gate.close()
            raise

    def _execute(self, statement: str, parameters: Sequence[object]) -> Sequence[tuple[object, ...]]:
        connection = self._open()
        try:
            rows: list[tuple[object, ...]] = connection.execute(statement, tuple(parameters)).fetchall()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_AUTH:
                raise Refused("invalid_request", "a tool's statement may not do that in its transaction") from error
            if not connection.in_transaction and self._over is None:
                self._over = Refused("invalid_request", "the statement undid the transaction")
            raise
        if not connection.in_transaction:
            self._over = Refused("invalid_request", "the statement ended the transaction")
            raise self._over
        return rows

    def _commit(self, decide: Decide[R]) -> Decision[R]:
        connection = self._open()
        # Our own tables are ours again. What was prepared for the tool is prepared anew.
        connection.set_authorizer(None)
        self._over = Refused("invalid_request", "the transaction has ended")
        outcome: Outcome = "not_applied"
        try:
            cursor = connection.cursor()
            decision = Rows().carry_out(cursor, self._ref, decide, None, time.time_ns() // 1_000_000)
            if isinstance(decision, Write):
                outcome = "unknown"
                cursor.execute("COMMIT")
            return decision
        except sqlite3.Error as error:
            raise translated(error, outcome="not_applied" if cannot_have_committed(error) else outcome) from error
        finally:
            self._close()

    def _open(self) -> sqlite3.Connection:
        if self._over is not None:
            raise self._over
        if self._connection is None:
            raise Refused("invalid_request", "the transaction has ended")
        return self._connection

    def _close(self) -> None:
        connection, gate = self._connection, self._gate
        self._connection = self._gate = None
        if connection is not None:
            # An open transaction is undone with its connection.
            connection.close()
        if gate is not None:
            gate.leave()
            gate.close()


def _authorize(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    """SQLite asks while it prepares a statement: no end of the transaction, and no look at our tables (P11)."""
    ours = any(name is not None and name.lower().startswith(OURS) for name in (first, second))
    return sqlite3.SQLITE_DENY if ours or action in _FORBIDDEN else sqlite3.SQLITE_OK
