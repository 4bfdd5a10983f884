"""Turns: latency and throughput on SQLite FULL against the raw limit, growth with history, bytes, several processes."""

import asyncio
import contextlib
import json
import multiprocessing
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from bench import raw
from bench.content import CONTENT_BYTES
from bench.report import Figure
from bench.workload import bench, run

TURNS = 520
ROUNDS = 3
MANY = 64
MANY_TURNS = 30


def measure() -> list[Figure]:
    """All figures of this file."""
    return [*run(_one_session()), *run(_many_sessions()), *_processes()]


def against_raw() -> list[Figure]:
    """The two figures that compare turns with raw commits, and nothing else."""
    return [run(_one_session())[0], *run(_many_sessions())]


async def _one_session() -> list[Figure]:
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    sizes: dict[int, float] = {}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            seconds = []
            async with bench(directory) as world:
                ref = await world.session()
                empty = _size(directory / "bench.db")
                for turn in range(TURNS):
                    begin = time.perf_counter()
                    await world.turn(ref)
                    seconds.append(time.perf_counter() - begin)
                    if turn + 1 in (100, 500):
                        sizes[turn + 1] = (_size(directory / "bench.db") - empty) / (turn + 1)
                await world.check(ref, turns=TURNS)
            ours.append(seconds)
            rows = raw.rows_of(directory / "bench.db", turns=50)
            theirs.append(raw.one_session(directory / "raw.db", rows, turns=TURNS))
    typical = raw.median_ms([s for run in ours for s in run[20:]])
    limit = raw.median_ms([s for run in theirs for s in run[20:]])
    early = raw.median_ms([s for run in ours for s in run[5:15]])
    late = raw.median_ms([s for run in ours for s in run[495:505]])
    return [
        Figure("turn with one tool, SQLite FULL, one session, p50", typical, "ms", limit, 1.5, "4 raw durable commits"),
        Figure("turn 500 against turn 10, SQLite, p50", late, "ms", early, 1.2, "turn 10"),
        Figure(
            "bytes in the database per turn, 100 turns (the empty file not counted)",
            sizes[100],
            "B",
            CONTENT_BYTES,
            1.5,
            "content",
        ),
        Figure("bytes in the database per turn, 500 turns", sizes[500], "B", CONTENT_BYTES, 1.5, "content"),
    ]


async def _many_sessions() -> list[Figure]:
    ours, theirs = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            async with bench(directory) as world:
                refs = [await world.session() for _ in range(MANY)]

                async def session(ref) -> None:
                    for _ in range(MANY_TURNS):
                        await world.turn(ref)

                begin = time.perf_counter()
                await asyncio.gather(*map(session, refs))
                ours.append(MANY * MANY_TURNS / (time.perf_counter() - begin))
                for ref in refs:
                    await world.check(ref, turns=MANY_TURNS)
            rows = raw.rows_of(directory / "bench.db", turns=MANY_TURNS - 2)
            theirs.append(await raw.many_sessions(directory / "raw.db", rows, sessions=MANY, turns=MANY_TURNS))
    value, limit = statistics.median(ours), statistics.median(theirs)
    return [Figure("64 sessions in one process", value, "turns/s", limit, 0.5, "raw group commit", at_least=True)]


def _processes() -> list[Figure]:
    one = statistics.median(_fleet(1)[0] for _ in range(ROUNDS))
    three = [_fleet(3) for _ in range(ROUNDS)]
    value = statistics.median(total for total, _ in three)
    fairness = statistics.median(min(each) / max(each) for _, each in three)
    return [
        Figure("3 replica processes, the same work", value, "turns/s", one, 1.0, "one process", at_least=True),
        Figure("the slowest of them", fairness, "× the fastest", 1.0, 0.5, "the fastest", at_least=True),
    ]


def _fleet(processes: int) -> tuple[float, list[float]]:
    """Turns a second in all, and of each process, for the same 63 sessions."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        barrier = context.Barrier(processes + 1)
        results = context.Queue()
        children = [
            context.Process(target=_work, args=(name, f"r{place}", 63 // processes, barrier, results))
            for place in range(processes)
        ]
        for child in children:
            child.start()
        barrier.wait()
        begin = time.perf_counter()
        each = [json.loads(results.get()) for _ in children]
        seconds = time.perf_counter() - begin
        for child in children:
            child.join()
        return 63 * MANY_TURNS / seconds, each


def _work(directory: str, name: str, sessions: int, barrier, results) -> None:
    async def main() -> None:
        async with bench(Path(directory), name=name) as world:
            refs = [await world.session() for _ in range(sessions)]
            barrier.wait()

            async def session(ref) -> None:
                for _ in range(MANY_TURNS):
                    await world.turn(ref)

            begin = time.perf_counter()
            await asyncio.gather(*map(session, refs))
            results.put(json.dumps(sessions * MANY_TURNS / (time.perf_counter() - begin)))

    run(main())


def _size(database: Path) -> int:
    """The file with everything in it; the write-ahead log is copied back first."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (page,) = connection.execute("PRAGMA page_size").fetchone()
        return pages * page
