"""The hot and the cold tier, watched: whether they answer is noted where they are used. Promises are the inner ones."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

from dalsegno.errors import Unavailable
from dalsegno.ports import Batch, Blobs, Cache, Failures, Hint, Hot, OpenStep, Ref
from dalsegno.runtime.watch import Watch


class WatchedHot:
    """A hot tier."""

    def __init__(self, inner: Hot, watch: Watch) -> None:
        self._inner = inner
        self._watch = watch

    async def publish(self, batches: Sequence[Batch]) -> Failures:
        failed = await self._watch.seen(self._inner.publish(batches))
        for error in failed.values():
            if isinstance(error, Unavailable):
                self._watch.failed(error)
        return failed

    async def fence(self, ref: Ref, epoch: int) -> OpenStep | None:
        return await self._watch.seen(self._inner.fence(ref, epoch))

    async def read(self, ref: Ref, *, base: int = 0, after: int = 0) -> OpenStep | None:
        return await self._watch.seen(self._inner.read(ref, base=base, after=after))

    async def clear(self, ref: Ref, epoch: int) -> None:
        await self._watch.seen(self._inner.clear(ref, epoch))

    async def tell(self, hints: Sequence[Hint]) -> None:
        await self._watch.seen(self._inner.tell(hints))

    def listen(self, heard: Callable[[Hint], None]) -> AbstractAsyncContextManager[None]:
        return self._inner.listen(heard)


class WatchedCache(WatchedHot):
    """A hot tier that keeps things near."""

    def __init__(self, inner: Hot, cache: Cache, watch: Watch) -> None:
        super().__init__(inner, watch)
        self._cache = cache

    async def put(self, ref: Ref, name: str, version: int, content: bytes, *, keep: timedelta) -> None:
        await self._watch.seen(self._cache.put(ref, name, version, content, keep=keep))

    async def get(self, ref: Ref, name: str) -> tuple[int, bytes] | None:
        return await self._watch.seen(self._cache.get(ref, name))

    async def forget(self, ref: Ref) -> None:
        await self._watch.seen(self._cache.forget(ref))


class WatchedBlobs:
    """A cold tier."""

    def __init__(self, inner: Blobs, watch: Watch) -> None:
        self._inner = inner
        self._watch = watch

    async def put(self, name: str, content: bytes) -> None:
        await self._watch.seen(self._inner.put(name, content))

    async def get(self, name: str) -> bytes | None:
        return await self._watch.seen(self._inner.get(name))

    async def delete(self, prefix: str) -> None:
        await self._watch.seen(self._inner.delete(prefix))

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[str]:
        return await self._watch.seen(self._inner.list(prefix, after=after, limit=limit))


def watched_hot(hot: Hot, watch: Watch) -> Hot:
    """The same tier, watched; it keeps things near if and only if it did before."""
    return WatchedCache(hot, hot, watch) if isinstance(hot, Cache) else WatchedHot(hot, watch)
