"""The log on Redis and Valkey keeps the promises of the ports `Log`, `Fleet` and `Warm`: on every version here, and in
a cluster of three.

Behind the store's back is a connection of our own; a death is a connection that the server sees end.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import redis
from hypothesis import settings
from hypothesis.stateful import invariant
from redis.cluster import RedisCluster

from dalsegno.ports import Ref, Warm
from dalsegno.stores.redis import RedisLog, fleet
from dalsegno.stores.redis.beat import Beat
from dalsegno.stores.redis.keys import Layout, name_of
from dalsegno.stores.redis.place import parse
from dalsegno.testing.conformance import (
    ClaimCases,
    ErasureCases,
    FleetCases,
    LogCases,
    ShelfCases,
    StorageCases,
    WalkCases,
    log_machine,
)
from dalsegno.testing.servers import redis as servers
from tests.redis import program, versions
from tests.support import wait_until

NOTICED = "the servers have noticed the death"
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class RedisLogWorld:
    """A `FleetWorld` in a namespace of its own."""

    ttl = timedelta(seconds=0.7)
    own_thread = True

    def __init__(self, url: str) -> None:
        self._url = f"{url}?namespace={secrets.token_hex(4)}"
        self._layout = Layout(parse(self._url))
        self._opened: list[RedisLog] = []
        place = parse(url)
        host, port = place.addresses[0]
        self._raw: Any = RedisCluster(host, port) if place.kind == "cluster" else redis.Redis(host, port)

    async def open(self) -> RedisLog:
        log = await RedisLog.open(self._url)
        self._opened.append(log)
        return log

    async def close(self) -> None:
        for log in self._opened:
            await log.close()
        self._raw.close()

    async def seqs(self, ref: Ref) -> Sequence[int]:
        return sorted(map(int, self._raw.hkeys(self._events(ref))))

    async def keys(self, ref: Ref) -> int:
        name = name_of(ref)
        return int(self._raw.hlen(self._layout.part(name).known(name)))

    async def damage(self, ref: Ref, *, seq: int) -> None:
        stored = self._raw.hget(self._events(ref), seq)
        self._raw.hset(self._events(ref), seq, stored[:-1] + bytes([stored[-1] ^ 1]))

    async def lose(self, ref: Ref, *, seq: int) -> None:
        assert self._raw.hdel(self._events(ref), seq) == 1

    async def outdate(self, ref: Ref) -> None:
        name = name_of(ref)
        row = {"state": b"from long ago", "stamp": secrets.token_bytes(12)}
        assert self._raw.hset(self._layout.part(name).row(name), mapping=row) == 0

    async def kill(self, log: Warm) -> None:
        assert isinstance(log, RedisLog)
        beat, log._fleet._beat = log._fleet._beat, None
        if beat is not None:
            clients = {address: pulse._client for address, pulse in beat._pulses.items()}
            beat.close()
            await wait_until(lambda: not any(map(_has, *zip(*clients.items(), strict=True))), description=NOTICED)
        await log.close()

    async def pass_time(self, duration: timedelta) -> None:
        await asyncio.sleep(duration.total_seconds())

    async def pause(self, log: Warm) -> None:
        assert isinstance(log, RedisLog) and log._fleet._beat is not None
        log._fleet._beat.stop()

    async def resume(self, log: Warm) -> None:
        assert isinstance(log, RedisLog) and log._fleet._beat is not None
        paused = log._fleet._beat
        log._fleet._beat = Beat(paused._place, paused._layout, paused._member, self.ttl)
        log._fleet._beat.begin()
        paused.close()

    def _events(self, ref: Ref) -> bytes:
        name = name_of(ref)
        return self._layout.part(name).events(name)


def _has(address: tuple[str, int], client: int) -> bool:
    with redis.Redis(*address) as server:
        return any(int(one["id"]) == client for one in server.client_list())


@pytest.fixture(scope="module", params=versions())
def one(request: pytest.FixtureRequest) -> Iterator[str]:
    with servers.running(program(request.param), *DURABLE) as server:
        yield server.url


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with servers.cluster(None, *DURABLE) as formed:
        yield formed.url


class OneServer:
    """Cases whose world is on one server."""

    @pytest.fixture
    async def world(self, one: str) -> AsyncIterator[RedisLogWorld]:
        world = RedisLogWorld(one)
        yield world
        await world.close()


class InCluster:
    """Cases whose world is in a cluster."""

    @pytest.fixture
    async def world(self, cluster: str) -> AsyncIterator[RedisLogWorld]:
        world = RedisLogWorld(cluster)
        yield world
        await world.close()


class TestLog(OneServer, LogCases):
    pass


class TestStorage(OneServer, StorageCases):
    pass


class TestErasure(OneServer, ErasureCases):
    pass


class TestWalks(OneServer, WalkCases):
    pass


class TestShelf(OneServer, ShelfCases):
    pass


class TestClaims(OneServer, ClaimCases):
    pass


class TestFleet(OneServer, FleetCases):
    pass


class TestClusterLog(InCluster, LogCases):
    pass


class TestClusterStorage(InCluster, StorageCases):
    pass


class TestClusterErasure(InCluster, ErasureCases):
    pass


class TestClusterWalks(InCluster, WalkCases):
    pass


class TestClusterShelf(InCluster, ShelfCases):
    pass


class TestClusterClaims(InCluster, ClaimCases):
    pass


class TestClusterFleet(InCluster, FleetCases):
    pass


@pytest.fixture
def surely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody loses a connection and lives: a death need not be looked at twice a fifth of a second apart."""
    monkeypatch.setattr(fleet, "GRACE_SECONDS", 0.001)


@pytest.mark.usefixtures("surely")
def test_like_the_model(one: str) -> None:
    """Hypothesis finds acts, and after each the store holds what the memory store holds."""
    compare(one, examples=5)


@pytest.mark.usefixtures("surely")
def test_a_cluster_is_like_the_model(cluster: str) -> None:
    """The same, over the parts of a log in a cluster."""
    compare(cluster, examples=3)


def compare(url: str, *, examples: int) -> None:
    """Let the machine run."""

    @asynccontextmanager
    async def fresh() -> AsyncIterator[RedisLogWorld]:
        world = RedisLogWorld(url)
        try:
            yield world
        finally:
            await world.close()

    class Machine(log_machine(fresh)):  # type: ignore[misc]
        @invariant()
        def time_passes(self) -> None:
            """On both sides: who waits longer than somebody else does so by either clock."""
            for side in (self._store, self._model):
                self._runner.run(side.world.pass_time(timedelta(milliseconds=2)))

    machine = Machine.TestCase
    machine.settings = settings(max_examples=examples, stateful_step_count=25, deadline=None)
    machine("runTest").runTest()
