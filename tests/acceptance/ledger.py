"""The world outside the fleet: an append-only file of what was done to it, one line an effect, synced.

`write` is called by replicas, which may die in the next instruction; `read` by tests. A line is one write, so it is
there or not. Times are CLOCK_MONOTONIC's, which all processes of a machine share.
"""

import hashlib
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

VARIABLE = "ACCEPTANCE_LEDGER"


def write(kind: str, **facts: Any) -> None:
    """Put a line on record, on the disk."""
    line = json.dumps({"kind": kind, "pid": os.getpid(), "at": time.monotonic(), **facts}).encode() + b"\n"
    descriptor = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def digest(content: bytes) -> str:
    """A short name for what a model was shown."""
    return hashlib.sha256(content).hexdigest()[:16]


class Ledger:
    """The file, read from outside. Reads only what is new."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[dict[str, Any]] = []
        self._offset = 0

    def lines(self, kind: str | None = None, **facts: Any) -> list[dict[str, Any]]:
        """The lines of that kind with those facts, in the order in which they were written."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                whole, _, _ = file.read().rpartition(b"\n")
            self._lines += [json.loads(line) for line in whole.splitlines()]
            self._offset += len(whole) + 1 if whole else 0
        return [
            line
            for line in self._lines
            if kind in (None, line["kind"]) and all(line.get(name) == value for name, value in facts.items())
        ]

    def keys(self, kind: str) -> dict[str, set[str]]:
        """Under how many keys each thing was done: where keys are honoured, how often it happened."""
        found: dict[str, set[str]] = {}
        for line in self.lines(kind):
            found.setdefault(line["label"], set()).add(line["key"])
        return found

    def times(self, kind: str) -> Counter[str]:
        """How often each thing was done, keys or not."""
        return Counter(line["label"] for line in self.lines(kind))
