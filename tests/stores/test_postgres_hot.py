"""The hot tier on PostgreSQL beyond its port: what it does when the server or the wire does not, how few statements
carry many sessions, and what it leaves behind.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from dalsegno import stores
from dalsegno.core.stream import Piece
from dalsegno.errors import ConfigError, LeaseLost, Unavailable
from dalsegno.ports import Hint, OpenStep
from dalsegno.stores import sqlfile
from dalsegno.stores.postgres import PostgresHot, steps
from dalsegno.stores.postgres import hot as module
from dalsegno.stores.postgres import hot as postgres_hot
from dalsegno.stores.postgres.arrays import adapted
from dalsegno.stores.postgres.hints import PAYLOAD_BYTES_MAX, payloads
from dalsegno.testing.conformance.acts import publish, session
from dalsegno.testing.proxy import BlackHole, Delay, FaultProxy, Pass, Refuse
from dalsegno.testing.servers.postgres import Postgres
from tests.support import wait_until

BUDGET_SECONDS = 0.25
SLACK_SECONDS = 0.2
"""What this machine may be busy with besides."""
STATEMENTS = sqlfile.statements("postgres_hot")


@pytest.fixture
async def hot(database: str) -> AsyncIterator[PostgresHot]:
    hot = await PostgresHot.open(database)
    yield hot
    await hot.close()


@pytest.fixture
async def wired(database: str, server: Postgres, proxy: FaultProxy) -> AsyncIterator[PostgresHot]:
    """A hot tier whose wire can be cut."""
    hot = await PostgresHot.open(database.replace(str(server.port), str(proxy.port)))
    yield hot
    await hot.close()


def letters(text: str, *, base: int = 3) -> list[Piece]:
    return [Piece(base, n, 2, "msg", field="text", offset=n, delta=letter) for n, letter in enumerate(text)]


def calls(hot: PostgresHot) -> list[Callable[[], Awaitable[Any]]]:
    """Each of the port's."""
    return [
        lambda: publish(hot, session(), 1, letters("x")),
        lambda: hot.fence(session(), 1),
        lambda: hot.read(session()),
        lambda: hot.clear(session(), 1),
        lambda: hot.tell([Hint("acme", session().id)]),
    ]


async def works(hot: PostgresHot) -> bool:
    """Whether something can be published and read."""
    with suppress(Unavailable):
        await publish(hot, session(77), 1, letters("x"))
        return await hot.read(session(77)) == OpenStep(3, 1, tuple(letters("x")))
    return False


async def hears(hot: PostgresHot, heard: list[Hint], hint: Hint) -> bool:
    """Whether it hears itself. Hints may be lost: who wants to be heard says it again."""
    with suppress(Unavailable):
        await hot.tell([hint])
    return hint in heard


