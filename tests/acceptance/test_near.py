"""The context cache of a fleet on PostgreSQL and Redis: whatever becomes of it, a model is shown what the log says."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dalsegno.client import Client, SessionHandle
from dalsegno.core.context import context
from dalsegno.core.json import canonical
from dalsegno.testing.fleet import Fleet
from dalsegno.testing.servers import postgres, redis
from dalsegno.testing.servers.redis import Redis
from dalsegno.wire.transfer import Import
from tests.acceptance.conftest import Serving
from tests.acceptance.crowd import STUBBORN
from tests.acceptance.ledger import Ledger, digest
from tests.acceptance.sizes import publish, seconds
from tests.support import wait_until

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(90))]

GONE = "gone with its server"
TURNS = 60
"""Of four events each: more than are worth keeping."""


@pytest.fixture(scope="module")
def hot() -> Iterator[Redis]:
    """A private Redis or Valkey."""
    with redis.running() as server:
        yield server


@pytest.fixture(scope="module")
def warm() -> Iterator[postgres.Postgres]:
    """A private PostgreSQL."""
    with postgres.running() as server:
        yield server


@pytest.fixture
def tiers(warm: postgres.Postgres, hot: Redis, tmp_path: Path) -> tuple[str, ...]:
    """Where this test's fleet keeps what it knows."""
    hot.flush()
    return "--warm", warm.database(), "--hot", hot.url, "--cold", f"file://{tmp_path}/cold"


def kept(hot: Redis, session: SessionHandle) -> dict[bytes, bytes]:
    """What is near of the session, behind everybody's back."""
    (*keys,) = hot.do("KEYS", f"*{session.id}*:cache")
    values = hot.do("HGETALL", keys[0]) if keys else {}
    return values if isinstance(values, dict) else dict(zip(values[::2], values[1::2], strict=True))


def put(hot: Redis, session: SessionHandle, values: dict[bytes, bytes]) -> None:
    """Have that there, and nothing else."""
    key = f"dalsegno:{{default/{session.id}}}:cache"
    hot.do("DEL", key)
    if values:
        hot.do("HSET", key, *(word for pair in values.items() for word in pair))


async def say(session: SessionHandle, number: int) -> None:
    """One turn."""
    script = {"id": f"{session.id[-6:]}-{number}", "do": [], "words": 1, "pace_ms": 0}
    assert await session.ask(json.dumps(script))


async def renewed(fleet: Fleet) -> None:
    """Other processes, which remember nothing."""
    for replica in fleet:
        await replica.kill()
    await fleet.start()


async def wrong(session: SessionHandle, ledger: Ledger) -> list[str]:
    """Models that were shown something else than a fold of the log."""
    log = Import()
    for line in (await session.export()).splitlines():
        log.line(line)
    return [
        f"{asked['label']} was shown something else"
        for asked in ledger.lines("model", session=session.id)
        if asked["shown"] != digest(canonical(list(context(log.events[: asked["at_event"]], session=session.id).items)))
    ]


async def test_whatever_becomes_of_the_context_cache_the_model_sees_the_log(
    serving: Serving, hot: Redis, ledger: Ledger
):
    """P6: "The model is shown exactly the log's prefix". P10: kept, lost, damaged, outdated, another's, or behind a
    server that is gone: what is near changes latency only.
    """
    found: list[str] = []
    async with serving(replicas=1) as fleet, Client(fleet.urls, retry=STUBBORN) as client:
        session, other = await client.sessions.create(), await client.sessions.create()
        for number in range(TURNS):
            await say(session, number)
            await say(other, number)
        await wait_until(lambda: kept(hot, session) and kept(hot, other), description="contexts are near")
        early, theirs = kept(hot, session), kept(hot, other)
        (name,) = (name for name in early if name.startswith(b"has:"))
        states: dict[str, Callable[[], None]] = {
            "kept": lambda: None,
            "lost": hot.flush,
            "outdated": lambda: put(hot, session, early),
            "noise": lambda: put(hot, session, {**early, name: b"noise"}),
            "cut off": lambda: put(hot, session, {**early, name: early[name][:-9]}),
            "another's": lambda: put(hot, session, theirs),
            "of another type": lambda: hot.do("SET", f"dalsegno:{{default/{session.id}}}:cache", "x"),
            GONE: hot.process.kill,
        }
        for number, (state, become) in enumerate(states.items(), TURNS):
            if state == "of another type":
                put(hot, session, {})
            become()
            await renewed(fleet)
            asked = 0 if state == GONE else looks(hot)
            await say(session, number)
            assert state == GONE or looks(hot) > asked, f"nobody looked what is near when it was {state}"
            found += [f"{state}: {line}" for line in await wrong(session, ledger)]
        hot.process.start()
        await say(session, 1000)
    publish(f"{TURNS} turns and one in each of {len(states)} states; {len(found)} models were shown something else")
    assert found == []


def looks(hot: Redis) -> int:
    """How often somebody has looked for a context."""
    lines = (line for line in hot.do("INFO", "commandstats").splitlines() if line.startswith(b"cmdstat_hmget:"))
    return int(next(lines, b"x:calls=0,").partition(b"calls=")[2].partition(b",")[0])


async def test_a_deleted_session_leaves_nothing_there(serving: Serving, hot: Redis):
    """P1: "until the session is deleted": then nothing that was said is in the hot tier."""
    async with serving(replicas=2) as fleet, Client(fleet.urls, retry=STUBBORN) as client:
        session = await client.sessions.create()
        for number in range(TURNS):
            await say(session, number)
        await wait_until(lambda: kept(hot, session), description="the context is near")
        await session.delete()
        await wait_until(lambda: set(kept(hot, session)) <= {b"forgotten"}, description="the context is gone")
