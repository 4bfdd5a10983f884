"""The retail agent as a plain function: the example's tools and script, and a witness.

Only the witness is a test's: every run of the agent and every context that its model is shown is a line in a file of
the process's own, written before anything is said.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from dalsegno import ToolCall, Turn, Usage
from dalsegno.core.context import Context
from dalsegno.core.json import canonical
from retail.script import TASKS, next_line
from retail.tools import TOOLS
from tests.acceptance.retail.transcript import check, messages_of

WITNESS = "RETAIL_WITNESS"
"""Variable of the replicas' environment: the folder for witnesses."""
PACE_SECONDS = 0.01
WITNESS_FD = os.open(Path(os.environ[WITNESS]) / f"{os.getpid()}.ndjson", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)


async def answer(turn: Turn) -> None:
    """Serve a customer."""
    witness(turn, "run")
    for number in count(1):
        reply = await turn.generate(partial(model, turn, number), tools=TOOLS)
        if not reply.calls:
            return
        await turn.perform(reply)


async def model(turn: Turn, number: int, context: Context) -> AsyncGenerator[str | ToolCall | Usage, None]:
    """Say and ask for what comes next, word by word; `turn` and `number` are for the witness alone."""
    items: list[Any] = list(context.items)
    witness(turn, "ask", step=f"model#{number}", through=context.through, items=canonical(items).decode())
    check(items)
    line = next_line(messages_of(items), TASKS)
    for word in re.findall(r"\S+\s*", line.text):
        yield word
        await asyncio.sleep(PACE_SECONDS)
    if line.action is not None:
        yield ToolCall(line.action.name, line.action.arguments)
    yield Usage({"output_tokens": len(line.text.split())})


def witness(turn: Turn, kind: str, **what: Any) -> None:
    """Write one line in one write: what a process that is killed has written stays written."""
    who = {"kind": kind, "session": turn.session, "turn": turn.id, "attempt": turn.attempt, "pid": os.getpid()}
    os.write(WITNESS_FD, msgspec.json.encode({**who, "at": time.time_ns() // 10**6, **what}) + b"\n")
