"""Reading connections: one for the event loop, for what is quick, and a few on threads for the rest."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

from dalsegno.errors import Unavailable
from dalsegno.stores.sqlite.committer import Pace
from dalsegno.stores.sqlite.file import PATIENCE_SECONDS, is_busy, reader, translated

R = TypeVar("R")
V = TypeVar("V")
THREADS = 2


class Readers(Generic[V]):
    """Runs looks at the database: functions of a view, which knows the tables, and a cursor.

    In a write-ahead log readers wait for nobody, and nobody waits for them.
    """

    def __init__(self, path: Path, view: V) -> None:
        self._path = path
        self._view = view
        self._pace = Pace()
        self._near = reader(path, wait_seconds=0.0)
        self._near_cursor = self._near.cursor()
        self._far: list[sqlite3.Connection] = []
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="dalsegno-sqlite-reader")
        self._local = threading.local()
        self._closed = False

    async def near(self, look: Callable[[V, sqlite3.Cursor], R]) -> R:
        """Look here and now, while such looks are quick: a row that is in memory costs less than a hop to a thread."""
        if self._pace.quick:
            started = time.perf_counter()
            try:
                return self.here(look)
            except sqlite3.Error as error:
                if not is_busy(error):
                    raise translated(error) from error
            finally:
                self._pace.note_here(time.perf_counter() - started)
        return await self.far(look)

    def here(self, look: Callable[[V, sqlite3.Cursor], R]) -> R:
        """Look on the event loop; SQLite's errors come as they are."""
        if self._closed:
            raise Unavailable("the database is closed", outcome="not_applied")
        return look(self._view, self._near_cursor)

    async def far(self, look: Callable[[V, sqlite3.Cursor], R]) -> R:
        """Look from a thread."""
        if self._closed:
            raise Unavailable("the database is closed", outcome="not_applied")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._look, look)

    async def close(self) -> None:
        """Let go of the file and the threads."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._threads.shutdown)
            for connection in (self._near, *self._far):
                connection.close()

    def _look(self, look: Callable[[V, sqlite3.Cursor], R]) -> R:
        started = time.perf_counter()
        try:
            cursor: sqlite3.Cursor | None = getattr(self._local, "cursor", None)
            if cursor is None:
                connection = reader(self._path, wait_seconds=PATIENCE_SECONDS)
                self._far.append(connection)
                self._local.cursor = cursor = connection.cursor()
            return look(self._view, cursor)
        except sqlite3.Error as error:
            raise translated(error) from error
        finally:
            self._pace.note_elsewhere(time.perf_counter() - started)
