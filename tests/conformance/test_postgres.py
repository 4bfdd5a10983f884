"""The PostgreSQL stores keep the promises of the ports `Log`, `Fleet`, `Transactions` and `Hot`, on a real server.

Behind the store's back is a connection of our own; a death is a connection that the server sees end.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import settings

from dalsegno.ports import Hint, Ref, Transaction, Warm
from dalsegno.stores.postgres import PostgresHot, PostgresLog, fleet
from dalsegno.stores.postgres.fleet import Beat
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
from dalsegno.testing.conformance.acts import session
from dalsegno.testing.conformance.worlds import HotWorld
from dalsegno.testing.servers.postgres import Postgres
from tests.acceptance.sizes import size
from tests.support import wait_until

FIND = "SELECT n FROM dalsegno_session WHERE tenant = %s AND id = %s::uuid"


class PostgresWorld:
    """A `LogWorld`, `FleetWorld` and `TransactionWorld` in a database of its own."""

    ttl = timedelta(seconds=0.6)
    own_thread = True
    endings = (
        "COMMIT",
        "commit",
        "END",
        "ROLLBACK",
        "ABORT",
        "BEGIN",
        "SAVEPOINT mine",
        "PREPARE TRANSACTION 'mine'",
        "/* now */ COMMIT",
        "/* /* */ */ COMMIT",
        "-- now\nCOMMIT AND CHAIN",
        "SELECT 1; COMMIT",
        "SET ROLE postgres",
        "DELETE FROM dalsegno_event",
        'SELECT * FROM "dalsegno_session"',
        "CREATE RULE r AS ON INSERT TO Dalsegno_Event DO INSTEAD NOTHING",
    )

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: list[PostgresLog] = []
        self._raw = psycopg.connect(url, autocommit=True)
        self._raw.execute("CREATE TABLE scratch (name text PRIMARY KEY, number integer NOT NULL)")

    async def open(self) -> PostgresLog:
        log = await PostgresLog.open(self._url)
        self._opened.append(log)
        return log

    async def close(self) -> None:
        for log in self._opened:
            await log.close()
        self._raw.close()

    async def seqs(self, ref: Ref) -> Sequence[int]:
        return [
            seq for (seq,) in self._do(f"SELECT seq FROM dalsegno_event WHERE session = ({FIND}) ORDER BY seq", ref)
        ]

    async def keys(self, ref: Ref) -> int:
        ((count,),) = self._do(f"SELECT count(*) FROM dalsegno_key WHERE session = ({FIND})", ref)
        return int(count)

    async def damage(self, ref: Ref, *, seq: int) -> None:
        last = "length(body) - 1"
        self._do(
            f"UPDATE dalsegno_event SET body = set_byte(body, {last}, get_byte(body, {last}) # 1)"
            f" WHERE session = ({FIND}) AND seq = %s RETURNING seq",
            ref,
            seq,
        )

    async def lose(self, ref: Ref, *, seq: int) -> None:
        self._do(f"DELETE FROM dalsegno_event WHERE session = ({FIND}) AND seq = %s RETURNING seq", ref, seq)

    async def outdate(self, ref: Ref) -> None:
        old = "UPDATE dalsegno_session SET state = 'from long ago'"
        self._do(f"{old} WHERE n = ({FIND}) RETURNING n", ref)

    async def kill(self, log: Warm) -> None:
        assert isinstance(log, PostgresLog)
        beat, log._fleet._beat = log._fleet._beat, None
        if beat is not None:
            assert beat._connection is not None
            pid = beat._connection.info.backend_pid
            beat.close()
            await wait_until(lambda: not self._runs(pid), description="the server has noticed the death")
        await log.close()

    async def pass_time(self, duration: timedelta) -> None:
        await asyncio.sleep(duration.total_seconds())

    async def pause(self, log: Warm) -> None:
        assert isinstance(log, PostgresLog) and log._fleet._beat is not None
        log._fleet._beat.stop()

    async def resume(self, log: Warm) -> None:
        assert isinstance(log, PostgresLog) and log._fleet._beat is not None
        paused = log._fleet._beat
        log._fleet._beat = Beat(paused._place, paused._member, self.ttl)
        log._fleet._beat.begin()
        paused.close()

    async def put(self, transaction: Transaction, name: str, number: int) -> None:
        await transaction.execute(
            "INSERT INTO scratch (name, number) VALUES (%s, %s)"
            " ON CONFLICT (name) DO UPDATE SET number = excluded.number",
            (name, number),
        )

    async def look(self, name: str) -> int | None:
        rows = self._raw.execute("SELECT number FROM scratch WHERE name = %s", (name,)).fetchall()
        return rows[0][0] if rows else None

    def _runs(self, pid: int) -> bool:
        return bool(self._raw.execute("SELECT FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchall())

    def _do(self, statement: str, ref: Ref, *values: object) -> list[tuple[Any, ...]]:
        return self._raw.execute(statement, (ref.tenant, ref.id, *values)).fetchall()


class PooledWorld(PostgresWorld):
    """As behind a pooler: nothing is left in a session of the server, and only time tells who is dead."""

    async def open(self) -> PostgresLog:
        log = await PostgresLog.open(f"{self._url}?pooler=transaction")
        self._opened.append(log)
        return log

    async def kill(self, log: Warm) -> None:
        await super().kill(log)
        await self.pass_time(self.ttl * 1.2)


@pytest.fixture
async def world(database: str) -> AsyncIterator[PostgresWorld]:
    world = PostgresWorld(database)
    yield world
    await world.close()


class TestLog(LogCases):
    pass


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


class Pooled:
    """Cases whose world is a `PooledWorld`."""

    @pytest.fixture
    async def world(self, database: str) -> AsyncIterator[PooledWorld]:
        world = PooledWorld(database)
        yield world
        await world.close()


class TestPooledLog(Pooled, LogCases):
    pass


class TestPooledClaims(Pooled, ClaimCases):
    pass


class TestPooledTransactions(Pooled, TransactionCases):
    pass


class PostgresHotWorld:
    """A `HotWorld` in a database of its own."""

    lifetime = timedelta(seconds=1)

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: list[PostgresHot] = []

    async def open(self) -> PostgresHot:
        hot = await PostgresHot.open(self._url, lifetime=self.lifetime)
        self._opened.append(hot)
        return hot

    async def close(self) -> None:
        for hot in self._opened:
            await hot.close()

    async def pass_time(self, duration: timedelta) -> None:
        await asyncio.sleep(duration.total_seconds())


class TestHot(HotCases):
    @pytest.fixture
    async def world(self, database: str) -> AsyncIterator[PostgresHotWorld]:
        world = PostgresHotWorld(database)
        yield world
        await world.close()


class TestPooledHot(HotCases):
    @pytest.fixture
    async def world(self, database: str) -> AsyncIterator[PostgresHotWorld]:
        world = PostgresHotWorld(f"{database}?pooler=transaction")
        yield world
        await world.close()

    async def test_hints_reach_every_listener(self, world: HotWorld) -> None:
        """Behind a pooler they do not: hints may be lost. Nothing fails; polls are behind them."""
        hot = await world.open()
        heard: list[Hint] = []
        async with hot.listen(heard.append):
            await hot.tell([Hint("acme", session().id)])
        assert heard == []


def test_like_the_model(server: Postgres, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hypothesis finds acts, and after each the store holds what the memory store holds."""
    # Nobody loses a connection and lives here: a death need not be looked at twice a tenth of a second apart.
    monkeypatch.setattr(fleet, "GRACE_SECONDS", 0.001)

    @asynccontextmanager
    async def fresh() -> AsyncIterator[PostgresWorld]:
        world = PostgresWorld(database)
        try:
            yield world
        finally:
            await world.close()
            server.empty(database)

    machine = log_machine(fresh).TestCase
    machine.settings = settings(max_examples=size(10, 50), stateful_step_count=30, deadline=None)
    machine("runTest").runTest()
