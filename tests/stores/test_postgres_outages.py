"""What the PostgreSQL store still does while the server cannot do everything: reads go on where they are sure to be
current, what cannot be written is refused with nothing applied, and all is well again by itself.
"""

import asyncio
import contextlib
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import errors, sql

from dalsegno.core.append import Keep
from dalsegno.errors import TookTooLong, Unavailable
from dalsegno.stores.postgres import PostgresLog
from dalsegno.stores.postgres.failure import translated, unreachable
from dalsegno.testing.conformance.acts import accept, history, session
from dalsegno.testing.servers import postgres as servers
from dalsegno.testing.servers.postgres import Postgres, pair_url
from tests.support import wait_until

TOOLS_TIME = timedelta(milliseconds=300)
READING_SECONDS = 0.3


@pytest.fixture
async def log(database: str) -> AsyncIterator[PostgresLog]:
    log = await PostgresLog.open(database)
    yield log
    await log.close()


async def refused(log: PostgresLog, why: str) -> None:
    """A message is refused for that reason, and nothing was applied; whoever asks is told no host and no user."""
    with pytest.raises(Unavailable) as caught:
        await accept(log, session())
    assert (caught.value.brief, caught.value.outcome) == (why, "not_applied")


async def accepted(log: PostgresLog) -> bool:
    """Whether a message is accepted now."""
    try:
        await accept(log, session())
    except Unavailable:
        return False
    return True


async def refuses(log: PostgresLog) -> bool:
    """Whether a message is refused now."""
    return not await accepted(log)


async def heads(log: PostgresLog) -> int:
    """How far the session can be read."""
    return len(await history(log, session()))


@pytest.fixture
def read_only(server: Postgres) -> Iterator[Callable[[], None]]:
    """Makes the server read-only, as an operator or a provider does; it is not any more after the test."""
    yield lambda: server.set("default_transaction_read_only", "on")
    server.reset("default_transaction_read_only")


async def test_a_read_only_server_is_read(server: Postgres, log: PostgresLog, read_only: Callable[[], None]):
    """P1, P12: reads go on, also over connections that are made meanwhile; messages are refused; then all is well."""
    await accept(log, session())
    read_only()
    await wait_until(lambda: refuses(log), description="the server is read-only")
    head = await heads(log)
    for _ in range(3):
        await refused(log, "the database is read-only")
        assert await heads(log) == head
        assert len(await asyncio.gather(*(log.load(session()) for _ in range(8)))) == 8
    server.reset("default_transaction_read_only")
    await wait_until(lambda: accepted(log), description="messages are accepted again")
    assert await heads(log) == head + 1


async def test_a_connection_that_cannot_write_is_not_kept(
    log: PostgresLog, read_only: Callable[[], None], monkeypatch: pytest.MonkeyPatch
):
    """Another server may have taken over meanwhile: whoever reads now and then comes to know it."""
    monkeypatch.setattr("dalsegno.stores.postgres.connections.READING_SECONDS", READING_SECONDS)
    read_only()
    await wait_until(lambda: refuses(log), description="the server is read-only")
    await log.load(session())
    (kept,) = log._connections._idle
    await log.load(session())
    assert log._connections._idle == [kept], "not every read pays for a connection"

    async def is_replaced() -> bool:
        await log.load(session())
        return kept.closed

    await wait_until(is_replaced, description="it is not kept")


async def test_a_standby_is_not_read(log: PostgresLog):
    """P3, P9: it may be behind what was acknowledged, so it is not asked; promoted, it has all that was acknowledged.

    `synchronous_standby_names` is what makes that so.
    """
    with servers.pair() as (primary, standby):
        log = await PostgresLog.open(pair_url(primary, standby, primary.database()))
        await asyncio.gather(*(accept(log, session(number)) for number in range(20)))
        await accept(log, session())
        primary.crash()
        for _ in range(2):
            await refused(log, "the database has no primary, only a standby")
            with pytest.raises(Unavailable, match="standby"):
                await log.load(session())
        standby.promote()
        await wait_until(lambda: accepted(log), description="messages are accepted again")
        for number in range(20):
            assert len(await history(log, session(number))) >= 2
        await log.close()


async def test_connections_that_others_have_taken(server: Postgres, database: str, log: PostgresLog):
    """What is connected works on; what needs one more connection is refused, until there is one."""
    await accept(log, session())
    other = await PostgresLog.open(database)
    await other._connections.close()
    other._connections._closed = False
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(psycopg.connect(database))
        await refused(other, "the database has no connection left")
        assert await accepted(log)
    await wait_until(lambda: accepted(other), description="messages are accepted again")
    await other.close()


@pytest.fixture
def small(server: Postgres) -> Iterator[tuple[str, Path]]:
    """A database on a small disk, and that disk."""
    with tempfile.TemporaryDirectory(prefix="dalsegno-small-") as name:
        # Not below pytest's own folder, which the server's user may not enter.
        folder = Path(name)
        size = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", name]
        made = subprocess.run(size, capture_output=True, check=False)
        if made.returncode != 0:
            pytest.skip(f"a small tmpfs cannot be mounted here: {made.stderr.decode().strip()}")
        try:
            owner = os.stat(f"/proc/{server.pid}").st_uid
            os.chown(folder, owner, owner)
            with psycopg.connect(server.url(), autocommit=True) as raw:
                raw.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(sql.Literal(name)))
                raw.execute("CREATE DATABASE small TABLESPACE small")
            yield server.url("small"), folder
            server.drop(server.url("small"))
            with psycopg.connect(server.url(), autocommit=True) as raw:
                raw.execute("DROP TABLESPACE small")
        finally:
            subprocess.run(["umount", "-l", name], check=True)


