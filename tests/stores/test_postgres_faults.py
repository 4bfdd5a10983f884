"""What the PostgreSQL store does when the server or the wire does not: nothing acknowledged is lost, and every error
says whether anything was applied.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import psycopg
import pytest
from psycopg import sql

from dalsegno.core.append import Keep, Write
from dalsegno.core.session import replace
from dalsegno.errors import ConfigError, DalsegnoError, Unavailable
from dalsegno.ports import Member
from dalsegno.stores import open_warm
from dalsegno.stores.postgres import PostgresLog, place
from dalsegno.stores.postgres.connections import is_quiet
from dalsegno.testing.conformance.acts import accept, admission, begin, history, leased, session, speak
from dalsegno.testing.proxy import BlackHole, Cut, DropReplies, FaultProxy, Pass, Refuse
from dalsegno.testing.servers.postgres import Postgres
from tests.support import wait_until

TTL = timedelta(seconds=2)


@pytest.fixture
async def log(database: str) -> AsyncIterator[PostgresLog]:
    log = await PostgresLog.open(database)
    yield log
    await log.close()


@pytest.fixture
async def wired(database: str, server: Postgres, proxy: FaultProxy) -> AsyncIterator[PostgresLog]:
    """A log whose wire can be cut."""
    log = await PostgresLog.open(database.replace(str(server.port), str(proxy.port)))
    yield log
    await log.close()


async def test_what_is_acknowledged_survives_the_servers_crash(server: Postgres, database: str, log: PostgresLog):
    """P1, under load: five times all of the server's processes are killed, and nothing acknowledged is missing."""
    said: dict[int, list[str]] = {number: [] for number in range(8)}
    stop = asyncio.Event()

    async def talk(number: int) -> None:
        for count in itertools.count():
            if stop.is_set():
                return
            text, key = f"{number}/{count}", f"key-{number}-{count}"
            while not await _arrived(log, number, text, key):
                await asyncio.sleep(0.01)
            said[number].append(text)

    talking = [asyncio.create_task(talk(number)) for number in said]
    for _ in range(5):
        wanted = sum(map(len, said.values())) + 20
        loaded = partial(_have, said, wanted)
        await wait_until(loaded, description="there is load again", timeout=30)
        await asyncio.to_thread(server.crash)
        await asyncio.to_thread(server.start)
    stop.set()
    await asyncio.gather(*talking)
    other = await PostgresLog.open(database)
    for number, texts in said.items():
        messages = [event.data for event in await history(other, session(number)) if event.type == "turn.created"]
        assert len(messages) == len(texts), "something was lost, or said twice"
        for text, data in zip(texts, messages, strict=True):
            assert f'"{text}"'.encode() in data
    await other.close()


def _have(said: dict[int, list[str]], wanted: int) -> bool:
    return sum(map(len, said.values())) > wanted


def name_of(database: str) -> str:
    """The database of a URL."""
    return database.rpartition("/")[2]


async def _arrived(log: PostgresLog, number: int, text: str, key: str) -> bool:
    """Say it, and again under the same key when the answer is an error."""
    wanted = replace(admission(session(number), text, key=key), queue_max=10**6)
    try:
        return isinstance(await speak(log, wanted), Write | Keep)
    except Unavailable:
        return False


@pytest.mark.parametrize("after", [0, 1, 5, 20, 60])
async def test_a_cut_answer_leaves_the_outcome_unknown(
    proxy: FaultProxy, wired: PostgresLog, log: PostgresLog, after: int
):
    """The statement was sent: whether it was carried out is found out by the key."""
    await accept(wired, session())
    await accept(wired, session())
    await proxy.switch(Cut(after=after))
    same = admission(session(), "once", key="k1")
    with pytest.raises(Unavailable) as caught:
        await speak(wired, same)
    assert caught.value.outcome == "unknown"
    assert proxy.counts.cut > 0
    await proxy.switch(Pass())
    again = await speak(wired, same)
    assert isinstance(again, Write | Keep)
    assert again.result.receipt.seq == 4
    assert [event.seq for event in await history(log, session())] == [1, 2, 3, 4]


async def test_a_lost_answer_was_carried_out(proxy: FaultProxy, wired: PostgresLog, log: PostgresLog):
    """The request arrives, its answer does not, and the caller is told `unknown`; a repeat finds the first receipt."""
    await accept(wired, session())
    await accept(wired, session())
    await proxy.switch(DropReplies())
    same = admission(session(), "once", key="k1")
    asking = asyncio.create_task(speak(wired, same))
    await wait_until(lambda: _head(log, 4), description="the message is stored")
    await wait_until(lambda: proxy.counts.dropped_bytes, description="the answer is dropped")
    await proxy.switch(Pass())
    with pytest.raises(Unavailable) as caught:
        await asking
    assert caught.value.outcome == "unknown"
    again = await speak(wired, same)
    assert isinstance(again, Keep) and again.result.receipt.replayed


