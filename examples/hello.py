"""The smallest agent that has everything: a model that streams, and a turn that any replica can go on with.

dalsegno serve examples/hello.py:hello --replicas 3
"""

import asyncio
from collections.abc import AsyncGenerator

from dalsegno import Context, Turn


async def hello(turn: Turn) -> None:
    async def model(context: Context) -> AsyncGenerator[str, None]:
        """Is shown the conversation and yields text. Put your provider's client here."""
        for word in f"You said: {turn.text}".split(" "):
            yield f"{word} "
            await asyncio.sleep(0.05)

    await turn.generate(model)
