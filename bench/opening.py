"""Opening a session in a fresh process: from its id until its next turn could think, for short and for long logs."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.report import Figure
from bench.workload import EVENTS_PER_TURN, bench, run
from dalsegno.ports import Query, Ref
from dalsegno.runtime.contexts import Contexts
from dalsegno.runtime.near import Near
from dalsegno.stores import close, open_hot, open_warm

SESSIONS = {1_000: (40, 25.0), 100_000: (2, 50.0)}
"""Length of the log in events → how many such sessions, and the bar in ms."""
PROCESSES = 10
NOBODY = Ref("bench", "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b")


def measure() -> list[Figure]:
    """All figures of this file."""
    figures = []
    for length, (count, bar) in SESSIONS.items():
        with tempfile.TemporaryDirectory() as name:
            run(fill(Path(name), length, count))
            seconds = opened(f"sqlite:////{name}/bench.db")
        figures.append(figure(f"open a session of {length:,} events in a fresh process", seconds, bar))
    return figures


def figure(name: str, seconds: list[float], bar: float) -> Figure:
    """The 99th percentile, against a bar in ms."""
    late = sorted(seconds)[int(len(seconds) * 0.99)] * 1000
    return Figure(f"{name}, p99", late, "ms", bar, 1.0, f"{bar:g} ms")


async def fill(directory: Path, length: int, count: int, *, warm_url: str = "", hot_url: str = "") -> None:
    """Sessions whose every event was written by a real turn."""
    async with bench(directory, warm_url=warm_url, hot_url=hot_url) as world:

        async def session() -> None:
            ref = await world.session()
            for _ in range(length // EVENTS_PER_TURN):
                await world.turn(ref)

        await asyncio.gather(*(session() for _ in range(count)))


def opened(*urls: str, processes: int = PROCESSES) -> list[float]:
    """Seconds for each session in each of so many processes. The URLs: warm, and hot if contexts may be kept there."""
    seconds: list[float] = []
    for _ in range(processes):
        command = [sys.executable, "-m", "bench.opening", *urls]
        seconds += json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return seconds


async def _open(warm_url: str, hot_url: str | None = None) -> list[float]:
    """Seconds for each session of the database, once."""
    warm = await open_warm(warm_url)
    found = await warm.list("bench", Query(limit=1000))
    await warm.close()
    warm, hot = await open_warm(warm_url), await open_hot(hot_url)
    seconds = []
    # A replica has its first connections when it says that it is ready.
    await asyncio.gather(warm.load(NOBODY), hot.read(NOBODY))
    for listed in found.sessions:
        ref = Ref("bench", listed.id)
        begin = time.perf_counter()
        session = await warm.load(ref)
        assert session is not None
        transcript = await Contexts(warm, Near(hot)).take(ref, session, before=session.head)
        transcript.context()
        seconds.append(time.perf_counter() - begin)
    await close(hot)
    await warm.close()
    return seconds


if __name__ == "__main__":
    print(json.dumps(run(_open(*sys.argv[1:]))))
