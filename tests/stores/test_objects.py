"""Object storage when it is not as it should be. The server is moto, an emulator."""

from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest

from dalsegno.errors import ConfigError, Refused, Unavailable
from dalsegno.stores import open_cold
from dalsegno.stores.objects import ObjectBlobs
from dalsegno.testing.conformance.blobs import name
from dalsegno.testing.servers.objects import BUCKET, Objects, objects


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Objects]:
    with objects(tmp_path) as server:
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        yield server


async def test_names_from_outside_lead_nowhere(server: Objects):
    """A tenant may be called anything: no two share an object, and none reaches beyond the prefix."""
    blobs = await open_cold(f"s3://{BUCKET}/some/prefix")
    tenants = ["..", ".", "a b", "a%20b", "a+b", "é", "A", "a", "%2e%2e", "a?b#c"]
    for tenant in tenants:
        content = tenant.encode()
        await blobs.put(name(content, folder=f"{tenant}/s/"), content)
    for tenant in tenants:
        content = tenant.encode()
        assert await blobs.get(name(content, folder=f"{tenant}/s/")) == content
        for other in tenants:
            if other != tenant:
                assert await blobs.get(name(content, folder=f"{other}/s/")) is None
    assert isinstance(blobs, ObjectBlobs)
    beyond = await open_cold(f"s3://{BUCKET}/some")
    assert await beyond.get(name(b"..", folder="s/")) is None


async def test_who_does_not_answer_is_unavailable_and_may_come_back(server: Objects):
    """Nothing is taken for absent because nobody answers; the same handle goes on when the server is there again."""
    blobs = await open_cold(f"s3://{BUCKET}")
    await blobs.put(name(b"kept"), b"kept")
    server.process.kill()
    for asked in (blobs.get(name(b"kept")), blobs.put(name(b"new"), b"new"), blobs.delete("acme/")):
        with pytest.raises(Unavailable) as caught:
            await asked
        assert caught.value.outcome == "not_applied"
        assert "secret" not in str(caught.value).lower()
    server.process.start()
    await blobs.put(name(b"new"), b"new")
    assert await blobs.get(name(b"new")) == b"new"


async def test_a_bucket_that_is_not_there_is_no_empty_one(server: Objects):
    """P9: a wrong name in the configuration must not look like objects that do not exist yet."""
    blobs = await open_cold("s3://another-bucket")
    with pytest.raises(Unavailable, match="bucket"):
        await blobs.put(name(b"x"), b"x")
    with pytest.raises(Unavailable, match="bucket"):
        await blobs.get(name(b"x"))


async def test_a_store_that_ignores_conditions_is_found_out(server: Objects, monkeypatch: pytest.MonkeyPatch):
    """Three of five servers that call themselves S3 answer 200 to both of two creations."""
    blobs = await ObjectBlobs.open(f"s3://{BUCKET}/probed")
    assert await blobs.conditional()
    honest = obstore.put_async

    async def ignoring(store, path, content, *, mode):
        return await honest(store, path, content, mode="overwrite")

    monkeypatch.setattr(obstore, "put_async", ignoring)
    assert not await blobs.conditional()
    assert await obstore.list(blobs._store).collect_async() == []


async def test_bad_addresses_and_names_are_refused():
    """With an error that says what to do, before anything is sent."""
    with pytest.raises(ConfigError, match="names no bucket"):
        await open_cold("s3:///prefix")
    blobs = await ObjectBlobs.open("s3://anywhere")
    with pytest.raises(Refused):
        await blobs.put("acme/s1/readme.txt", b"x")
    with pytest.raises(Refused):
        await blobs.put(name(b"right"), b"wrong")
