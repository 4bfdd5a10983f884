"""A SQLite file as several processes use it: how it is opened, who may write next, what its errors mean.

Knows nothing of sessions or events.
"""

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from dalsegno.errors import ConfigError, DalsegnoError, Outcome, Unavailable, Unreadable
from dalsegno.stores import sqlfile

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")
SCHEMA_KNOWN = 1
Sync = Literal["FULL", "NORMAL", "OFF"]
"""FULL: every commit is on the disk before it is acknowledged (P1): one sync of the write-ahead log. NORMAL: a power
failure may take the last commits back, but no other failure. OFF: it may also damage the file."""

PATIENCE_SECONDS = 5.0
"""How long a write waits for its turn before it gives up, with nothing applied."""

# The low byte of SQLite's result codes.
_BUSY, _LOCKED, _NOMEM, _READONLY, _IOERR, _CORRUPT = 5, 6, 7, 8, 10, 11
_FULL, _CANTOPEN, _PROTOCOL, _NOTADB = 13, 14, 15, 26
_ENVIRONMENT = frozenset({_BUSY, _LOCKED, _NOMEM, _READONLY, _IOERR, _FULL, _CANTOPEN, _PROTOCOL})


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Somebody else writes just now: the same may be tried again."""
    return _code(error) in (_BUSY, _LOCKED)


def is_environment(error: sqlite3.Error) -> bool:
    """The disk, the memory or a lock: whatever was tried, the next statement would have failed, too."""
    return _code(error) in _ENVIRONMENT


def is_damage(error: sqlite3.Error) -> bool:
    """The file is no longer what SQLite wrote."""
    return _code(error) in (_CORRUPT, _NOTADB)


def cannot_have_committed(error: sqlite3.Error) -> bool:
    """Whether a failed COMMIT surely left nothing: the log's last frame, which carries the commit, was not written."""
    return _code(error) in (_BUSY, _LOCKED, _FULL, _READONLY, _NOMEM)


def translated(
    error: sqlite3.Error, *, outcome: Outcome = "not_applied", name: str = "the database file"
) -> DalsegnoError:
    """The error that a port's caller understands; `name` is the file as an operator knows it, where that may help."""
    if is_damage(error):
        return Unreadable(f"{name} is damaged: {error}")
    return Unavailable(f"{name} does not answer: {error}", outcome=outcome)


@contextlib.contextmanager
def translating() -> Iterator[None]:
    """Nothing has been written inside: SQLite's errors become ours, with nothing applied."""
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error) from error


class Gate:
    """Whose turn it is to write, among the processes of a machine: an flock on an empty file beside the database.

    SQLite's own answer to a second writer is to sleep and look again, which is unfair (p99 of 696 ms with three busy
    processes, 51 ms through this gate). The gate only orders writers; what keeps them apart is SQLite's lock, so a
    writer that does not know the gate does no harm. Where flock is missing the gate is always open. The system opens
    it when its holder dies. One holder at a time for each `Gate`.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644) if sys.platform != "win32" else -1

    def try_enter(self) -> bool:
        """Enter if nobody is inside; never waits."""
        if sys.platform != "win32":
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError:
                # A file system without flock.
                return True
        return True

    def enter(self) -> None:
        """Wait in line, then enter. Not for an event loop."""
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_EX)

    def leave(self) -> None:
        """Let the next one in."""
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def clock_ms() -> int:
    """Milliseconds of CLOCK_MONOTONIC: one clock for every process of the machine, and nobody moves it (law 11)."""
    return time.monotonic_ns() // 1_000_000


def beside(path: Path, ending: str) -> Path:
    """The file or folder that belongs to the database, next to it."""
    return path.with_name(path.name + ending)


def connect(path: Path, *, sync: Sync = "FULL", cache_kib: int = 1024, wait_seconds: float = 0.0) -> sqlite3.Connection:
    """A connection to a file whose schema is in place. `wait_seconds` is how long a statement waits for a lock.

    Opening itself is patient: the last process that leaves locks the file for a moment while it tidies up.
    """

    def open_file() -> sqlite3.Connection:
        opened = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=PATIENCE_SECONDS)
        try:
            _furnish(opened, sync, cache_kib)
            opened.execute(f"PRAGMA busy_timeout = {round(wait_seconds * 1000)}").fetchall()
        except sqlite3.Error:
            opened.close()
            raise
        return opened

    return _patiently(open_file)


def _furnish(connection: sqlite3.Connection, sync: Sync, cache_kib: int) -> None:
    connection.execute(f"PRAGMA synchronous = {sync}")
    connection.execute("PRAGMA cell_size_check = ON")
    # What is erased is overwritten, as far as the file goes; not every build of SQLite does so by itself.
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute(f"PRAGMA cache_size = -{int(cache_kib)}")
    # The keeper of the write-ahead log copies it back off the commit path; this is only the backstop.
    connection.execute("PRAGMA wal_autocheckpoint = 16000")
    # The first look at the file is the one that may have to recover the log that a killed process left.
    connection.execute("PRAGMA schema_version").fetchall()


def _patiently(work: Callable[[], T]) -> T:
    """Do `work` again while the file is locked, for as long as a write would wait for its turn."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return work()
        except sqlite3.Error as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def reader(path: Path, *, wait_seconds: float) -> sqlite3.Connection:
    """A connection that cannot write."""
    connection = connect(path, wait_seconds=wait_seconds)
    connection.execute("PRAGMA query_only = ON")
    return connection


def prepare(path: Path, *, product: str) -> None:
    """Make the file and its schema, or bring an older one up to date. Any number of processes may do so at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        gate = Gate(beside(path, "-gate"))
    except OSError as error:
        raise ConfigError(f"the database cannot be kept at {path}: {error}") from error
    try:
        gate.enter()
        _patiently(partial(_prepare, path, product))
    except sqlite3.Error as error:
        raise translated(error, name=f"the database file {path}") from error
    finally:
        gate.close()


def _prepare(path: Path, product: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=PATIENCE_SECONDS)) as connection:
        connection.execute("PRAGMA page_size = 4096")
        # Changing the journal mode does not wait for locks, whatever the timeout.
        connection.execute("PRAGMA journal_mode = WAL")
        _migrate(connection, product)


def _migrate(connection: sqlite3.Connection, product: str) -> None:
    sql = sqlfile.statements(product)
    connection.execute("BEGIN IMMEDIATE")
    ((found,),) = connection.execute(sql["version_find"]).fetchall()
    version, readable_by = connection.execute(sql["version_read"]).fetchone() if found else (0, 0)
    if readable_by > SCHEMA_KNOWN:
        raise ConfigError(f"the database has schema {version}, newer than this Dalsegno, which knows {SCHEMA_KNOWN}")
    for number, script in sqlfile.migrations(product):
        if number > version:
            # `executescript` would commit first; statements one by one stay inside the transaction.
            for statement in _split(script):
                connection.execute(statement)
    connection.execute("COMMIT")


def _split(script: str) -> Iterator[str]:
    statement = ""
    for line in f"{script};".splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
