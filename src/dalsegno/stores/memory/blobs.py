"""The port `Blobs` in a dict: what the cold tier promises, in its fewest lines."""

import asyncio
import hashlib
from collections.abc import Sequence

from dalsegno.errors import Refused, Unreadable


class MemoryBlobs:
    """Objects in `objects`; handles that are given the same dict see the same objects."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self._objects = {} if objects is None else objects

    async def put(self, name: str, content: bytes) -> None:
        """Raises `Refused` when the name does not end in the content's SHA-256: it could never be read back."""
        if not _named_after(name, content):
            raise Refused("invalid_request", "the name of an object ends in the SHA-256 of its content")
        await asyncio.sleep(0)
        self._objects.setdefault(name, bytes(content))
        await asyncio.sleep(0)

    async def get(self, name: str) -> bytes | None:
        await asyncio.sleep(0)
        content = self._objects.get(name)
        if content is not None and not _named_after(name, content):
            raise Unreadable(f"object {name} does not match the SHA-256 in its name")
        return content

    async def delete(self, prefix: str) -> None:
        await asyncio.sleep(0)
        for name in [name for name in self._objects if name.startswith(prefix)]:
            del self._objects[name]

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[str]:
        await asyncio.sleep(0)
        return sorted(name for name in self._objects if name.startswith(prefix) and name > after)[:limit]


def _named_after(name: str, content: bytes) -> bool:
    return name.endswith(hashlib.sha256(content).hexdigest())
