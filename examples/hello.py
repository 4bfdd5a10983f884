"""The smallest agent that has everything: a model that streams, and a turn that any replica can go on with.

dalsegno serve examples/hello.py:hello --replicas 3
"""

import asyncio

from dalsegno import Turn


async def echo(context):
    """A model: it is shown the conversation and yields text. Put your provider's client here."""
    said = context.items[-1]["content"][0]["text"]
    for word in f"You said: {said}".split():
        await asyncio.sleep(0.05)
        yield f"{word} "


async def hello(turn: Turn) -> None:
    await turn.generate(echo)
