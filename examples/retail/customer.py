"""A customer at a terminal, who does not notice when a replica dies.

python -m retail.customer                say what you want, line by line
python -m retail.customer --task 0       or watch the customer of a task, who says yes to everything
"""

import argparse
import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import timedelta

from dalsegno.client import Client, Event, Retry
from retail.script import QUESTION, TASKS, YES, opening

PATIENT = Retry(rounds=100, base=timedelta(milliseconds=50), longest=timedelta(seconds=1))
SHOWN_CHARS = 100


async def visit(urls: Sequence[str], task: str | None) -> None:
    """One conversation, from hello to goodbye."""
    async with Client(list(urls), retry=PATIENT) as client:
        session = await client.sessions.create()
        print(f"session {session.id}")
        heard = ""
        async with aclosing(wishes(task)) as said:
            async for wish in said:
                if task is not None:
                    if heard and not heard.endswith(QUESTION):
                        break
                    print(f"You: {wish}")
                heard = ""
                async with aclosing(session.run(wish)) as events:
                    async for event in events:
                        heard += show(event)


async def wishes(task: str | None) -> AsyncGenerator[str, None]:
    """What the customer says, one thing after another."""
    if task is not None:
        yield opening(TASKS[task])
        while True:
            yield YES
    try:
        while wish := await asyncio.to_thread(input, "You: "):
            yield wish
    except EOFError:
        print()


def show(event: Event) -> str:
    """Print what is worth seeing of an event; the text in it that the agent has said."""
    item = event.data.get("item", {})
    match event.type, item.get("type"):
        case "item.delta", _ if event.data["field"] == "text":
            print(event.data["delta"], end="", flush=True)
            return str(event.data["delta"])
        case "item.done", "message":
            print()
        case "item.done", "function_call":
            print(f"  → {item['name']} {item['arguments'][:SHOWN_CHARS]}")
        case "item.done", "function_call_output":
            print(f"  ← {item['output'][:SHOWN_CHARS]}")
        case "turn.started", _ if event.data["attempt"] > 1:
            print(f"\n  [another replica goes on: attempt {event.data['attempt']}]")
        case "turn.failed", _:
            print(f"\n  [failed: {event.data['error']}]")
    return ""


def main() -> None:
    """Read the command line."""
    options = argparse.ArgumentParser(prog="python -m retail.customer")
    options.add_argument("--task", choices=list(TASKS), help="play the customer of this task")
    options.add_argument("--url", action="append", help="a replica; may be given several times")
    chosen = options.parse_args()
    asyncio.run(visit(chosen.url or [os.environ.get("DALSEGNO_URL", "http://127.0.0.1:8000")], chosen.task))


if __name__ == "__main__":
    main()
