"""The ratios to raw commits on slower disks: each sync is made to take longer, for us and for the raw loop alike.

What Python adds to a turn is the same on every disk, so the ratio depends on what a commit costs there. The disk of a
development machine that acknowledges a sync in 40 µs has no power-loss protection worth the name, or a cache that lies;
one that does its work takes 0.2 to 2 ms.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from bench import postgres, turns
from bench.report import Figure

SLOWER_MICROSECONDS = (200, 1000, 2000)
SOURCE = Path(__file__).with_name("slow_sync.c")


def measure() -> list[Figure]:
    """All figures of this file; none, and a line that says so, where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        print("no figures for slower disks: they need Linux and a C compiler named cc", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)  # a database's server may run as somebody else
        library = f"{name}/slow_sync.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"], check=True)
        return [figure for micros in SLOWER_MICROSECONDS for figure in _measured(library, micros)]


def _measured(library: str, micros: int) -> list[Figure]:
    slower = {"LD_PRELOAD": library, "SLOW_SYNC_MICROSECONDS": str(micros)}
    command = [sys.executable, "-m", "bench.disk"]
    found = subprocess.run(command, env={**os.environ, **slower}, check=True, capture_output=True, text=True).stdout
    figures = msgspec.convert(json.loads(found), list[Figure])
    return [msgspec.structs.replace(f, slower=micros / 1000) for f in figures]


if __name__ == "__main__":
    print(msgspec.json.encode([*turns.against_raw(), *postgres.against_raw()]).decode())
