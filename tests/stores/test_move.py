"""Sessions go round all products, one after another, and are what they were: bytes, numbers, keys."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from dalsegno import stores
from dalsegno.core.event import Event, SessionUpdated
from dalsegno.core.move import Luggage, differences
from dalsegno.ports import Member, Ref, Warm
from dalsegno.runtime.mover import Report, Route
from dalsegno.runtime.removal import Plan, Removal
from dalsegno.testing.conformance.acts import (
    DONE,
    accept,
    admission,
    begin,
    change,
    delete,
    history,
    note,
    session,
    speak,
    waiting,
    work,
    written,
)
from dalsegno.testing.conformance.storage import TEXTS
from dalsegno.testing.servers import redis
from dalsegno.testing.servers.postgres import Postgres

NAMES = ("sqlite", "postgresql", "redis", "sqlite")
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
async def ring(tmp_path: Path, server: Postgres) -> AsyncIterator[list[Warm]]:
    """A store of each product, and the first one again."""
    database = server.database()
    with redis.running(redis.preferred(os.environ.get("REDIS_PROGRAM")), *DURABLE) as hot:
        async with AsyncExitStack() as stack:
            opened = []
            for url in (f"sqlite:///{tmp_path}/log.db", database, hot.url):
                opened.append(await stores.open_warm(url))
                stack.push_async_callback(stores.close, opened[-1])
            yield [*opened, opened[0]]
    server.drop(database)


async def _prepared(log: Warm) -> list[Ref]:
    """Sessions in every state, with whatever text there is."""
    await log.join(Member("a", "replica-a"), ttl=timedelta(seconds=5))
    for number, text in enumerate(TEXTS.values(), start=1):
        lease = await begin(log, session(number), owner="a")
        await work(log, lease, note(text), *(note(f"{n}") for n in range(number * 20)), DONE, then="release")
        written(await speak(log, admission(session(number), text or "empty", key=f"key {number}")))
    running = await begin(log, session(40), owner="a")
    await work(log, running, note("half"))
    await work(log, await begin(log, session(41, tenant="ötenant"), owner="a"), waiting(), then="release")
    for number in (42, 43):
        await accept(log, session(number))
        await log.erase(session(number), await delete(log, session(number)) if number == 42 else 0)
    await delete(log, session(43))
    await log.leave()
    return [Ref(one.tenant, one.id) for one in await log.walk(limit=100) if not one.deleted]


async def test_sessions_go_round_all_products(ring: list[Warm]):
    """SQLite, PostgreSQL, Redis, and back to where they began: each log is the next one's beginning, to the byte."""
    refs = await _prepared(ring[0])
    before: dict[Ref, list[Event]] = {ref: await history(ring[0], ref) for ref in refs}
    for place in range(3):
        source, target = ring[place], ring[place + 1]
        told: list[Report] = []
        await Removal(Route(source, target, NAMES[place], f"{NAMES[place + 1]}-2"), Plan(), told=told.append).run()
        assert not [report for report in told if report.what not in ("moved", "buried")], told
        assert sum(report.what == "moved" for report in told) == len(refs)
        for ref in refs:
            here, there = await source.load(ref), await target.load(ref)
            assert here is not None and there is not None and here.moved and not there.moved
            taken = Luggage(here, await history(source, ref), await source.keys(ref))
            found = Luggage(there, await history(target, ref), await target.keys(ref))
            assert differences(taken, found) == [] and taken.keys == found.keys
            assert found.events[: len(before[ref])] == before[ref]
            await change(target, ref, SessionUpdated({"seen in": NAMES[place + 1]}))
        await target.join(Member("b", "replica-b"), ttl=timedelta(seconds=5))
        if place == 2:
            taken_up = {one.session.id for one in await target.claim("b", limit=100)}
            assert session(40).id in taken_up and session(41).id not in taken_up
        await target.leave()
    for number in (42, 43):
        found_grave = await ring[3].load(session(number))
        assert found_grave is not None and found_grave.deleted
