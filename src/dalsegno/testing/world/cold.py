"""The cold tier as one replica of the world meets it."""

from collections.abc import Sequence

from dalsegno.stores.memory import MemoryBlobs
from dalsegno.testing.world.tiers import Line


class FaultyBlobs:
    """A replica's handle of the cold tier."""

    def __init__(self, inner: MemoryBlobs, line: Line) -> None:
        self._inner = inner
        self._line = line

    async def put(self, name: str, content: bytes) -> None:
        await self._line.call("put", lambda: self._inner.put(name, content))

    async def get(self, name: str) -> bytes | None:
        return await self._line.call("get", lambda: self._inner.get(name))

    async def delete(self, prefix: str) -> None:
        await self._line.call("delete", lambda: self._inner.delete(prefix))

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[str]:
        return await self._line.call("list", lambda: self._inner.list(prefix, after=after, limit=limit))
