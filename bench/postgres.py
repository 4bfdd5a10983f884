"""The same turns on PostgreSQL, with everything durable, against psycopg doing the same commits in the same run.

The server is a private one of this machine: a round trip is short here, and the client shares the cores with it.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from bench.content import CONTENT_BYTES
from bench.raw import COMMITS, median_ms
from bench.report import Figure
from bench.workload import bench, run
from dalsegno.stores import open_warm
from dalsegno.testing.servers import postgres
from dalsegno.testing.servers.postgres import Postgres

TURNS = 520
ROUNDS = 3
MANY = 64
MANY_TURNS = 20
CONNECTIONS = 8
SIZES = ((270, 100), (300, 170), (2200,), (790, 30))
"""Bytes of the events of each of a turn's commits, as a real turn has them."""

Write = Callable[[int, int, int], Awaitable[None]]
"""(session, its head, which of the turn's commits)"""


def measure() -> list[Figure]:
    """All figures of this file."""
    with postgres.running() as server:
        return [*run(_one_session(server)), *run(_many_sessions(server))]


def against_raw() -> list[Figure]:
    """The two figures that compare turns with raw commits, and nothing else."""
    with postgres.running() as server:
        return [run(_one_session(server))[0], run(_many_sessions(server))[0]]


async def _one_session(server: Postgres) -> list[Figure]:
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    for _ in range(ROUNDS):
        seconds = []
        with tempfile.TemporaryDirectory() as name:
            async with bench(Path(name), warm_url=server.database(), hot_url="memory:") as world:
                ref = await world.session()
                for _ in range(TURNS):
                    begin = time.perf_counter()
                    await world.turn(ref)
                    seconds.append(time.perf_counter() - begin)
                await world.check(ref, turns=TURNS)
        ours.append(seconds)
        async with raw(server.database(), connections=1, sessions=1) as (write, (session,)):
            theirs.append(await raw_turns(write, session, TURNS))
    typical = median_ms([s for run in ours for s in run[20:]])
    limit = median_ms([s for run in theirs for s in run[20:]])
    early, late = (median_ms([s for run in ours for s in run[at - 5 : at + 5]]) for at in (10, 500))
    name = "turn with one tool, PostgreSQL, one session, p50"
    return [
        Figure(name, typical, "ms", limit, 1.3, "4 raw durable commits"),
        Figure("turn 500 against turn 10, PostgreSQL, p50", late, "ms", early, 1.2, "turn 10"),
    ]


async def _many_sessions(server: Postgres) -> list[Figure]:
    ours, theirs, sizes = [], [], []
    for _ in range(ROUNDS):
        url = server.database()
        with tempfile.TemporaryDirectory() as name:
            async with bench(Path(name), warm_url=url, hot_url="memory:") as world:
                refs = [await world.session() for _ in range(MANY)]

                async def session(ref) -> None:
                    for _ in range(MANY_TURNS):
                        await world.turn(ref)

                # connections are made and statements prepared by then, here and below
                await asyncio.gather(*map(world.turn, refs))
                empty = await _bytes(url)
                begin = time.perf_counter()
                await asyncio.gather(*map(session, refs))
                ours.append(MANY * MANY_TURNS / (time.perf_counter() - begin))
                for ref in refs:
                    await world.check(ref, turns=MANY_TURNS + 1)
        sizes.append((await _bytes(url) - empty) / MANY / MANY_TURNS)
        async with raw(server.database(), connections=CONNECTIONS, sessions=2 * MANY) as (write, sessions):
            await asyncio.gather(*(raw_turns(write, session, 1) for session in sessions[MANY:]))
            begin = time.perf_counter()
            await asyncio.gather(*(raw_turns(write, session, MANY_TURNS) for session in sessions[:MANY]))
            theirs.append(MANY * MANY_TURNS / (time.perf_counter() - begin))
    value, limit, size = statistics.median(ours), statistics.median(theirs), statistics.median(sizes)
    client = f"psycopg, {CONNECTIONS} connections"
    return [
        Figure("64 sessions in one process, PostgreSQL", value, "turns/s", limit, 0.6, client, at_least=True),
        Figure("bytes in PostgreSQL per turn, 64 sessions", size, "B", CONTENT_BYTES, 1.5, "content"),
    ]


async def _bytes(url: str) -> float:
    """Tables and indexes of the log, tidied up."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("VACUUM")
        names = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname LIKE 'dalsegno%' AND relkind = 'r'"
        row = await (await connection.execute(names)).fetchone()
        assert row is not None
        return float(row[0])


async def raw_turns(write: Write, session: int, turns: int) -> list[float]:
    seconds, head = [], 0
    for _ in range(turns):
        begin = time.perf_counter()
        for place, count in enumerate(COMMITS):
            await write(session, head, place)
            head += count
        seconds.append(time.perf_counter() - begin)
    return seconds


@asynccontextmanager
async def raw(url: str, *, connections: int, sessions: int) -> AsyncIterator[tuple[Write, list[int]]]:
    """One statement a commit, with the fewest parameters that do it: row, events and key under the row's condition."""
    await (await open_warm(url)).close()
    idle: asyncio.LifoQueue[psycopg.AsyncCursor] = asyncio.LifoQueue()
    opened = [
        await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0) for _ in range(connections)
    ]
    for connection in opened:
        idle.put_nowait(connection.cursor(binary=True))
    make = (
        "INSERT INTO dalsegno_session (tenant, id, head, epoch, attempt, since, status)"
        " SELECT 'raw', gen_random_uuid(), 0, 0, 0, 0, 0 FROM generate_series(1, %s) RETURNING n"
    )
    made = await (await opened[0].execute(make, (sessions,))).fetchall()
    commits = [_commit(place) for place in range(len(COMMITS))]

    async def write(session: int, head: int, place: int) -> None:
        statement, values = commits[place]
        cursor = await idle.get()
        try:
            key = (session << 32 | head).to_bytes(16, "big")
            after = head + COMMITS[place]
            await cursor.execute(statement, {**values, "n": session, "was": head, "head": after, "key": key})
            row = await cursor.fetchone()
            assert row == (session,)
        finally:
            idle.put_nowait(cursor)

    try:
        yield write, [n for (n,) in made]
    finally:
        for connection in opened:
            await connection.close()


def _commit(place: int) -> tuple[str, dict[str, object]]:
    last = place == len(COMMITS) - 1
    values: dict[str, object] = {"owner": None if last else "f" * 32, "ready": None if last else 0, "state": bytes(200)}
    events = []
    for number, size in enumerate(SIZES[place]):
        values[f"body{number}"] = bytes(range(256)) * (size // 256) + bytes(size % 256)
        events.append(
            f"(%(n)s::bigint, %(was)s::int + {number + 1}, 1::smallint, 1, 1::bigint, 1, %(body{number})s::bytea)"
        )
    key = (
        ", k AS (INSERT INTO dalsegno_key (session, digest, fingerprint, seq, turn, status)"
        " SELECT n, %(key)s, %(key)s, 1, 1, 'queued' FROM u)"
    )
    rows = ", ".join(events)
    statement = f"""
        WITH u AS (
            UPDATE dalsegno_session
            SET head = %(head)s, owner = %(owner)s, ready_at = %(ready)s, status = 1, state = %(state)s
            WHERE n = %(n)s AND head = %(was)s RETURNING n
        ), e AS (
            INSERT INTO dalsegno_event (session, seq, kind, turn, at, crc, body)
            SELECT v.* FROM u CROSS JOIN (VALUES {rows}) AS v
        ){key if place == 0 else ""}
        SELECT n FROM u
    """  # noqa: S608 - of constants only
    return statement, values
