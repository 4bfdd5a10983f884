"""The port `Cache`: what is kept near. Sentence 5 (no call takes long) needs a wire to cut; here it is many at once."""

import asyncio
import random
import time
from contextlib import suppress
from datetime import timedelta

import pytest

from dalsegno.errors import Unavailable
from dalsegno.ports import Cache, Ref
from dalsegno.testing.conformance.acts import session
from dalsegno.testing.conformance.worlds import CacheWorld

KEEP = timedelta(minutes=1)
SMALL = b"\x00a\xff\xf0\x9d\x84\x8b"
LARGE = bytes(range(256)) * 1024
HUGE = random.Random(1).randbytes(4 * 1024 * 1024)
"""Bytes that do not get smaller."""
PROMISED_SECONDS = 0.25
SLACK_SECONDS = 0.25
"""What a busy machine may add."""
RACERS = 20


class CacheCases:
    """A subclass supplies the fixture `world`: a `CacheWorld`."""

    @pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
    async def test_what_is_put_is_found_by_others(self, world: CacheWorld, content: bytes) -> None:
        """Cache 1: what was put under that name, whole, or nothing; nothing was put, nothing is found."""
        one, other = await world.open(), await world.open()
        assert await other.get(session(), "context") is None
        await one.put(session(), "context", 7, content, keep=KEEP)
        for cache in (one, other):
            assert await cache.get(session(), "context") == (7, content)

    async def test_names_and_sessions_are_their_own(self, world: CacheWorld) -> None:
        """Cache 1: under that name, of that tenant's session (P11), whatever the names look like."""
        cache = await world.open()
        refs = [session(), session(2), session(tenant="other"), Ref("a/b", "c"), Ref("a}{b", "c"), Ref("a", "b:c")]
        kept = {(ref, name): f"{ref}{name}".encode() for ref in refs for name in ("context", "c", "a\0b", "gone")}
        for version, ((ref, name), content) in enumerate(kept.items()):
            await cache.put(ref, name, version, content, keep=KEEP)
        for version, ((ref, name), content) in enumerate(kept.items()):
            assert await cache.get(ref, name) == (version, content)

    async def test_a_lower_version_never_wins(self, world: CacheWorld) -> None:
        """Cache 2: however late it arrives. The same version again, and a higher one, replace what is there."""
        one, other = await world.open(), await world.open()
        await one.put(session(), "context", 9, b"nine", keep=KEEP)
        for late in (0, 8):
            await other.put(session(), "context", late, b"late", keep=KEEP)
            assert await one.get(session(), "context") == (9, b"nine")
        await other.put(session(), "context", 9, b"nine again", keep=KEEP)
        assert await one.get(session(), "context") == (9, b"nine again")
        await other.put(session(), "context", 10, b"ten", keep=KEEP)
        assert await one.get(session(), "context") == (10, b"ten")
        await other.put(session(), "other", 3, b"three", keep=KEEP)
        assert await one.get(session(), "other") == (3, b"three")

    async def test_the_highest_version_wins_a_race(self, world: CacheWorld) -> None:
        """Cache 2: whoever puts at the same time. And what is found meanwhile never goes back."""
        caches = [await world.open() for _ in range(3)]
        found: list[int] = []

        async def look(cache: Cache) -> None:
            for _ in range(RACERS):
                seen = await cache.get(session(), "context")
                if seen is not None:
                    assert seen[1] == LARGE[: seen[0] * 1000]
                    found.append(seen[0])

        versions = [1 + (n * 7) % RACERS for n in range(RACERS)]
        putting = (caches[v % 2].put(session(), "context", v, LARGE[: v * 1000], keep=KEEP) for v in versions)
        await asyncio.gather(look(caches[2]), *putting)
        assert found == sorted(found)
        assert await caches[2].get(session(), "context") == (RACERS, LARGE[: RACERS * 1000])

    async def test_everything_expires(self, world: CacheWorld) -> None:
        """Cache 3: each entry after its own time, whatever is done with its neighbours; then any version is welcome."""
        cache = await world.open()
        await cache.put(session(), "short", 5, b"short", keep=world.lifetime)
        await cache.put(session(), "long", 5, b"long", keep=world.lifetime * 50)
        await world.pass_time(world.lifetime * 0.5)
        await cache.get(session(), "short")
        await cache.put(session(), "short", 4, b"late", keep=world.lifetime * 50)
        await world.pass_time(world.lifetime * 0.7)
        assert await cache.get(session(), "short") is None
        assert await cache.get(session(), "long") == (5, b"long")
        await cache.put(session(), "short", 1, b"new", keep=world.lifetime)
        assert await cache.get(session(), "short") == (1, b"new")

    async def test_what_is_too_large_harms_nobody(self, world: CacheWorld) -> None:
        """Cache 3: it is kept whole or not at all; what was there may stay."""
        cache = await world.open()
        await cache.put(session(), "context", 1, b"one", keep=KEEP)
        await cache.put(session(), "context", 2, HUGE, keep=KEEP)
        assert await cache.get(session(), "context") in (None, (1, b"one"), (2, HUGE))
        await cache.put(session(), "context", 3, b"three", keep=KEEP)
        assert await cache.get(session(), "context") == (3, b"three")

    async def test_what_is_forgotten_does_not_come_back(self, world: CacheWorld) -> None:
        """Cache 4: nothing is found, not even what arrives after it. Others keep what they have."""
        one, other = await world.open(), await world.open()
        await one.forget(session(2))
        for name in ("context", "other"):
            await one.put(session(), name, 5, LARGE, keep=KEEP)
            await one.put(session(3), name, 5, SMALL, keep=KEEP)
        for _ in range(2):
            await other.forget(session())
            for ref in (session(), session(2)):
                await one.put(ref, "context", 6, b"late", keep=KEEP)
                for name in ("context", "other"):
                    assert await one.get(ref, name) is None
        assert await one.get(session(3), "other") == (5, SMALL)

    async def test_no_call_takes_long(self, world: CacheWorld) -> None:
        """Cache 5: also when there are many and they are large; what could not be done says so, or is nothing."""
        cache = await world.open()
        took: list[float] = []

        async def one(number: int) -> None:
            ref = session(number)
            for asked in (cache.put(ref, "context", 1, LARGE, keep=KEEP), cache.get(ref, "context")):
                began = time.monotonic()
                with suppress(Unavailable):
                    assert await asked in (None, (1, LARGE))
                took.append(time.monotonic() - began)

        await asyncio.gather(*map(one, range(1, RACERS + 1)))
        assert max(took) < PROMISED_SECONDS + SLACK_SECONDS
