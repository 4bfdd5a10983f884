"""Agents that the benchmarks serve in real replicas."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator

from dalsegno.agents.tool import tool
from dalsegno.core.context import Context
from dalsegno.core.part import Part
from dalsegno.runtime.handle import Turn


async def ticking(context: Context) -> AsyncGenerator[Part, None]:
    """Ten pieces a second, each with the time it was said."""
    for _ in range(int(os.environ.get("BENCH_PIECES", "100"))):
        yield f"{time.time():.4f} "
        await asyncio.sleep(0.1)


async def ticker(turn: Turn) -> None:
    """Streams for ten seconds, or as many pieces as the environment says."""
    await turn.generate(ticking)


@tool("read")
async def wait() -> str:
    """Takes longer than the replica lives, the first time."""
    await asyncio.sleep(0.2)
    return "waited"


async def stepper(turn: Turn) -> None:
    """Short steps, one after another, each on record with the process that did it."""
    for _ in range(1000):
        await turn.step("tick", _tick)


async def _tick() -> list[float]:
    await asyncio.sleep(0.02)
    return [os.getpid(), time.time()]
