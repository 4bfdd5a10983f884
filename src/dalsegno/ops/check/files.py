"""Which files the agent writes, and which line of the user's code does it: told by the interpreter's audit events.

An audit hook cannot be taken out again, so this belongs to a process that ends soon.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from dalsegno.ops.check.talk import Trace

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = {"os.remove", "os.rename", "os.mkdir", "os.truncate", "os.symlink", "os.link", "sqlite3.connect"}
FRAMES_MAX = 60


class Files:
    """What was written since the last look, and what was read that an earlier look had seen written."""

    def __init__(
        self,
        *,
        roots: Sequence[str],
        quiet: Sequence[str],
        on: Callable[[], bool],
        effect: Callable[[], bool],
    ) -> None:
        self._roots = tuple(roots)
        self._quiet = (*quiet, "/dev/", "/proc/", "/sys/")
        self._on = on
        self._effect = effect
        self._before: set[str] = set()
        self._now: dict[str, Trace] = {}
        self._read: dict[str, Trace] = {}

    def watch(self) -> None:
        """From now on, until the process ends."""
        sys.addaudithook(self._hear)

    def look(self) -> list[Trace]:
        """What was written, or read again, since the last look."""
        found = [*self._now.values(), *self._read.values()]
        self._before.update(self._now)
        self._now, self._read = {}, {}
        return found

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if (event != "open" and event not in CHANGING) or not self._on():
            return
        path = _path(arguments[0])
        if path is None or path.startswith(self._quiet) or "__pycache__" in path:
            return
        if event in CHANGING or _writes(arguments[1], arguments[2]):
            if path not in self._now and (where := self._where()):
                self._now[path] = Trace("file", path, where=where, effect=self._effect())
        elif path in self._before and path not in self._read and (where := self._where()):
            self._read[path] = Trace("file", path, where=where, read_later=True)

    def _where(self) -> str:
        """The line of the user's code that it comes from; empty if it comes from none."""
        frame: FrameType | None = sys._getframe(2)
        for _ in range(FRAMES_MAX):
            if frame is None:
                break
            name = frame.f_code.co_filename
            if name.startswith(self._roots):
                return f"{name}:{frame.f_lineno} in {frame.f_code.co_name}"
            frame = frame.f_back
        return ""


def _path(given: object) -> str | None:
    if not isinstance(given, str | bytes | os.PathLike):
        return None
    text = os.fsdecode(given)
    return None if text == ":memory:" else str(Path(text).absolute())


def _writes(mode: object, flags: object) -> bool:
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & WRITING)
