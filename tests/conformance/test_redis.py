"""The hot tier on Redis and Valkey keeps the promises of port `Hot`: on every version here, a cluster and sentinels."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest

from dalsegno.stores.redis import RedisHot
from dalsegno.stores.redis.line import HASTY, Manners
from dalsegno.testing.conformance import CacheCases, HotCases
from dalsegno.testing.servers import redis as servers
from tests.redis import program, versions

UNHURRIED = Manners(answer_seconds=10.0, dial_seconds=10.0)
"""What is promised of an answer, however busy the machine is."""


class RedisHotWorld:
    """A `HotWorld` and `CacheWorld` in a namespace of its own."""

    lifetime = timedelta(seconds=1)

    def __init__(self, url: str) -> None:
        self._url = f"{url}?namespace={secrets.token_hex(4)}"
        self._opened: list[RedisHot] = []
        self.manners = UNHURRIED

    async def open(self) -> RedisHot:
        hot = await RedisHot.open(self._url, lifetime=self.lifetime, manners=self.manners)
        self._opened.append(hot)
        return hot

    async def close(self) -> None:
        for hot in self._opened:
            await hot.close()

    async def pass_time(self, duration: timedelta) -> None:
        await asyncio.sleep(duration.total_seconds())


@pytest.fixture(scope="module", params=versions())
def one(request: pytest.FixtureRequest) -> Iterator[str]:
    with servers.running(program(request.param)) as server:
        yield server.url


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with servers.cluster() as formed:
        yield formed.url


@pytest.fixture(scope="module")
def sentinels() -> Iterator[str]:
    with servers.sentinels() as watched:
        yield watched.url


class RedisCases(HotCases, CacheCases):
    """All cases, in no hurry but for the one that is about it."""

    async def test_no_call_takes_long(self, world: RedisHotWorld) -> None:  # type: ignore[override]
        world.manners = HASTY
        await super().test_no_call_takes_long(world)


class TestOneServer(RedisCases):
    @pytest.fixture
    async def world(self, one: str) -> AsyncIterator[RedisHotWorld]:
        world = RedisHotWorld(one)
        yield world
        await world.close()


class TestCluster(RedisCases):
    @pytest.fixture
    async def world(self, cluster: str) -> AsyncIterator[RedisHotWorld]:
        world = RedisHotWorld(cluster)
        yield world
        await world.close()


class TestSentinels(RedisCases):
    @pytest.fixture
    async def world(self, sentinels: str) -> AsyncIterator[RedisHotWorld]:
        world = RedisHotWorld(sentinels)
        yield world
        await world.close()
