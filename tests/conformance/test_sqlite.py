"""The SQLite stores keep the promises of the ports `Log`, `Fleet`, `Transactions` and `Hot`.

Behind the store's back is a connection of our own; a death is the lock that the system would let go of.
"""

import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from dalsegno.ports import Hot, Ref, Transaction, Warm
from dalsegno.stores.sqlite import SqliteHot, SqliteLog
from dalsegno.stores.sqlite.committer import Committer, Job
from dalsegno.stores.sqlite.fleet import Beat
from dalsegno.stores.sqlite.rows import packed
from dalsegno.testing.conformance import (
    ClaimCases,
    ErasureCases,
    FleetCases,
    HotCases,
    LogCases,
    ShelfCases,
    StorageCases,
    TransactionCases,
    WalkCases,
    log_machine,
)


class SqliteWorld:
    """A `LogWorld`, `FleetWorld` and `TransactionWorld` on a file in a temporary folder."""

    ttl = timedelta(seconds=0.6)
    own_thread = True
    endings = (
        "COMMIT",
        "commit",
        "END",
        "ROLLBACK",
        "BEGIN",
        "PRAGMA journal_mode = DELETE",
        "ATTACH ':memory:' AS other",
        "INSERT OR ROLLBACK INTO scratch (name, number) VALUES ('paid', NULL)",
        "DELETE FROM dalsegno_event",
        "SELECT * FROM dalsegno_session",
        "CREATE TRIGGER t AFTER INSERT ON dalsegno_event BEGIN SELECT 1; END",
    )

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: list[SqliteLog] = []

    async def open(self) -> SqliteLog:
        log = await SqliteLog.open(self._path)
        with closing(self._raw()) as raw:
            raw.execute("CREATE TABLE IF NOT EXISTS scratch (name TEXT PRIMARY KEY, number INTEGER NOT NULL)")
        self._opened.append(log)
        return log

    async def close(self) -> None:
        for log in self._opened:
            await log.close()

    async def seqs(self, ref: Ref) -> Sequence[int]:
        n = self._n(ref)
        rows = self._do("SELECT id & 4294967295 FROM dalsegno_event WHERE id >> 32 = ? ORDER BY id", n)
        return [seq for (seq,) in rows]

    async def keys(self, ref: Ref) -> int:
        ((count,),) = self._do("SELECT count(*) FROM dalsegno_key WHERE session = ?", self._n(ref))
        return int(count)

    async def damage(self, ref: Ref, *, seq: int) -> None:
        event = self._n(ref) << 32 | seq
        ((body,),) = self._do("SELECT body FROM dalsegno_event WHERE id = ?", event)
        damaged = body[:-1] + bytes([body[-1] ^ 1])
        self._do("UPDATE dalsegno_event SET body = ? WHERE id = ?", damaged, event)

    async def lose(self, ref: Ref, *, seq: int) -> None:
        self._do("DELETE FROM dalsegno_event WHERE id = ?", self._n(ref) << 32 | seq)

    async def outdate(self, ref: Ref) -> None:
        self._do("UPDATE dalsegno_session SET state = ? WHERE n = ?", b"from long ago", self._n(ref))

    async def kill(self, log: Warm) -> None:
        assert isinstance(log, SqliteLog)
        fleet = log._fleet
        if fleet._beat is not None:
            fleet._beat.stop()
            fleet._beat = None
        if fleet._sign is not None:
            # The system lets go of a dead process's locks; its files and records stay.
            os.close(fleet._sign._fd)
            fleet._sign._fd = -1
            fleet._sign = None
        await log.close()

    async def pass_time(self, duration: timedelta) -> None:
        await asyncio.sleep(duration.total_seconds())

    async def pause(self, log: Warm) -> None:
        assert isinstance(log, SqliteLog) and log._fleet._beat is not None
        log._fleet._beat.stop()

    async def resume(self, log: Warm) -> None:
        assert isinstance(log, SqliteLog) and log._fleet._beat is not None
        log._fleet._beat = Beat(self._path, log._fleet._beat._member, self.ttl)
        log._fleet._beat.start()

    async def put(self, transaction: Transaction, name: str, number: int) -> None:
        await transaction.execute("INSERT OR REPLACE INTO scratch (name, number) VALUES (?, ?)", (name, number))

    async def look(self, name: str) -> int | None:
        rows = self._do("SELECT number FROM scratch WHERE name = ?", name)
        return rows[0][0] if rows else None

    def _n(self, ref: Ref) -> int:
        rows = self._do("SELECT n FROM dalsegno_session WHERE tenant = ? AND id = ?", ref.tenant, packed(ref.id))
        return rows[0][0] if rows else 0

    def _do(self, statement: str, *values: object) -> list[tuple]:
        with closing(self._raw()) as raw:
            return raw.execute(statement, values).fetchall()

    def _raw(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None, timeout=5)


class SqliteHotWorld:
    """A `HotWorld` beside a file in a temporary folder."""

    lifetime = timedelta(seconds=1)

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: list[SqliteHot] = []

    async def open(self) -> Hot:
        hot = await SqliteHot.open(self._path, lifetime=self.lifetime)
        self._opened.append(hot)
        return hot

    async def close(self) -> None:
        for hot in self._opened:
            await hot.close()

    async def pass_time(self, duration: timedelta) -> None:
        await asyncio.sleep(duration.total_seconds())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[SqliteWorld]:
    world = SqliteWorld(tmp_path / "log.db")
    yield world
    await world.close()


class TestLog(LogCases):
    pass


class TestLogOnASlowDisk(LogCases):
    """Every commit but a handle's first is waited for by a thread, and the loop turns meanwhile."""

    @pytest.fixture(autouse=True)
    def slow_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        commit = Committer.commit

        def slowly(committer: Committer, jobs: Sequence[Job[Any]]) -> None:
            time.sleep(0.002)
            commit(committer, jobs)

        monkeypatch.setattr(Committer, "commit", slowly)


class TestStorage(StorageCases):
    pass


class TestErasure(ErasureCases):
    pass


class TestWalks(WalkCases):
    pass


class TestShelf(ShelfCases):
    pass


class TestClaims(ClaimCases):
    pass


class TestFleet(FleetCases):
    pass


class TestTransactions(TransactionCases):
    pass


class TestHot(HotCases):
    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[SqliteHotWorld]:
        world = SqliteHotWorld(tmp_path / "log.db")
        yield world
        await world.close()


@asynccontextmanager
async def fresh() -> AsyncIterator[SqliteWorld]:
    with tempfile.TemporaryDirectory() as folder:
        world = SqliteWorld(Path(folder) / "log.db")
        try:
            yield world
        finally:
            await world.close()


TestLikeTheModel = log_machine(fresh).TestCase
TestLikeTheModel.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
