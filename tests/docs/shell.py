"""A terminal for console blocks: one bash for a whole page, so that variables and background jobs last.

What a command prints is compared by lines: each line of the page must come, in that order, others may stand between.
`…` stands for anything within a line.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PATIENCE_SECONDS = 30.0
PAUSE_SECONDS = 0.02


class Shell:
    """A bash in `folder`. Close it: everything that it started goes with it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._output = folder / ".output"
        with self._output.open("wb") as sink:
            self._bash = subprocess.Popen(
                ["bash", "-o", "pipefail"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
        self._commands = 0

    def run(self, command: str, wanted: list[str], *, place: str) -> None:
        """Type a command, and wait until it has ended (or runs in the background) and has printed what is wanted."""
        self._commands += 1
        done = f"@@ {self._commands} "
        began = self._output.stat().st_size
        assert self._bash.stdin is not None
        self._bash.stdin.write(f"{command}\nprintf '\\n{done}%s\\n' $?\n")
        self._bash.stdin.flush()
        pattern, printed = _pattern(wanted), ""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            printed = self._output.read_bytes()[began:].decode(errors="replace")
            if done in printed and pattern.search(printed):
                return
            time.sleep(PAUSE_SECONDS)
        pytest.fail(f"{place}: {command}\n--- wanted\n" + "\n".join(wanted) + f"\n--- printed\n{printed}")

    def close(self) -> None:
        """End the shell and whatever still runs in it."""
        os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()
        assert self._bash.stdin is not None
        self._bash.stdin.close()


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block (`$ ` begins one, `> ` goes on with it), each with the lines it prints."""
    command, printed = "", list[str]()
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, printed
            command, printed = line[2:], []
        elif line.startswith("> "):
            command += "\n" + line[2:]
        else:
            printed.append(line)
    if command:
        yield command, printed


def _pattern(wanted: list[str]) -> re.Pattern[str]:
    lines = (r"^[ \t]*" + r"[^\n]*".join(map(re.escape, line.strip().split("…"))) + r"[ \t]*$" for line in wanted)
    return re.compile(r"[\s\S]*?".join(lines), re.MULTILINE)
