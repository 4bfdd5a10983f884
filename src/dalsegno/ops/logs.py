"""Logs: to stderr, as lines for people or as JSON, with the replica, session and turn that a line is about.

What is logged never contains payloads, keys or passwords; nothing here adds any.
"""

import contextvars
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from dalsegno.ports import Agent

_turn: contextvars.ContextVar[dict[str, object] | None] = contextvars.ContextVar("dalsegno_turn", default=None)
PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
QUIET = ("uvicorn", "uvicorn.error", "websockets", "httpcore2", "httpx2", "asyncio")


def last_words(error: BaseException) -> str:
    """An error that nobody expected, in a line: its last place and what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    return f"{place}{type(error).__name__}: {' '.join(str(error).split())}"


class NamedAgent:
    """An agent whose log lines, its own and the runtime's about it, say which session and turn they are about."""

    def __init__(self, inner: Agent) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        """The name that sessions ask for it by."""
        return self._inner.name

    async def run(self, turn: Any) -> None:
        """Run the agent. The names stay in this task, so that what is logged about a failure has them, too."""
        _turn.set({"session": turn.session, "turn": turn.id, "attempt": turn.attempt, "epoch": turn.epoch})
        await self._inner.run(turn)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, replica, message, whose turn it was, and what `extra` gave."""

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._names = {"replica": replica} if replica else {}

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, object] = {"at": at, "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage()} | self._names | (_turn.get() or {})
        line |= {name: value for name, value in vars(record).items() if name not in PLAIN}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class TextLines(logging.Formatter):
    """A line for people."""

    def __init__(self, replica: str) -> None:
        who = f"{replica} " if replica else ""
        super().__init__(f"%(asctime)s %(levelname)-7s {who}%(name)s: %(message)s%(about)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the turn it is about."""
        names = _turn.get() or {}
        record.about = f" [session {names['session']} turn {names['turn']}]" if names else ""
        return super().format(record)


class _Stderr(logging.StreamHandler[Any]):
    """Whoever reads our stderr may go away; a log line that nobody reads must not become one that says so."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, BrokenPipeError):
            super().handleError(record)


def log_to_stderr(*, level: str, style: Literal["text", "json"], replica: str = "") -> None:
    """Set up the root logger of this process; `replica` is the name of the one that runs in it, if one does."""
    handler = _Stderr(sys.stderr)
    handler.setFormatter(JsonLines(replica) if style == "json" else TextLines(replica))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