async def test_a_server_whose_disk_is_full(small: tuple[str, Path]):
    """P12: `not_applied`, reads go on, and room is all that is needed."""
    database, folder = small
    log = await PostgresLog.open(database)
    await accept(log, session())
    ballast = folder / "ballast"
    space = os.statvfs(folder)
    ballast.write_bytes(bytes(space.f_bavail * space.f_frsize))
    count, full = 1, None
    while full is None:
        try:
            await accept(log, session(), f"{count}" + os.urandom(4000).hex())
            count += 1
        except Unavailable as error:
            full = error
    assert (full.brief, full.outcome) == ("the database's disk is full", "not_applied")
    assert await heads(log) == count + 1
    ballast.unlink()
    assert await accepted(log)
    assert await heads(log) == count + 2
    await log.close()


async def test_a_tool_is_not_blamed_for_the_server(server: Postgres, log: PostgresLog):
    """Transactions 3: whatever stops a transaction but its own time raises `Unavailable`; the tool may run again."""
    await accept(log, session())

    async def tool(then: Callable[[], None], statement: str) -> Unavailable:
        with pytest.raises(Unavailable) as caught:
            async with log.transaction(session(), timeout=TOOLS_TIME) as transaction:
                await transaction.execute("SELECT 1")
                then()
                await transaction.execute(statement)
        return caught.value

    assert isinstance(await tool(lambda: None, "SELECT pg_sleep(10)"), TookTooLong)
    crashed = await tool(server.crash, "SELECT 1")
    assert not isinstance(crashed, TookTooLong) and crashed.outcome == "not_applied"
    server.start()
    try:
        silent = await tool(server.pause, "SELECT 1")
    finally:
        server.resume()
    assert not isinstance(silent, TookTooLong) and silent.outcome == "not_applied"
    await _works(log)


async def _works(log: PostgresLog) -> None:
    async with log.transaction(session(), timeout=timedelta(seconds=10)) as transaction:
        assert await transaction.execute("SELECT 1") == [(1,)]


async def test_a_replica_that_stops_while_its_tool_commits_holds_nobody_up_for_long(database: str, log: PostgresLog):
    """P5: "after its host vanishes, within the lease time to live + 2 s", though its tool has minutes: the session that
    it has locked is the others' again.
    """
    await accept(log, session())

    def stopped(*_: object) -> Keep[None]:
        with psycopg.connect(database) as other:
            other.execute("SET lock_timeout = '5s'")
            other.execute("SELECT FROM dalsegno_session FOR UPDATE")
        return Keep(None)

    async with log.transaction(session(), timeout=timedelta(minutes=5)) as transaction:
        await transaction.commit(stopped)
    await _works(log)


async def test_a_tool_s_connection_follows_the_primary(
    server: Postgres, log: PostgresLog, read_only: Callable[[], None], monkeypatch: pytest.MonkeyPatch
):
    """One that cannot write any more is not lent for ever."""
    monkeypatch.setattr("dalsegno.stores.postgres.connections.READING_SECONDS", READING_SECONDS)
    await _works(log)
    read_only()

    async def writes() -> None:
        async with log.transaction(session(), timeout=timedelta(seconds=10)) as transaction:
            await transaction.execute("CREATE TABLE made (n INT)")

    await wait_until(lambda: _fails(writes), description="the server is read-only")
    (kept,) = log._tools._connections._idle

    async def is_replaced() -> bool:
        assert await _fails(writes)
        return kept.closed

    await wait_until(is_replaced, description="it is not kept")
    server.reset("default_transaction_read_only")
    await wait_until(lambda: _done(writes), description="the tool can write again")


async def _fails(work: Callable[[], Awaitable[None]]) -> bool:
    return not await _done(work)


async def _done(work: Callable[[], Awaitable[None]]) -> bool:
    try:
        await work()
    except Unavailable:
        return False
    return True


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errors.DiskFull, "the database's disk is full"),
        (errors.TooManyConnections, "the database has no connection left"),
        (errors.ReadOnlySqlTransaction, "the database is read-only"),
        (errors.CannotConnectNow, "the database is starting up or shutting down"),
        (errors.IoError, "the database's disk fails"),
        (errors.OutOfMemory, "the database is out of resources"),
        (errors.LockNotAvailable, "a lock was waited for too long"),
    ],
)
def test_what_the_server_says_is_understood(error: type[psycopg.Error], told: str):
    """Nothing was applied, and the reason is one clause that names nobody."""
    found = translated(error("at 10.0.0.1"))
    assert isinstance(found, Unavailable)
    assert (found.brief, found.outcome) == (told, "not_applied")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("FATAL:  sorry, too many clients already", "the database has no connection left"),
        ("FATAL:  remaining connection slots are reserved for roles", "the database has no connection left"),
        ('FATAL:  too many connections for database "x"', "the database has no connection left"),
        ("FATAL:  the database system is starting up", "the database is starting up or shutting down"),
        ("connection failed: server is in hot standby mode", "the database has no primary, only a standby"),
        ("connection failed: Connection refused", "the database cannot be reached"),
    ],
)
def test_what_is_said_to_who_connects_is_understood(words: str, told: str):
    """Then there is no code: the words have to do."""
    assert unreachable(psycopg.OperationalError(words)).brief == told
