"""A replica's start, from the command to `ready`, and what it holds in memory then."""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from bench.report import Figure
from bench.takeover import AGENT
from dalsegno.testing.fleet import Fleet

STARTS = 7


def measure() -> list[Figure]:
    """All figures of this file."""
    seconds, megabytes = asyncio.run(_starts())
    return [
        Figure("replica: start to ready", statistics.median(seconds), "s", 1.0, 1.0, "1 s"),
        Figure("replica: resident memory when ready", statistics.median(megabytes), "MB", 70, 1.0, "70 MB"),
    ]


async def _starts() -> tuple[list[float], list[float]]:
    seconds, megabytes = [], []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            options = ("--warm", f"sqlite:////{folder}/bench.db", "--cold", f"file://{folder}/cold")
            begin = time.perf_counter()
            async with Fleet(f"{AGENT}:ticker", folder=folder, replicas=1, options=options) as fleet:
                seconds.append(time.perf_counter() - begin)
                megabytes.append(resident_bytes(fleet.replicas[0].pid) / 1e6)
    return seconds, megabytes


def resident_bytes(pid: int) -> int:
    """What the process holds in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def cpu_seconds(pid: int) -> float:
    """What the process has used of processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
