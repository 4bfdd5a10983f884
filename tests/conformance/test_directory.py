"""The directory store keeps the promises of port `Blobs`."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import pytest

from dalsegno.stores.directory import DirectoryBlobs
from dalsegno.testing.conformance import BlobsCases


class DirectoryWorld:
    """A `BlobsWorld` on a temporary folder; what it does besides `open` goes by the files themselves."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._opened: list[DirectoryBlobs] = []

    async def open(self) -> DirectoryBlobs:
        blobs = await DirectoryBlobs.open(self._root)
        self._opened.append(blobs)
        return blobs

    async def close(self) -> None:
        for blobs in self._opened:
            await blobs.close()

    async def names(self) -> Sequence[str]:
        files = [path for path in self._root.rglob("*") if path.is_file()]
        return sorted(unquote(path.relative_to(self._root).as_posix()) for path in files)

    async def damage(self, name: str) -> None:
        (path,) = self._root.rglob(name.rpartition("/")[2])
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


class TestBlobs(BlobsCases):
    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[DirectoryWorld]:
        world = DirectoryWorld(tmp_path / "cold")
        yield world
        await world.close()
