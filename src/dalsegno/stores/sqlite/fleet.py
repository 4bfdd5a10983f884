"""The port `Fleet` beside a SQLite file: records that expire, and locks that the operating system opens at death.

Every replica holds an flock on a file of its own; whoever can take that lock knows that its holder is dead, at once and
without a clock. The record's time to live is for what a lock does not tell: a process that is stopped, a folder that
was emptied, a system without flock.
"""

import asyncio
import os
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, unquote

from dalsegno.errors import Unavailable
from dalsegno.ports import Member, Ref
from dalsegno.stores import sqlfile
from dalsegno.stores.sqlite.file import Gate, beside, clock_ms, connect, translating
from dalsegno.stores.sqlite.readers import Readers
from dalsegno.stores.sqlite.rows import Rows
from dalsegno.stores.sqlite.writer import Writer

if sys.platform != "win32":
    import fcntl

BEAT_RETRY_SECONDS = 0.05
_ENDING = ".lock"


class SqliteFleet:
    """One replica's part in the fleet, and its view of the others."""

    def __init__(self, path: Path, writer: Writer, readers: Readers[Rows]) -> None:
        self._path = path
        self._folder = beside(path, "-replicas")
        self._writer = writer
        self._readers = readers
        self._sql = sqlfile.statements("sqlite")
        self._sign: Sign | None = None
        self._beat: Beat | None = None
        self._missed: set[str] = set()

    async def join(self, member: Member, *, ttl: timedelta) -> None:
        """See port `Fleet`. Joining again replaces the earlier membership of this handle."""
        await self._stop()
        try:
            self._sign = Sign(self._folder, member.incarnation)
        except OSError as error:
            raise Unavailable(f"the folder of the fleet cannot be written: {error}", outcome="not_applied") from error
        with translating():
            self._beat = beat = Beat(self._path, member, ttl)

        def begin(cursor: sqlite3.Cursor, now: int) -> None:
            cursor.execute(self._sql["replica_sweep"], {"clock": clock_ms()})
            cursor.execute(self._sql["replica_beat"], beat.record())

        try:
            await self._writer.do(begin)
        except BaseException:
            await self._stop()
            raise
        beat.start()

    async def bury(self) -> Sequence[str]:
        """See port `Fleet`. One small read and one look at each lock; a transaction only when somebody died."""
        own = self._sign.name if self._sign else None
        records = await self._readers.near(self._records)
        gone = [name for name in _dead(self._folder) if name != own]
        buried = [name for name in gone if name in records]
        if buried:
            await self._writer.do(lambda cursor, now: self._forget(cursor, buried))
        for name in gone:
            _file(self._folder, name).unlink(missing_ok=True)
        # Who only misses its time is dead to claims, but keeps its record: it may be woken and beat again. Named once.
        missed = {name for name, (_, alive) in records.items() if not alive and name != own} - {*gone}
        late, self._missed = missed - self._missed, missed
        return [*buried, *sorted(late)]

    async def members(self) -> Sequence[Member]:
        """See port `Fleet`."""
        records = await self._readers.near(self._records)
        return [member for member, alive in records.values() if alive]

    async def holdings(self, incarnation: str) -> Sequence[Ref]:
        """See port `Fleet`."""
        return await self._readers.near(lambda rows, cursor: rows.held(cursor, incarnation))

    async def leave(self) -> None:
        """See port `Fleet`."""
        name = self._sign.name if self._sign else None
        if self._beat is not None:
            await asyncio.to_thread(self._beat.stop)
        if name is not None:
            await self._writer.do(lambda cursor, now: self._forget(cursor, [name]))
        await self._stop()

    async def close(self) -> None:
        """Stop beating and let go of the lock. Peers notice at once."""
        await self._stop()

    async def _stop(self) -> None:
        if self._beat is not None:
            beat, self._beat = self._beat, None
            await asyncio.to_thread(beat.stop)
        if self._sign is not None:
            self._sign.take_down()
            self._sign = None

    def _records(self, rows: Rows, cursor: sqlite3.Cursor) -> dict[str, tuple[Member, bool]]:
        clock = clock_ms()
        found = cursor.execute(self._sql["replica_list"]).fetchall()
        return {
            incarnation: (Member(incarnation, name, pid, url), expires - ttl <= clock < expires)
            for incarnation, name, pid, url, expires, ttl in found
        }

    def _forget(self, cursor: sqlite3.Cursor, names: Sequence[str]) -> None:
        cursor.executemany(self._sql["replica_bury"], [(name,) for name in names])


class Beat:
    """Renews a record at a third of its time to live, from a thread and over a connection of its own."""

    def __init__(self, path: Path, member: Member, ttl: timedelta) -> None:
        self._path = path
        self._member = member
        self._ttl_ms = max(1, round(ttl.total_seconds() * 1000))
        self._statement = sqlfile.statements("sqlite")["replica_beat"]
        self._gate = Gate(beside(path, "-gate"))
        # A beat that a power failure takes back is no loss: it needs no sync of its own.
        self._connection = connect(path, sync="NORMAL", cache_kib=64)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="dalsegno-sqlite-beat", daemon=True)

    def record(self) -> dict[str, object]:
        """The record as it is to be written now."""
        member = self._member
        return {
            "incarnation": member.incarnation,
            "id": member.id,
            "pid": member.pid,
            "url": member.url,
            "expires": clock_ms() + self._ttl_ms,
            "ttl": self._ttl_ms,
        }

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more. A beat that waits in line for the database may still be written."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1)
        elif self._thread.ident is None:
            self._let_go()

    def _serve(self) -> None:
        every = self._ttl_ms / 3000
        due = time.monotonic() + every
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            self._gate.enter()
            try:
                if not self._stopping.is_set():
                    self._connection.execute(self._statement, self.record())
                due = time.monotonic() + every
            except sqlite3.Error:
                # The disk is full, or somebody who does not know the gate writes: again, before the time is over.
                due = time.monotonic() + min(every, BEAT_RETRY_SECONDS)
            finally:
                self._gate.leave()
        self._let_go()

    def _let_go(self) -> None:
        self._connection.close()
        self._gate.close()


class Sign:
    """A locked file that says "I live". The system opens the lock when the process ends, however it ends."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._file = _file(folder, name)
        self._fd = -1
        if sys.platform != "win32":
            folder.mkdir(parents=True, exist_ok=True)
            # Locked before it bears its name, so that nobody finds it unlocked.
            unnamed = self._file.with_name(f".{self._file.name}.new")
            self._fd = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            except OSError:
                # A file system without flock: the record alone says who lives.
                unnamed.unlink()
                self._let_go()
                return
            unnamed.rename(self._file)
            # A child process that was forked without exec would keep the lock beyond our death.
            mine = weakref.WeakMethod(self._let_go)
            os.register_at_fork(after_in_child=lambda: (method := mine()) and method())

    def take_down(self) -> None:
        """Live no more."""
        if self._fd >= 0:
            self._file.unlink(missing_ok=True)
            self._let_go()

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _file(folder: Path, name: str) -> Path:
    return folder / (quote(name, safe="") + _ENDING)


def _dead(folder: Path) -> Iterator[str]:
    """The names in the folder whose lock can be taken. Shared, so that those who look do not disturb each other."""
    if sys.platform == "win32":
        return
    try:
        files = os.listdir(folder)
    except FileNotFoundError:
        return
    for file in files:
        if not file.endswith(_ENDING):
            continue
        try:
            fd = os.open(folder / file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield unquote(file.removesuffix(_ENDING))
        except OSError:
            # Its holder lives.
            continue
        finally:
            os.close(fd)