# ------------------------------------------------------------------------------------------------ many at once


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked here is how, and not how fast on a machine that does other things, too."""
    monkeypatch.setattr(postgres_hot, "ANSWER_SECONDS", 10.0)


async def test_five_hundred_sessions_are_a_few_statements(
    unhurried: None, hot: PostgresHot, monkeypatch: pytest.MonkeyPatch
):
    """What is published or read while a statement is under way goes together in the next."""
    sent: list[str] = []
    execute = hot._execute

    async def counted(name: str, values: dict[str, Any]) -> list[Any]:
        sent.append(name)
        return await execute(name, values)

    monkeypatch.setattr(hot, "_execute", counted)
    step = letters("hello")
    for part in (step[:2], step[2:]):
        await asyncio.gather(*(publish(hot, session(n), 1, part) for n in range(500)))
    found = await asyncio.gather(*(hot.read(session(n)) for n in range(500)))
    assert all(one == OpenStep(3, 1, tuple(step)) for one in found)
    assert len(sent) <= 12, sent


async def test_one_that_is_refused_keeps_nobody_back(hot: PostgresHot):
    """In one statement: a stale epoch among others."""
    await hot.fence(session(3), 9)
    told = await asyncio.gather(*(publish(hot, session(n), 1, letters("x")) for n in range(6)), return_exceptions=True)
    assert [type(one) for one in told] == [LeaseLost if n == 3 else type(None) for n in range(6)]


async def test_one_sessions_publications_keep_their_order(unhurried: None, hot: PostgresHot):
    """Also when nobody waits for one before the next, and others are under way."""
    step = letters("a" * 40)
    await asyncio.gather(
        *(publish(hot, session(n), 1, [piece]) for piece in step for n in range(3)), hot.read(session(0))
    )
    for n in range(3):
        assert await hot.read(session(n)) == OpenStep(3, 1, tuple(step))


async def test_a_zombie_and_its_heir_at_the_same_moment(database: str):
    """P4 under races: what was refused is not read, and what the fence showed is what there is, again and again."""
    zombie, heir = await PostgresHot.open(database), await PostgresHot.open(database)
    step = letters("hello")

    async def haunt(n: int) -> int:
        for count, piece in enumerate(step):
            try:
                await publish(zombie, session(n), 1, [piece])
            except LeaseLost:
                return count
        return len(step)

    async def inherit(n: int) -> OpenStep | None:
        for _ in range(n % 4):
            await heir.read(session(n))
        return await heir.fence(session(n), 2)

    for n in range(60):
        said, shown = await asyncio.gather(haunt(n), inherit(n))
        assert (0 if shown is None else len(shown.pieces)) == said
        found = await zombie.read(session(n))
        assert found == (OpenStep(3, 2, tuple(step[:said])) if said else None)
    for hot in (zombie, heir):
        await hot.close()


async def test_what_arrived_and_is_said_again_goes_on(hot: PostgresHot):
    """A publisher that was not answered sends everything with what follows."""
    step = letters("hello you")
    for end in (3, 5, 9):
        await publish(hot, session(), 1, step[:end])
        assert await hot.read(session()) == OpenStep(3, 1, tuple(step[:end]))


async def test_what_does_not_hang_together_is_kept_as_far_as_it_does(hot: PostgresHot):
    """Several steps and a gap in one publication."""
    one, two = letters("one"), letters("second", base=7)
    await publish(hot, session(), 1, [*one, *two[:2], *one, *two[3:], *two[2:4]])
    assert await hot.read(session()) == OpenStep(7, 1, tuple(two[:4]))


async def test_a_step_is_bounded(hot: PostgresHot):
    """P10: what is over the bound is lost, and with it what follows; the next step has room again."""
    mebibyte = [Piece(3, n * 2**20, 2, "msg", field="text", delta="x" * 2**20) for n in range(9)]
    for piece in mebibyte:
        with suppress(Unavailable):
            await publish(hot, session(), 1, [piece])
    size = (steps.STEP_BYTES_MAX // 2**20) - 1

    async def whole() -> OpenStep | None:
        with suppress(Unavailable):
            return await hot.read(session(), base=3, after=(size - 1) * 2**20)
        return None

    kept = await wait_until(whole, description="there is time to read it")
    assert kept.pieces == tuple(mebibyte[size - 1 : size])
    await publish(hot, session(), 1, letters("next", base=4))
    assert await hot.read(session()) == OpenStep(4, 1, tuple(letters("next", base=4)))


async def test_hints_said_at_once_are_few_messages(hot: PostgresHot):
    """As many as a payload takes; one that no payload takes is lost, the others are not."""
    said = [Hint("acmé", session(n).id, n, ready=True) for n in range(1000)]
    huge = Hint("x" * PAYLOAD_BYTES_MAX, session().id)
    packed = list(payloads([*said[:500], huge, *said[500:]]))
    assert len(packed) < 12 and all(len(one.encode()) <= PAYLOAD_BYTES_MAX for one in packed)
    heard: list[Hint] = []
    async with hot.listen(heard.append):
        await hot.tell([*said[:500], huge, *said[500:]])
        await wait_until(lambda: len(heard) >= 1000, description="all is heard")
    assert heard == said


async def test_what_is_no_hint_is_not_heard(hot: PostgresHot, database: str):
    """Another version's message, or nobody's, is passed over."""
    heard: list[Hint] = []
    async with hot.listen(heard.append):
        with psycopg.connect(database, autocommit=True) as raw:
            raw.execute(STATEMENTS["hint_tell"].replace("%(payloads)s", "ARRAY['nothing']"))
        await hot.tell([Hint("acme", "s")])
        await wait_until(lambda: heard, description="the hint is heard")


# ------------------------------------------------------------------------------------------------ faults


async def test_a_crash_of_the_server_loses_steps_and_nothing_else(server: Postgres, database: str):
    """The tables are emptied; whoever publishes or listens goes on by itself."""
    hot = await PostgresHot.open(database)
    heard: list[Hint] = []
    async with hot.listen(heard.append):
        await hot.fence(session(), 5)
        await publish(hot, session(), 5, letters("hello"))
        await asyncio.to_thread(server.crash)
        for call in calls(hot):
            with pytest.raises(Unavailable):
                await call()
        await asyncio.to_thread(server.start)
        await wait_until(partial(works, hot), description="it works again")
        assert await hot.read(session()) is None
        await publish(hot, session(), 5, letters("anew"))
        assert await hot.read(session()) == OpenStep(3, 5, tuple(letters("anew")))
        await wait_until(partial(hears, hot, heard, Hint("acme", "again")), description="it hears again")
    await hot.close()


async def test_a_connection_that_was_cut_is_made_again(proxy: FaultProxy, wired: PostgresHot):
    """Nobody notices an idle connection's end; the ear has another one soon."""
    heard: list[Hint] = []
    async with wired.listen(heard.append):
        for count in range(3):
            await publish(wired, session(count), 1, letters("x"))
            proxy.abort()
            await wait_until(partial(works, wired), description="it works again")
            await wait_until(partial(hears, wired, heard, Hint("acme", f"{count}")), description="it hears again")


