"""The hot tier as one replica of the world meets it: calls fail as the log's do, hints are lost, doubled or late."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from dalsegno.core.stream import Piece
from dalsegno.ports import Batch, Failures, Hint, OpenStep, Ref
from dalsegno.stores.memory import MemoryHot
from dalsegno.testing.world.tiers import Line

OnHot = Callable[[Ref, int, str, Sequence[Piece]], None]


class FaultyHot:
    """A replica's handle of the hot tier. `on_publish` is told what the tier accepted."""

    def __init__(self, inner: MemoryHot, line: Line, on_publish: OnHot) -> None:
        self._inner = inner
        self._line = line
        self._on_publish = on_publish

    async def publish(self, batches: Sequence[Batch]) -> Failures:
        return await self._line.call("publish", lambda: self._publish(batches))

    async def _publish(self, batches: Sequence[Batch]) -> Failures:
        failed = await self._inner.publish(batches)
        for ref, epoch, pieces in batches:
            if ref not in failed:
                self._on_publish(ref, epoch, "publish", pieces)
        return failed

    async def fence(self, ref: Ref, epoch: int) -> OpenStep | None:
        return await self._line.call("fence", lambda: self._fence(ref, epoch))

    async def _fence(self, ref: Ref, epoch: int) -> OpenStep | None:
        found = await self._inner.fence(ref, epoch)
        self._on_publish(ref, epoch, "fence", ())
        return found

    async def read(self, ref: Ref, *, base: int = 0, after: int = 0) -> OpenStep | None:
        return await self._line.call("read", lambda: self._inner.read(ref, base=base, after=after))

    async def clear(self, ref: Ref, epoch: int) -> None:
        await self._line.call("clear", lambda: self._inner.clear(ref, epoch))

    async def tell(self, hints: Sequence[Hint]) -> None:
        await self._line.call("tell", lambda: self._inner.tell(hints))

    async def put(self, ref: Ref, name: str, version: int, content: bytes, *, keep: timedelta) -> None:
        await self._line.call("put", lambda: self._inner.put(ref, name, version, content, keep=keep))

    async def get(self, ref: Ref, name: str) -> tuple[int, bytes] | None:
        return await self._line.call("get", lambda: self._inner.get(ref, name))

    async def forget(self, ref: Ref) -> None:
        await self._line.call("forget", lambda: self._inner.forget(ref))

    @asynccontextmanager
    async def listen(self, heard: Callable[[Hint], None]) -> AsyncIterator[None]:
        """Hints come in this replica's process, as the weather lets them."""

        async with self._inner.listen(lambda hint: self._hear(heard, hint)):
            yield

    def _hear(self, heard: Callable[[Hint], None], hint: Hint) -> None:
        weather, context = self._line.weather, self._line.process.context
        loop = asyncio.get_running_loop()
        for fault, probability in weather.hints.items():
            if weather.chance.random() < probability:
                weather.count(fault)
                if fault == "hint lost":
                    return
                loop.call_later(2.0 * weather.chance.random(), heard, hint, context=context)
                if fault == "hint late":
                    return
        loop.call_soon(heard, hint, context=context)
