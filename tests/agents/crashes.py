"""A crash at every step of a turn, in one process: two replicas on one memory store, the first of them killed at its
n-th step outside itself, as by kill -9. Steps are commits, before and after, and publishing, after. Knows no framework.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from dalsegno.core.context import context
from dalsegno.core.cursor import Cursor
from dalsegno.core.ids import turn_id
from dalsegno.ports import Ref
from dalsegno.testing.model import ModelServer, To
from tests.runtime.fleet import Fleet, One
from tests.support import wait_until

AT_ONCE = 3
"""Plays: most of what one takes it waits for words."""


class Crasher:
    """Counts what a replica asks of its tiers, of publishing one in `stride`; at the `place`-th the replica dies."""

    def __init__(self, world: Fleet, *, place: int, stride: int = 1, noted: Callable[[], int] = lambda: 0) -> None:
        self.world = world
        self.place = place
        self.stride = stride
        self.published = 0
        self.before = 0
        """What `noted` said when the replica died."""
        self._noted = noted
        self.count = 0
        self.point: str | None = None
        self._death: asyncio.Task[None] | None = None

    def watch(self, one: One) -> None:
        """Count this replica's steps from now on."""
        commit: Callable[..., Any] = one.warm.commit
        publish: Callable[..., Any] = one.hot.publish

        async def counted_commit(*positional: Any, **named: Any) -> Any:
            await self._step("log.commit:before")
            result = await commit(*positional, **named)
            await self._step("log.commit:after")
            return result

        async def counted_publish(*positional: Any, **named: Any) -> Any:
            result = await publish(*positional, **named)
            self.published += 1
            if self.published % self.stride == 0 or self.point is not None:
                await self._step("hot.publish:after")
            return result

        vars(one.warm)["commit"] = counted_commit
        vars(one.hot)["publish"] = counted_publish

    async def _step(self, point: str) -> None:
        self.count += 1
        if self.count == self.place:
            self.point, self.before = point, self._noted()
            self._death = asyncio.ensure_future(self.world.kill(0))
        if self.point is not None:
            await asyncio.Event().wait()  # nothing more happens here

    async def over(self) -> None:
        """The dead replica is really gone."""
        if self._death is not None:
            await self._death


async def last_event(world: Fleet, ref: Ref) -> str:
    """The type of the session's last event."""
    return (await world.types(ref))[-1]


async def turn_is_over(world: Fleet, ref: Ref) -> str:
    """Wait for the turn's end; how it ended."""
    ends = ("turn.completed", "turn.failed", "turn.waiting")

    async def ended() -> str:
        last = await last_event(world, ref)
        return last if last in ends else ""

    found: str = await wait_until(ended, description="the turn to end on another replica")
    return found


async def shown(world: Fleet, ref: Ref) -> list[Any]:
    """What a model would be shown now."""
    return list(context(await world.log(ref), session=ref.id).items)


async def cut_off(
    server: ModelServer, agent: Callable[[], Any], at: int, *, until: Callable[[list[Any]], Any] = lambda frames: True
) -> tuple[Fleet, Ref, list[Any]]:
    """The replica dies when the model has said `at` deltas, and a reader on the other one has of it what `until` says;
    the reader follows from beginning to end.
    """
    world = Fleet(None)
    for _ in range(2):
        world.agent = agent()
        await world.start()
    ref = await world.session()
    hold = server.hold(at=at, to=To("go"))
    receipt = await world.say(ref, "go")
    stream = await world.any.follow(ref, after=Cursor(receipt.seq - 1), turn=turn_id(ref.id, receipt.turn))
    frames = list[Any]()

    async def read() -> None:
        async for frame in stream:
            frames.append(frame)

    reader = asyncio.ensure_future(read())
    await hold.reached()
    sent = server.log.entries[-1]
    await wait_until(lambda: sent.sent >= min(at, sent.deltas), description="the deltas to be sent")
    for _ in range(5):
        await asyncio.sleep(0)
    await wait_until(lambda: until(frames), description="readers to have it")
    await world.kill(0)
    hold.release()
    await turn_is_over(world, ref)
    await asyncio.wait_for(reader, 10)
    return world, ref, frames


async def at_every_step(
    crash_at: Callable[[int], Awaitable[tuple[str | None, list[str]]]],
) -> Counter[str | None]:
    """Let the replica die at its first step, at its second, and so on, until a turn ends before it has so many. How
    often it died where; nothing must come of it that must not be.
    """
    broken, points = list[str](), Counter[str | None]()
    for first in count(1, AT_ONCE):
        for point, found in await asyncio.gather(*map(crash_at, range(first, first + AT_ONCE))):
            points[point] += 1
            broken += found
        if None in points or len(broken) > 10:
            break
    assert not broken, "\n".join(broken[:20])
    return points