async def test_who_cannot_connect_has_applied_nothing(proxy: FaultProxy, wired: PostgresLog):
    """No connection: `not_applied`, and it goes on by itself once there is one."""
    await accept(wired, session())
    await proxy.switch(Refuse())
    proxy.abort()
    idle = wired._connections._idle
    await wait_until(lambda: not any(map(is_quiet, idle)), description="the connections know that they ended")
    with pytest.raises(Unavailable) as caught:
        await accept(wired, session())
    assert caught.value.outcome == "not_applied"
    await proxy.switch(Pass())
    await accept(wired, session())


async def test_a_claim_that_stops_in_the_middle_keeps_its_sessions_from_nobody_for_long(
    database: str, log: PostgresLog
):
    """P5: whoever stopped between reading what it may claim and writing that lets go within two seconds."""
    await log.join(Member("other", "other"), ttl=timedelta(minutes=1))
    other = await PostgresLog.open(database)
    await other.join(Member("stopped", "stopped"), ttl=timedelta(minutes=1))
    await accept(log, session())
    connection = await other._connections.take()
    await connection.execute("BEGIN")
    claim = other._sessions._sql["session_claim"]
    found = await (await connection.execute(claim, {"owner": "stopped", "limit": 1, "chances": 1})).fetchall()
    assert len(found) == 1
    assert await log.claim("other", limit=1) == []
    began = asyncio.get_running_loop().time()

    async def claimed() -> bool:
        return len(await log.claim("other", limit=1)) == 1

    await wait_until(claimed, description="the session is free again", timeout=8)
    assert asyncio.get_running_loop().time() - began < 5
    await other._connections.give(connection)
    await other.close()


async def test_idle_connections_that_died_are_not_used(server: Postgres, database: str, log: PostgresLog):
    """Nobody is told `unknown` because a connection was ended while nobody used it."""
    await asyncio.gather(*(accept(log, session(number)) for number in range(4)))
    with psycopg.connect(server.url(), autocommit=True) as raw:
        name = (name_of(database),)
        raw.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
        await wait_until(
            lambda: not raw.execute("SELECT FROM pg_stat_activity WHERE datname = %s", name).fetchall(),
            description="the connections have ended",
        )
    for number in range(4):
        await accept(log, session(number), "again")
        await log.load(session(number))


async def test_a_server_that_does_not_answer_is_given_up(
    proxy: FaultProxy, wired: PostgresLog, monkeypatch: pytest.MonkeyPatch
):
    """Law 12: nobody waits for ever on a wire that is there and silent."""
    await accept(wired, session())
    monkeypatch.setattr("dalsegno.stores.postgres.connections.ANSWER_SECONDS", 0.3)
    await proxy.switch(BlackHole())
    with pytest.raises(Unavailable) as caught:
        await accept(wired, session())
    assert caught.value.outcome == "unknown"
    await proxy.switch(Pass())


async def test_a_database_that_is_read_only_says_so(server: Postgres, database: str, log: PostgresLog):
    """A connection that turns read-only, and those that come after: `not_applied`, and the message says so."""
    await accept(log, session())
    name = sql.Identifier(name_of(database))
    with psycopg.connect(server.url(), autocommit=True) as raw:
        raw.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        async with log._connections.cursor() as cursor:
            await cursor.execute("SET default_transaction_read_only = on")
        for _ in range(2):
            with pytest.raises(Unavailable, match="read-only") as caught:
                await accept(log, session())
            assert caught.value.outcome == "not_applied"
        raw.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))
    await accept(log, session())


async def test_a_database_without_connections_left_says_so(server: Postgres):
    """`not_applied`, and the message says so. The database has an owner and a limit of its own."""
    database = server.database()
    name = sql.Identifier(name_of(database))
    with psycopg.connect(server.url(), autocommit=True) as raw:
        raw.execute("DO 'BEGIN CREATE ROLE plain LOGIN; EXCEPTION WHEN duplicate_object THEN END'")
        raw.execute(sql.SQL("ALTER DATABASE {} OWNER TO plain").format(name))
        log = await PostgresLog.open(database.replace("postgres@", "plain@"))
        raw.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 0").format(name))
        with pytest.raises(Unavailable, match="too many connections") as caught:
            await accept(log, session())
        assert caught.value.outcome == "not_applied"
        raw.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(name))
        await accept(log, session())
    await log.close()
    server.drop(database)


