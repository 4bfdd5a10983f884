"""The port `Blobs`: immutable objects, verified when they are read."""

import asyncio
import hashlib
from contextlib import suppress

import pytest

from dalsegno.errors import DalsegnoError, Unreadable
from dalsegno.testing.conformance.worlds import BlobsWorld

MEGABYTE = bytes(range(256)) * 4096


def name(content: bytes, *, folder: str = "acme/s1/") -> str:
    """Where an object belongs."""
    return folder + hashlib.sha256(content).hexdigest()


class BlobsCases:
    """A subclass supplies the fixture `world`: a `BlobsWorld`."""

    @pytest.mark.parametrize("content", [b"", b"\0", b"hello", MEGABYTE], ids=["empty", "NUL", "short", "1 MiB"])
    async def test_an_object_comes_back(self, world: BlobsWorld, content: bytes) -> None:
        """Blobs 1 and 2: what was put is what others get; what was not put is not there."""
        one, other = await world.open(), await world.open()
        assert await other.get(name(content)) is None
        await one.put(name(content), content)
        assert await other.get(name(content)) == content
        assert list(await world.names()) == [name(content)]

    async def test_an_object_is_created_once(self, world: BlobsWorld) -> None:
        """Blobs 1: `put` creates or finds the same bytes; however many put them at once."""
        handles = [await world.open(), await world.open()]
        await asyncio.gather(*(blobs.put(name(MEGABYTE), MEGABYTE) for blobs in handles * 5))
        await handles[0].put(name(MEGABYTE), MEGABYTE)
        assert list(await world.names()) == [name(MEGABYTE)]
        assert await handles[1].get(name(MEGABYTE)) == MEGABYTE

    async def test_an_object_is_never_seen_half_written(self, world: BlobsWorld) -> None:
        """Blobs 1: an object is never changed or seen half written."""
        one, other = await world.open(), await world.open()
        putting = asyncio.create_task(one.put(name(MEGABYTE), MEGABYTE))
        seen = [await other.get(name(MEGABYTE))]
        while not putting.done():
            seen.append(await other.get(name(MEGABYTE)))
        await putting
        assert set(seen) <= {None, MEGABYTE}

    @pytest.mark.parametrize("content", [b"x", MEGABYTE], ids=["short", "1 MiB"])
    async def test_damage_is_an_error(self, world: BlobsWorld, content: bytes) -> None:
        """Blobs 2: bytes whose SHA-256 is the one in the name, or `Unreadable`."""
        blobs = await world.open()
        await blobs.put(name(content), content)
        await world.damage(name(content))
        for handle in (blobs, await world.open()):
            with pytest.raises(Unreadable):
                await handle.get(name(content))

    async def test_a_wrong_name_is_never_believed(self, world: BlobsWorld) -> None:
        """Blobs 2: never bytes whose SHA-256 is not the one in the name, and a true name is not taken by them."""
        blobs = await world.open()
        with suppress(DalsegnoError, ValueError):
            await blobs.put(name(b"right"), b"wrong")
        with suppress(Unreadable):
            assert await blobs.get(name(b"right")) is None

    async def test_a_prefix_is_deleted_and_nothing_else(self, world: BlobsWorld) -> None:
        """Blobs 3: after `delete` nothing under the prefix is readable; every object whose name begins with it."""
        blobs = await world.open()
        contents = [b"1", b"2"]
        for folder in ("acme/s1/", "acme/s10/", "acme/s_/", "acmes1/", "other/s1/"):
            for content in contents:
                await blobs.put(name(content, folder=folder), content)
        await blobs.delete("acme/s1/")
        await blobs.delete("acme/s_/")
        await blobs.delete("nobody/")
        left = {
            name(content, folder=folder) for folder in ("acme/s10/", "acmes1/", "other/s1/") for content in contents
        }
        assert set(await world.names()) == left
        assert await blobs.get(name(b"1", folder="acme/s1/")) is None
        assert await (await world.open()).get(name(b"1", folder="acme/s10/")) == b"1"
        await blobs.put(name(b"1", folder="acme/s1/"), b"1")
        assert await blobs.get(name(b"1", folder="acme/s1/")) == b"1"

    async def test_what_is_below_a_prefix_is_listed(self, world: BlobsWorld) -> None:
        """`list`: names that begin with `prefix`; page by page each once, those behind `after`."""
        blobs = await world.open()
        assert list(await blobs.list("acme/s1/")) == []
        contents = [bytes([number]) for number in range(7)]
        mine = [name(content, folder=f"acme/s1/{place}") for content in contents for place in ("", "log/3-", "12-")]
        theirs = [name(contents[0], folder=folder) for folder in ("acme/s10/", "acme/s/", "other/s1/")]
        for number, one in enumerate(mine):
            await blobs.put(one, contents[number // 3])
        for one in theirs:
            await blobs.put(one, contents[0])
        whole = list(await blobs.list("acme/s1/"))
        assert sorted(whole) == sorted(mine)
        for handle in (blobs, await world.open()):
            for limit in (1, 4, len(mine), 100):
                found: list[str] = []
                while page := await handle.list("acme/s1/", after=found[-1] if found else "", limit=limit):
                    found += page
                    assert len(page) <= limit and len(found) <= len(mine)
                assert found == whole
            assert sorted(await handle.list("acme/s1/log/")) == sorted(one for one in mine if "/log/" in one)
        await blobs.delete(whole[0])
        assert list(await blobs.list("acme/s1/")) == whole[1:]
