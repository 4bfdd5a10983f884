"""Hints: what this process told others comes back to it, and is no news."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from dalsegno.ports import Hint
from dalsegno.runtime import hub as hubs
from dalsegno.runtime.hub import Hub
from dalsegno.stores.memory import MemoryDatabase, MemoryHot, MemoryLog
from dalsegno.testing.conformance.acts import accept, session
from dalsegno.testing.world.loop import WorldLoop
from tests.support import wait_until


async def test_what_it_told_itself_is_heard_once():
    """A turn looks at the log, and the replica for work, when something was committed here; not again when the hint of
    that returns. What another replica tells of is heard, even if it is the same.
    """
    log, ref, hot, heard = MemoryLog(MemoryDatabase()), session(), MemoryHot(), list[Any]()
    hub = Hub(log, hot)
    hub.watch(ref, heard.append)
    hub.on_ready = lambda: heard.append("ready")
    running = asyncio.create_task(hub.run())
    returned = list[Hint]()
    async with hot.listen(returned.append):
        for words in ("one", "two"):
            await accept(log, ref, words)
            made = await log.load(ref)
            assert made is not None
            returned.clear()
            hub.announce(ref, made, [])
            await wait_until(lambda: returned, description="the hint returns")
        assert heard == [2, "ready", 3, "ready"]
        await MemoryHot(hot.cache).tell([Hint(ref.tenant, ref.id, 3, ready=True)])
        await wait_until(lambda: len(heard) > 4, description="another's hint is heard")
    assert heard == [2, "ready", 3, "ready", 3, "ready"]
    running.cancel()


def test_hints_leave_at_their_pace_however_long_the_tier_takes(monkeypatch: Any):
    """The time between two rounds is counted from the first one's beginning: a round trip does not come on top."""
    monkeypatch.setattr(hubs, "POST_SECONDS", 10.0)
    loop, told = WorldLoop(random.Random(1)), list[float]()

    class Slow(MemoryHot):
        async def tell(self, hints: Sequence[Hint]) -> None:
            told.append(round(loop.time()))
            await asyncio.sleep(6.0 if len(told) == 1 else 14.0)

    async def say_each_second() -> None:
        log, ref = MemoryLog(MemoryDatabase()), session()
        await accept(log, ref, "hello")
        made = await log.load(ref)
        assert made is not None
        hub = Hub(log, Slow())
        running = asyncio.create_task(hub.run())
        for _ in range(40):
            hub.announce(ref, made, [])
            await asyncio.sleep(1.0)
        running.cancel()

    loop.run_until_complete(say_each_second())
    loop.end()
    assert told == [0, 10, 24, 38]