async def test_no_call_takes_longer_than_its_budget(server: Postgres, hot: PostgresHot):
    """Hot 5, while all of the server's processes are stopped: first by waiting, then without; later it goes on."""
    assert await works(hot)
    took: list[float] = []
    server.pause()
    try:
        for _ in range(2):
            for call in calls(hot):
                began = time.monotonic()
                with pytest.raises(Unavailable):
                    await call()
                took.append(time.monotonic() - began)
        began = time.monotonic()
        crowd = (publish(hot, session(n), 1, letters("x")) for n in range(500))
        told = await asyncio.gather(*crowd, return_exceptions=True)
        assert time.monotonic() - began < 10 * BUDGET_SECONDS, "they wait side by side: in turn it is two minutes"
        assert all(isinstance(one, Unavailable) for one in told)
    finally:
        server.resume()
    assert max(took) < BUDGET_SECONDS + SLACK_SECONDS, took
    assert sum(took) < 6 * BUDGET_SECONDS, "a server that does not answer is not asked again and again"
    await wait_until(partial(works, hot), description="it goes on")


async def test_a_wire_that_swallows_everything(proxy: FaultProxy, wired: PostgresHot):
    """Hot 5: also while connecting."""
    assert await works(wired)
    await proxy.switch(BlackHole())
    proxy.abort()
    for call in calls(wired):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await call()
        assert time.monotonic() - began < BUDGET_SECONDS + SLACK_SECONDS
    await proxy.switch(Pass())
    proxy.abort()
    await wait_until(partial(works, wired), description="it goes on")


async def test_a_call_that_asks_twice_has_one_budget(proxy: FaultProxy, wired: PostgresHot):
    """Hot 5, on a slow wire: a fence is a write and a read."""
    await wired.fence(session(), 1)
    await proxy.switch(Delay(latency=timedelta(seconds=0.09)))
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await wired.fence(session(), 1)
    assert time.monotonic() - began < BUDGET_SECONDS + SLACK_SECONDS
    await proxy.switch(Pass())


async def test_a_row_that_somebody_locks_is_not_waited_for(hot: PostgresHot, database: str):
    """The budget holds for the server, too: it gives up by itself, and the connection stays."""
    await publish(hot, session(), 1, letters("x"))
    with psycopg.connect(database) as raw:
        raw.execute("SELECT FROM dalsegno_step FOR UPDATE")
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await publish(hot, session(), 1, letters("xy"))
        assert time.monotonic() - began < BUDGET_SECONDS + SLACK_SECONDS
        assert await hot.read(session()) == OpenStep(3, 1, tuple(letters("x")))
    await publish(hot, session(), 1, letters("xy"))
    assert await hot.read(session()) == OpenStep(3, 1, tuple(letters("xy")))


async def test_nobody_has_to_be_there_yet(proxy: FaultProxy, database: str, server: Postgres):
    """P10: it may be lost at any moment, also the first."""
    await proxy.switch(Refuse())
    hot = await PostgresHot.open(database.replace(str(server.port), str(proxy.port)))
    heard: list[Hint] = []
    async with hot.listen(heard.append):
        with pytest.raises(Unavailable):
            await hot.read(session())
        await proxy.switch(Pass())
        await wait_until(partial(works, hot), description="it has come")
        await wait_until(partial(hears, hot, heard, Hint("acme", "first")), description="it hears")
    await hot.close()