async def test_a_row_that_is_locked_for_long_holds_nobody_up_for_ever(database: str, monkeypatch: pytest.MonkeyPatch):
    """A foreign lock: bounded tries, then `not_applied`; other sessions are served meanwhile."""
    monkeypatch.setitem(place.SETTINGS, "lock_timeout", "500ms")
    log = await PostgresLog.open(database)
    stuck = [session(number) for number in range(3)]
    for number in range(8):
        await accept(log, session(number))
    with psycopg.connect(database) as raw:
        for ref in stuck:
            raw.execute("SELECT FROM dalsegno_session WHERE id = %s::uuid FOR UPDATE", (ref.id,))
        waiting = [asyncio.create_task(accept(log, ref)) for ref in stuck]
        for _ in range(5):
            await asyncio.gather(*(accept(log, session(number)) for number in range(3, 8)))
        assert not any(one.done() for one in waiting), "the others waited until these had given up"
        for ended in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(ended, Unavailable) and ended.outcome == "not_applied"
    for ref in stuck:
        await accept(log, ref)
    await log.close()


async def test_a_repeat_at_another_replica_finds_the_first_receipt(database: str):
    """P2 under races: two replicas with the session at hand are told the same at the same moment, again and again."""
    logs = [await PostgresLog.open(database) for _ in range(3)]
    for log in logs:
        await accept(log, session())
    for count in range(50):
        same = admission(session(), f"{count}", key=f"k{count}")
        decisions = await asyncio.gather(*(speak(log, same) for log in logs))
        receipts = [decision.result.receipt for decision in decisions if isinstance(decision, Write | Keep)]
        assert sorted(receipt.replayed for receipt in receipts) == [False, True, True]
        assert len({receipt.seq for receipt in receipts}) == 1
    for log in logs:
        await log.close()


async def test_the_dead_are_buried_though_their_connection_was_only_cut(
    database: str, proxy: FaultProxy, server: Postgres
):
    """A replica that loses its connection and lives has another one before it is missed; one that dies is missed."""
    wired = await PostgresLog.open(database.replace(str(server.port), str(proxy.port)))
    log = await PostgresLog.open(database)
    await wired.join(Member("a", "a"), ttl=TTL)
    await log.join(Member("b", "b"), ttl=TTL)
    await begin(wired, session(), owner="a")
    for _ in range(5):
        proxy.abort()
        assert list(await log.bury()) == []
    assert {member.incarnation for member in await log.members()} == {"a", "b"}
    await proxy.switch(Refuse())
    proxy.abort()
    await wait_until(lambda: _buried(log), description="the one that is cut off for good is missed")
    assert (await leased(log, "b")).orphaned
    await proxy.switch(Pass())
    await wired.close()
    await log.close()


async def test_a_crash_of_the_server_is_nobodys_death(server: Postgres, database: str):
    """Every lock is gone after it, and nobody has died. Their time is not over: it is about the locks."""
    logs = {name: await PostgresLog.open(database) for name in "abc"}
    for name, log in logs.items():
        await log.join(Member(name, name), ttl=timedelta(minutes=1))
    await begin(logs["a"], session(), owner="a")
    await asyncio.to_thread(server.restart)

    async def answers(log: PostgresLog) -> bool:
        try:
            assert list(await log.bury()) == [], "a living replica was buried"
        except Unavailable:
            return False
        return {member.incarnation for member in await log.members()} == set(logs)

    for log in logs.values():
        await wait_until(partial(answers, log), description="everybody is back")
    for name in "bc":
        assert list(await logs[name].claim(name, limit=10)) == []
    for log in logs.values():
        await log.close()


async def _head(log: PostgresLog, head: int) -> bool:
    found = await log.load(session())
    return found is not None and found.head == head


async def _buried(log: PostgresLog) -> bool:
    return list(await log.bury()) == ["a"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://host:%zz/x", "cannot be understood"),
        ("postgresql://host/x?pooler=session", "pooler=transaction"),
        ("postgresql://host/x?nonsense=1", "cannot be understood"),
    ],
)
async def test_a_url_that_cannot_be_understood(url: str, told: str):
    """`ConfigError`, without what the URL holds."""
    with pytest.raises(ConfigError, match=told):
        await open_warm(url)


async def test_a_server_that_is_not_there(server: Postgres):
    """Whoever starts is told what could not be reached."""
    with pytest.raises(DalsegnoError):
        await open_warm("postgresql://postgres@127.0.0.1:1/none")
    with pytest.raises(DalsegnoError, match="does not exist"):
        await open_warm(server.url("nothing_of_that_name"))
