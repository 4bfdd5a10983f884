"""The memory stores, which every other store is compared with, pass the suite that every other store passes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from hypothesis import settings

from dalsegno.ports import Member
from dalsegno.stores.memory import MemoryDatabase, MemoryLog
from dalsegno.testing.conformance import (
    BlobsCases,
    CacheCases,
    ClaimCases,
    ErasureCases,
    FleetCases,
    HotCases,
    LogCases,
    ShelfCases,
    StorageCases,
    TransactionCases,
    WalkCases,
    log_machine,
)
from dalsegno.testing.conformance.memory import MemoryBlobsWorld, MemoryHotWorld, MemoryWorld
from tests.support import wait_until


@asynccontextmanager
async def memory_world() -> AsyncIterator[MemoryWorld]:
    world = MemoryWorld()
    yield world
    await world.close()


class Memory:
    @pytest.fixture
    async def world(self) -> AsyncIterator[MemoryWorld]:
        async with memory_world() as world:
            yield world


class TestLog(Memory, LogCases):
    pass


class TestStorage(Memory, StorageCases):
    pass


class TestErasure(Memory, ErasureCases):
    pass


class TestWalks(Memory, WalkCases):
    pass


class TestShelf(Memory, ShelfCases):
    pass


class TestClaims(Memory, ClaimCases):
    pass


class TestFleet(Memory, FleetCases):
    pass


class TestTransactions(Memory, TransactionCases):
    pass


class TestHot(HotCases):
    @pytest.fixture
    def world(self) -> MemoryHotWorld:
        return MemoryHotWorld()


class TestCache(CacheCases):
    @pytest.fixture
    def world(self) -> MemoryHotWorld:
        return MemoryHotWorld()


class TestBlobs(BlobsCases):
    @pytest.fixture
    def world(self) -> MemoryBlobsWorld:
        return MemoryBlobsWorld()


TestLikeItself = log_machine(memory_world).TestCase
TestLikeItself.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)


async def test_a_handle_beats_by_itself():
    """Without a beat of the caller's, the event loop keeps a member alive, and only until its handle is closed."""
    database = MemoryDatabase()
    log = MemoryLog(database)
    await log.join(Member("a", "replica-a"), ttl=timedelta(seconds=1))
    expires = database.members["a"].expires
    await wait_until(lambda: database.members["a"].expires > expires + 0.1, description="the member has beaten")
    await log.close()
    expires = database.members["a"].expires
    await asyncio.sleep(0.5)
    assert database.members["a"].expires == expires
