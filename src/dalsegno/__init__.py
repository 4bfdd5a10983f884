"""Dalsegno runs any Python agent on any number of identical replicas. The public names, nothing else.

async def answer(turn: Turn) -> None:
    await turn.say(f"You said: {turn.text}")

$ dalsegno serve agent.py:answer --replicas 3
"""

from dalsegno.agents.current import current_call
from dalsegno.agents.tool import Crash, Gate, outside, tool
from dalsegno.core.context import Context
from dalsegno.core.part import Arguments, Continue, Detail, Thought, ToolCall, Usage
from dalsegno.errors import (
    BadArguments,
    ConfigError,
    Conflict,
    DalsegnoError,
    Refused,
    Unavailable,
    Unreadable,
)
from dalsegno.ops.store import open_store
from dalsegno.ops.version import VERSION as __version__
from dalsegno.ports import Call, DidNotHappen, Finding, Happened, Output, Tool, Undo
from dalsegno.runtime.handle import Reply, Turn

__all__ = [
    "Arguments",
    "BadArguments",
    "Call",
    "ConfigError",
    "Conflict",
    "Context",
    "Continue",
    "Crash",
    "DalsegnoError",
    "Detail",
    "DidNotHappen",
    "Finding",
    "Gate",
    "Happened",
    "Output",
    "Refused",
    "Reply",
    "Thought",
    "Tool",
    "ToolCall",
    "Turn",
    "Unavailable",
    "Undo",
    "Unreadable",
    "Usage",
    "__version__",
    "current_call",
    "open_store",
    "outside",
    "tool",
]
