"""The agent that the acceptance tests serve. What it does in a turn is written in the turn's message, as JSON.

    {"id": "s1-m2", "do": ["keyed", "once"], "words": 12, "pace_ms": 10, "voice": "same"}

One model step and one tool call for each entry of `do`, then a last model step. Whatever it does to the world is a line
in the ledger (`tests.acceptance.ledger`), written before the model is asked or after the tool has acted. A message that
is no such JSON is said back. `voice`: `same` = another attempt says the same, `own` = each process speaks for itself.
`first_pace_ms`: the pace of a turn's first attempt, for tests that have to hit it in the middle of a step;
`slow_step`: the only one for which it holds.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

from dalsegno import Call, ToolCall, Turn, tool
from dalsegno.core.context import Context
from dalsegno.core.json import canonical
from dalsegno.core.part import Part
from tests.acceptance import ledger

ALPHABET = 'aé€😀\n\u2028"\\'
TOOL_SECONDS = 0.01
LARGE_TIMES = 10_000
PARAMSTYLE = "ACCEPTANCE_PARAMSTYLE"
"""The variable that says how the log's database wants parameters to be written (PEP 249)."""
BOOKING = {
    "qmark": "INSERT INTO bookings (label, key) VALUES (?, ?)",
    "format": "INSERT INTO bookings (label, key) VALUES (%s, %s)",
}


async def _act(kind: str, label: str, call: Call) -> str:
    """The effect, with a little time on either side of it in which a replica can die."""
    await asyncio.sleep(TOOL_SECONDS)
    ledger.write(kind, session=call.session, turn=call.turn, label=label, key=call.key)
    await asyncio.sleep(TOOL_SECONDS)
    return f"{kind} {label} done"


@tool("keyed")
async def keyed(label: str, call: Call) -> str:
    """Something that honours keys."""
    return await _act("keyed", label, call)


@tool("once")
async def once(label: str, call: Call) -> str:
    """Something that cannot be repeated."""
    return await _act("once", label, call)


@tool("read")
async def read(label: str, call: Call) -> str:
    """Something that changes nothing."""
    return await _act("read", label, call)


@tool("transactional")
async def transactional(label: str, call: Call) -> str:
    """A row in the database of the log."""
    assert call.transaction is not None
    await call.transaction.execute(BOOKING[os.environ.get(PARAMSTYLE, "qmark")], (label, call.key))
    await asyncio.sleep(TOOL_SECONDS)
    return f"transactional {label} done"


@tool("keyed")
async def halt(label: str, call: Call) -> str:
    """The first time its process is stopped here, between the effect and the record of it, with nothing in between."""
    first = not ledger.Ledger(Path(os.environ[ledger.VARIABLE])).lines("halt", label=label)
    ledger.write("halt", session=call.session, turn=call.turn, label=label, key=call.key)
    if first:
        os.kill(os.getpid(), signal.SIGSTOP)
    return f"halt {label} done by {os.getpid()}"


@tool("read")
async def large(label: str, call: Call) -> str:
    """What is too much for the log: it goes to the cold tier."""
    return f"{label} " * LARGE_TIMES


@tool("read")
async def poison(label: str, call: Call) -> str:
    """Whoever runs this dies."""
    ledger.write("poison", session=call.session, turn=call.turn, label=label, key=call.key)
    os._exit(23)


@tool("read")
async def spill(label: str, call: Call) -> str:
    """Raises an error that quotes what nobody should see."""
    raise RuntimeError(f"{label} failed")


TOOLS = (keyed, once, read, transactional, halt, large, poison, spill)


async def agent(turn: Turn) -> None:
    """Do what the message says."""
    script = _script(turn.text)
    if script is None:
        await turn.generate(partial(_echo, turn.text))
        return
    # not every store can run every class: only what the script calls is offered
    tools = [tool for tool in TOOLS if tool.tool.name in script["do"]]
    for number in range(len(script["do"]) + 1):
        reply = await turn.generate(_model(turn, script, number), tools=tools)
        if reply.calls:
            await turn.perform(reply)


async def _echo(text: str, context: Context) -> AsyncGenerator[Part, None]:
    canonical(list(context.items))
    for start in range(0, len(text), 1000):
        yield text[start : start + 1000]


def _model(turn: Turn, script: dict[str, Any], number: int) -> Any:
    async def model(context: Context) -> AsyncGenerator[Part, None]:
        shown = ledger.digest(canonical(list(context.items)))
        label = f"{script['id']}/{number}"
        ledger.write(
            "model",
            session=turn.session,
            turn=turn.id,
            label=label,
            shown=shown,
            at_event=context.through,
            attempt=turn.attempt,
        )
        pace = script.get("pace_ms", 5)
        if turn.attempt == 1 and script.get("slow_step", number) == number:
            pace = script.get("first_pace_ms", pace)
        for word in words(script, number):
            yield word
            await asyncio.sleep(pace / 1000)
        if number < len(script["do"]):
            yield ToolCall(script["do"][number], {"label": f"{script['id']}/{number}"})

    return model


def words(script: dict[str, Any], number: int) -> list[str]:
    """What the model says in a step."""
    voice = f"{os.getpid()}:" if script.get("voice") == "own" else ""
    count = script.get("words", 8)
    return [f"{voice}{script['id']}/{number}.{place}{ALPHABET[place % len(ALPHABET)]} " for place in range(count)]


def _script(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return {"do": [], **found} if isinstance(found, dict) and "id" in found else None
