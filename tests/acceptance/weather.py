"""What can happen to a hot tier, each as a context: it has begun inside, and is over behind it. Each proves itself by
what the server, or the wire before it, counted.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from dalsegno.testing.proxy import BlackHole, Delay, FaultProxy, Pass
from dalsegno.testing.servers.process import free_port
from dalsegno.testing.servers.redis import Redis

FLUSH_EVERY_SECONDS = 0.05
LATE = timedelta(milliseconds=40)
"""In either direction: four hundred times as late as usual, and not late enough to be given up."""


def count(redis: Redis, section: str, name: str) -> int:
    """A number that the server gives of itself; 0 if it gives none."""
    found = re.search(rf"^{name}:(?:\w+=)?(\d+)", redis.do("INFO", section).decode(), re.MULTILINE)
    return int(found[1]) if found else 0


@asynccontextmanager
async def killed(redis: Redis) -> AsyncIterator[None]:
    """It is gone; in the end there is another one, which knows nothing."""
    before = redis.process.pid
    redis.process.kill()
    yield
    await asyncio.to_thread(redis.process.start)
    assert redis.process.pid != before


@asynccontextmanager
async def flushed(redis: Redis) -> AsyncIterator[None]:
    """It forgets everything, again and again."""

    async def flush() -> None:
        while True:
            await asyncio.to_thread(redis.flush)
            await asyncio.sleep(FLUSH_EVERY_SECONDS)

    before, flushing = count(redis, "commandstats", "cmdstat_flushall"), asyncio.create_task(flush())
    yield
    flushing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await flushing
    assert count(redis, "commandstats", "cmdstat_flushall") > before + 1


@asynccontextmanager
async def full(redis: Redis) -> AsyncIterator[None]:
    """It has no room for anything, and evicts nothing."""
    redis.fill()
    yield
    redis.empty()
    assert count(redis, "errorstats", "errorstat_OOM") > 0


@asynccontextmanager
async def read_only(redis: Redis) -> AsyncIterator[None]:
    """It is the replica of a server that has gone."""
    redis.follow(free_port())
    yield
    redis.lead()
    assert count(redis, "errorstats", "errorstat_READONLY") > 0


@asynccontextmanager
async def paused(redis: Redis) -> AsyncIterator[None]:
    """Its system takes connections and bytes for it, and it says nothing."""
    before = count(redis, "commandstats", "cmdstat_evalsha")
    redis.process.pause()
    yield
    redis.process.resume()
    assert before > 0


@asynccontextmanager
async def slow(proxy: FaultProxy) -> AsyncIterator[None]:
    """It answers late."""
    await proxy.switch(Delay(latency=LATE))
    yield
    await proxy.switch(Pass())
    assert proxy.counts.delayed > 10


@asynccontextmanager
async def black_holed(proxy: FaultProxy) -> AsyncIterator[None]:
    """The network takes everything and brings nothing."""
    await proxy.switch(BlackHole())
    yield
    await proxy.switch(Pass())
    assert proxy.counts.held > 0
