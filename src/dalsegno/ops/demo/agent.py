"""The agent that the demonstration serves: a scripted model that streams word by word, and tools. Needs no network.

It is written as a user would write one. The model is a function of what it is shown and of nothing else.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable

from dalsegno.agents.tool import tool
from dalsegno.core.context import Context
from dalsegno.core.json import JsonObject
from dalsegno.core.part import Part, ToolCall, Usage
from dalsegno.ports import Call
from dalsegno.runtime.handle import Turn

PACE_SECONDS = 0.06
STORY = (
    "In a score, dal segno means: go back to the sign and play on. The orchestra does not start again, and no bar is "
    "lost or played twice. A session here works the same way: its log is the score, every finished step is a sign, and "
    "whichever player picks up the part goes on from exactly where the last one stopped."
)
HELP = "I can tell you what dal segno means, book a table, or look at the weather. What shall it be?"


def concierge(ledger: str) -> Callable[[Turn], Awaitable[None]]:
    """The agent, booking at the ledger that listens on this socket."""

    @tool("keyed")
    async def book_table(guests: int, call: Call) -> str:
        """Book a table, and charge for it."""
        return await ask(ledger, {"key": call.key, "what": f"table for {guests}"})

    @tool("read")
    async def weather(city: str) -> str:
        """The weather in a city."""
        return f"dry in {city}, 14 degrees"

    tools = (book_table, weather)

    async def answer(turn: Turn) -> None:
        while (reply := await turn.generate(model, tools=tools)).calls:
            await turn.perform(reply)

    return answer


async def model(context: Context) -> AsyncGenerator[Part, None]:
    """What a language model would be: shown the conversation, it yields words and tool calls."""
    last = context.items[-1]
    if last["type"] == "function_call_output":
        results = [str(item["output"]) for item in context.items[-2:] if item["type"] == "function_call_output"]
        text = f"It is done: {'; '.join(results)}. You were charged once, whatever happened to the replica that asked."
    else:
        text = _reply(_said(last))
    for word in text.split():
        yield f"{word} "
        await asyncio.sleep(PACE_SECONDS)
    if last["type"] != "function_call_output":
        for call in _calls(_said(last)):
            yield call
    yield Usage({"output_tokens": len(text.split())})


async def ask(ledger: str, request: dict[str, str]) -> str:
    """One request to the ledger, which answers the same key with the same booking."""
    reader, writer = await asyncio.open_unix_connection(ledger)
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        answer = await reader.readline()
    finally:
        writer.close()
    if not answer:
        raise ConnectionError("the ledger hung up")
    return str(json.loads(answer)["booking"])


def _reply(said: str) -> str:
    if "book" in said:
        return "Gladly. I am booking that now and looking at the weather on the way."
    if "weather" in said:
        return "Let me look."
    return STORY if any(word in said for word in ("segno", "story", "tell")) else HELP


def _calls(said: str) -> list[ToolCall]:
    look = ToolCall("weather", {"city": "Bologna"})
    if "book" in said:
        return [ToolCall("book_table", {"guests": 2}), look]
    return [look] if "weather" in said else []


def _said(item: JsonObject) -> str:
    return json.dumps(item.get("content")).lower()
