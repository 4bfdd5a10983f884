"""Opening a session in a fresh process: from its id until its next turn could think, for short and for long logs."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.report import Figure
from bench.workload import EVENTS_PER_TURN, bench
from dalsegno.ports import Query, Ref
from dalsegno.runtime.contexts import Contexts
from dalsegno.stores import open_warm

SESSIONS = {1_000: (40, 25.0), 100_000: (2, 50.0)}
"""Length of the log in events → how many such sessions, and the bar in ms."""
PROCESSES = 10


def measure() -> list[Figure]:
    """All figures of this file."""
    figures = []
    for length, (count, bar) in SESSIONS.items():
        with tempfile.TemporaryDirectory() as name:
            asyncio.run(_fill(Path(name), length, count))
            command = [sys.executable, "-m", "bench.opening", f"sqlite:////{name}/bench.db"]
            seconds: list[float] = []
            for _ in range(PROCESSES):
                seconds += json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        late = sorted(seconds)[int(len(seconds) * 0.99)] * 1000
        name = f"open a session of {length:,} events in a fresh process, p99"
        figures.append(Figure(name, late, "ms", bar, 1.0, f"{bar:g} ms"))
    return figures


async def _fill(directory: Path, length: int, count: int) -> None:
    """Sessions whose every event was written by a real turn."""
    async with bench(directory) as world:

        async def session() -> None:
            ref = await world.session()
            for _ in range(length // EVENTS_PER_TURN):
                await world.turn(ref)

        await asyncio.gather(*(session() for _ in range(count)))


async def _open(url: str) -> list[float]:
    """Seconds for each session of the database, once."""
    warm = await open_warm(url)
    found = await warm.list("bench", Query(limit=1000))
    await warm.close()
    warm = await open_warm(url)
    seconds = []
    for listed in found.sessions:
        ref = Ref("bench", listed.id)
        begin = time.perf_counter()
        session = await warm.load(ref)
        assert session is not None
        transcript = await Contexts(warm).take(ref, session, before=session.head)
        transcript.context()
        seconds.append(time.perf_counter() - begin)
    await warm.close()
    return seconds


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_open(sys.argv[1]))))
