"""Object storage keeps the promises of port `Blobs`; the server is moto, an emulator."""

import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import obstore
import pytest
from obstore.store import S3Store

from dalsegno.stores.objects import ObjectBlobs
from dalsegno.testing.conformance import BlobsCases
from dalsegno.testing.servers.objects import BUCKET, objects


class ObjectsWorld:
    """A `BlobsWorld` in a prefix of its own; behind the store's back is a client of our own."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(8)
        self._behind = S3Store(BUCKET, prefix=self._prefix, client_options={"allow_http": True})

    async def open(self) -> ObjectBlobs:
        return await ObjectBlobs.open(f"s3://{BUCKET}/{self._prefix}")

    async def names(self) -> Sequence[str]:
        found = await obstore.list(self._behind).collect_async()
        return sorted(unquote(entry["path"]) for entry in found)

    async def damage(self, name: str) -> None:
        content = bytes(await (await obstore.get_async(self._behind, name)).bytes_async())
        await obstore.put_async(self._behind, name, content[:-1] + bytes([content[-1] ^ 1]))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with objects(Path(tmp_path_factory.mktemp("objects"))) as server, pytest.MonkeyPatch.context() as environment:
        for name, value in server.environment.items():
            environment.setenv(name, value)
        yield


class TestBlobs(BlobsCases):
    @pytest.fixture
    async def world(self, server: None) -> AsyncIterator[ObjectsWorld]:
        yield ObjectsWorld()
