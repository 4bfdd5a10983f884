"""Dalsegno runs any Python agent on any number of identical replicas. The public names, nothing else.

async def answer(turn: Turn) -> None:
    await turn.say(f"You said: {turn.text}")

$ dalsegno serve agent.py:answer --replicas 3
"""

from dalsegno.agents.tool import Crash, Gate, outside, tool
from dalsegno.core.context import Context
from dalsegno.core.part import Part, Thought, ToolCall, Usage
from dalsegno.errors import (
    BadArguments,
    ConfigError,
    DalsegnoError,
    Refused,
    Unavailable,
    Unreadable,
)
from dalsegno.ops.version import VERSION as __version__
from dalsegno.ports import Agent, Call, DidNotHappen, Finding, Happened, Tool, Transaction
from dalsegno.runtime.handle import Reply, Turn

__all__ = [
    "Agent",
    "BadArguments",
    "Call",
    "ConfigError",
    "Context",
    "Crash",
    "DalsegnoError",
    "DidNotHappen",
    "Finding",
    "Gate",
    "Happened",
    "Part",
    "Refused",
    "Reply",
    "Thought",
    "Tool",
    "ToolCall",
    "Transaction",
    "Turn",
    "Unavailable",
    "Unreadable",
    "Usage",
    "__version__",
    "outside",
    "tool",
]
