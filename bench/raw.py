"""The raw limit: the same rows in the same tables with the same durability, by a loop that does nothing else.

The rows are those that a real run has left in its file, commit by commit, so that nothing is estimated.
"""

import asyncio
import contextlib
import sqlite3
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from dalsegno.stores import sqlfile

EVENT = "INSERT INTO dalsegno_event (id, kind, turn, at, crc, body) VALUES (?, ?, ?, ?, ?, ?)"
KEY = "INSERT INTO dalsegno_key (session, digest, fingerprint, seq, turn, status) VALUES (?, ?, ?, ?, ?, ?)"
ADD = (
    "INSERT INTO dalsegno_session (n, head, epoch, owner, attempt, ready_at, since, status, user, state, tenant, id)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
SET = (
    "UPDATE dalsegno_session SET head = ?, epoch = ?, owner = ?, attempt = ?, ready_at = ?, since = ?, status = ?,"
    " state = ? WHERE n = ?"
)
COMMITS = (2, 2, 1, 2)
"""Events in each of a turn's commits: message and start; call and intent; result; answer and end."""


class Rows(NamedTuple):
    """What one turn wrote: its events, its key, and a session's folded state."""

    events: list[tuple]
    key: tuple
    state: bytes


def rows_of(database: Path, *, turns: int) -> list[Rows]:
    """The rows of the last turns of the file's first session."""
    connection = sqlite3.connect(database)
    with contextlib.closing(connection):
        wanted = turns * sum(COMMITS)
        events = connection.execute(
            "SELECT id & 4294967295, kind, turn, at, crc, body FROM dalsegno_event"
            " WHERE id >> 32 = 1 ORDER BY id DESC LIMIT ?",
            (wanted,),
        ).fetchall()[::-1]
        key = connection.execute("SELECT digest, fingerprint, status FROM dalsegno_key LIMIT 1").fetchone()
        (state,) = connection.execute("SELECT state FROM dalsegno_session WHERE n = 1").fetchone()
    per_turn = sum(COMMITS)
    return [Rows(events[i : i + per_turn], key, state) for i in range(0, len(events), per_turn)]


def fresh(database: Path, *, sessions: int) -> sqlite3.Connection:
    """An empty database of the same schema, with as many sessions, opened as durably."""
    connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA page_size = 4096")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.executescript(sqlfile.statements("sqlite")["schema_0001"])
    for n in range(1, sessions + 1):
        row = (n, 0, 0, None, 0, None, 0, 0, None, bytes(200), "bench", n.to_bytes(16, "big"))
        connection.execute(ADD, row)
    return connection


class Replay:
    """Writes recorded turns again, for session `n`, one commit's rows at a time."""

    def __init__(self, rows: Sequence[Rows], n: int) -> None:
        self._rows = rows
        self._n = n
        self._head = 0

    def commits(self, turn: int) -> list[tuple[list[tuple], tuple | None, tuple]]:
        """For each of the turn's commits: its event rows, its key row if it has one, its session row."""
        rows, base = self._rows[turn % len(self._rows)], self._n << 32
        found, at = [], 0
        for place, count in enumerate(COMMITS):
            events = []
            for _, kind, _, when, crc, body in rows.events[at : at + count]:
                self._head += 1
                events.append((base | self._head, kind, self._head, when, crc, body))
            at += count
            digest, fingerprint, status = rows.key
            unique = self._head.to_bytes(16, "big") if digest else digest
            key = (self._n, unique, fingerprint, self._head, self._head, status) if place == 0 else None
            owner = None if place == len(COMMITS) - 1 else "f" * 32
            session = (self._head, turn, owner, 1, 0 if owner else None, 0, 1, rows.state, self._n)
            found.append((events, key, session))
        return found


def write(cursor: sqlite3.Cursor, commit: tuple[list[tuple], tuple | None, tuple]) -> None:
    """One commit's statements, without beginning or ending a transaction."""
    events, key, session = commit
    cursor.execute(SET, session)
    if len(events) == 1:
        cursor.execute(EVENT, events[0])
    else:
        cursor.executemany(EVENT, events)
    if key is not None:
        cursor.execute(KEY, key)


def one_session(database: Path, rows: Sequence[Rows], *, turns: int) -> list[float]:
    """Seconds of each turn when its four commits follow each other with nothing between."""
    connection = fresh(database, sessions=1)
    with contextlib.closing(connection):
        cursor, replay, seconds = connection.cursor(), Replay(rows, 1), []
        for turn in range(turns):
            commits = replay.commits(turn)
            begin = time.perf_counter()
            for commit in commits:
                cursor.execute("BEGIN IMMEDIATE")
                write(cursor, commit)
                cursor.execute("COMMIT")
            seconds.append(time.perf_counter() - begin)
        return seconds


class GroupWriter:
    """A writer thread with group commit: at most 64 of the commits that wait share one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._cursor = connection.cursor()
        self._queue: SimpleQueue = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    async def commit(self, rows: tuple) -> None:
        """Write one commit's rows, durably."""
        done = self._loop.create_future()
        self._queue.put((rows, done))
        await done

    def close(self) -> None:
        """Stop the thread."""
        self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            while len(batch) < 64 and not self._queue.empty():
                batch.append(self._queue.get())
            self._cursor.execute("BEGIN IMMEDIATE")
            for rows, _ in batch:
                write(self._cursor, rows)
            self._cursor.execute("COMMIT")
            self._loop.call_soon_threadsafe(_all_done, [done for _, done in batch])


def _all_done(futures: Sequence[asyncio.Future]) -> None:
    for done in futures:
        done.set_result(None)


async def many_sessions(database: Path, rows: Sequence[Rows], *, sessions: int, turns: int) -> float:
    """Turns a second when so many tasks give their commits to one group-committing thread."""
    connection = fresh(database, sessions=sessions)
    with contextlib.closing(connection):
        writer = GroupWriter(connection)
        work = [[Replay(rows, n)] for n in range(1, sessions + 1)]
        prepared = [[replay.commits(turn) for turn in range(turns)] for (replay,) in work]

        async def session(own: list) -> None:
            for commits in own:
                for commit in commits:
                    await writer.commit(commit)

        begin = time.perf_counter()
        await asyncio.gather(*(session(own) for own in prepared))
        seconds = time.perf_counter() - begin
        writer.close()
        return sessions * turns / seconds


def median_ms(seconds: Sequence[float]) -> float:
    """The median, in milliseconds."""
    return statistics.median(seconds) * 1000