# ------------------------------------------------------------------------------------------------ what is left behind


async def test_what_has_expired_is_swept_away(database: str, monkeypatch: pytest.MonkeyPatch):
    """Hot 4: rows of steps and of pieces; those that are in use stay."""
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.0)
    hot = await PostgresHot.open(database, lifetime=timedelta(seconds=0.2))
    await publish(hot, session(1), 1, letters("hello"))
    with psycopg.connect(database, autocommit=True) as raw:

        async def swept() -> bool:
            await publish(hot, session(2), 1, letters("x"))
            left = raw.execute(
                "SELECT id, p.step IS NOT NULL FROM dalsegno_step FULL JOIN dalsegno_piece p ON step = n"
            )
            return left.fetchall() == [(session(2).id, True)]

        await wait_until(swept, description="only the second is left")
    await hot.close()


async def test_pieces_that_were_replaced_are_gone(hot: PostgresHot, database: str):
    """A new step, a new attempt, a clear: nothing of what was there stays on the disk."""
    with psycopg.connect(database, autocommit=True) as raw:
        for n, act in enumerate(
            (
                lambda: publish(hot, session(), 1, letters("two", base=9)),
                lambda: publish(hot, session(), 2, letters("three", base=9)),
                lambda: hot.clear(session(), 2),
            )
        ):
            await publish(hot, session(), 1 if n < 2 else 2, letters("one", base=3 + n))
            await act()
            rows = raw.execute("SELECT count(*) FROM dalsegno_piece").fetchone()
            assert rows == (0 if n == 2 else 1,)


async def test_no_log_is_written_for_it(hot: PostgresHot, database: str):
    """The tables are unlogged: the log's disk does not know of deltas."""
    with psycopg.connect(database, autocommit=True) as raw:
        unlogged = raw.execute(
            "SELECT relname FROM pg_class WHERE relname ~ '^dalsegno_(step|piece)' AND relpersistence <> 'u'"
        )
        assert unlogged.fetchall() == []


@pytest.mark.parametrize("name", ["step_read", "step_sweep", "step_write"])
async def test_no_statement_reads_a_whole_table(hot: PostgresHot, name: str):
    """A plan for whatever values come, as the server keeps it."""
    write = steps.Write(session(), 1, steps.Act.PUBLISH, letters("x"))
    values = {
        **steps.writing([write]),
        **steps.reading([steps.Read(session(), 1, 1)]),
        "most": 1,
        "ttl": timedelta(seconds=1),
    }
    parameters: dict[str, Any] = hot._place.connection()
    with psycopg.connect(**parameters, autocommit=True, context=adapted()) as raw:
        raw.execute("SET plan_cache_mode = force_generic_plan")
        plan = "\n".join(line for (line,) in raw.execute(f"EXPLAIN {STATEMENTS[name]}", values).fetchall())
    assert "Seq Scan on dalsegno" not in plan, plan


async def test_a_url_opens_it(database: str):
    """Of the warm tier's own, it is kept beside the log; each has versions of its own."""
    for url in (database, f"{database}?pooler=transaction"):
        warm, hot = await stores.open_warm(url), await stores.open_hot(url)
        assert isinstance(hot, PostgresHot)
        assert await works(hot)
        await stores.close(hot)
        await stores.close(warm)
    with psycopg.connect(database, autocommit=True) as raw:
        raw.execute("INSERT INTO dalsegno_hot_schema VALUES ('schema', 7, 7)")
    await stores.close(await stores.open_warm(database))
    with pytest.raises(ConfigError, match="newer than this Dalsegno"):
        await stores.open_hot(database)


async def test_many_handles_begin_at_once(database: str):
    """On an empty database, and with one session that nobody has begun."""
    hots = await asyncio.gather(*(PostgresHot.open(database) for _ in range(6)))
    await asyncio.gather(*(publish(hot, session(), 1, letters("hello")) for hot in hots))
    assert await hots[0].read(session()) == OpenStep(3, 1, tuple(letters("hello")))
    with psycopg.connect(database) as raw:
        assert raw.execute("SELECT count(*) FROM dalsegno_piece").fetchone() == (1,)
    for hot in hots:
        await hot.close()
