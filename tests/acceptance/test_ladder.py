"""The ladder of degradation (explain/degradation.md), rung by rung, with whole fleets: while a tier fails, what can be
served is served, what cannot is refused in a way that can be tried again, operators are told, and it goes on by itself.
"""

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from dalsegno.client import TERMINAL, Client, SessionHandle
from dalsegno.testing.fleet import Fleet
from dalsegno.testing.proxy import BlackHole, Cut, DropReplies, Fault, FaultProxy, Pass, Refuse
from dalsegno.testing.servers import postgres, redis
from tests.acceptance import agents
from tests.acceptance import ledger as ledgers
from tests.acceptance import stack as stacks
from tests.acceptance.conftest import ROOT, TARGET, Serving
from tests.acceptance.crowd import PATIENT, Crowd
from tests.acceptance.ledger import Ledger
from tests.acceptance.sizes import RELEASE, publish, seconds, size
from tests.acceptance.stack import Stack
from tests.acceptance.test_stack import ended, look_at
from tests.acceptance.verdict import world_of
from tests.support import wait_until

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(120))]

TALKERS = 8


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The servers."""
    with stacks.running(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture
def database(stack: Stack) -> str:
    """This test's database."""
    return stack.database()


@pytest.fixture
def tiers(stack: Stack, database: str) -> tuple[str, ...]:
    """Where this test's fleet keeps what it knows."""
    return stack.options(database)


@pytest.fixture
def environment(stack: Stack, ledger: Ledger) -> dict[str, str]:
    """What replicas inherit, the way to this repository, and the way to the emulator."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    own = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", ledgers.VARIABLE: str(ledger.path)}
    return {**os.environ, **own, **stack.environment}


class Visitor:
    """Asks every replica by itself and never tries again: what a load balancer, an operator and a client see."""

    def __init__(self, fleet: Fleet, http: httpx2.AsyncClient) -> None:
        self.urls = fleet.urls
        self._http = http

    async def ask(self, url: str, path: str) -> httpx2.Response:
        """GET."""
        return await self._http.get(f"{url}{path}", timeout=60)

    async def say(self, url: str, session: str, text: str, key: str) -> httpx2.Response:
        """A message."""
        headers = {"idempotency-key": key}
        return await self._http.post(
            f"{url}/v1/sessions/{session}/inputs",
            json={"type": "message", "content": text},
            headers=headers,
            timeout=60,
        )

    async def states(self, path: str = "/readyz") -> set[int]:
        """What all replicas answer there."""
        return {answer.status_code for answer in await asyncio.gather(*(self.ask(url, path) for url in self.urls))}

    async def told(self, tier: str) -> set[str]:
        """What `/health` says of a tier."""
        answers = await asyncio.gather(*(self.ask(url, "/health") for url in self.urls))
        return {answer.json()["tiers"][tier] for answer in answers}

    async def says(self, tier: str, words: str) -> bool:
        """Whether that is what every replica says of a tier."""
        return await self.told(tier) == {words}

    async def failing(self, tier: str) -> set[float]:
        """What the figures say of it."""
        lines = [line for url in self.urls for line in (await self.ask(url, "/metrics")).text.splitlines()]
        return {
            float(line.split()[-1])
            for line in lines
            if line.startswith("dalsegno_tier_failing{") and f'tier="{tier}"' in line
        }

    async def is_refused(self, session: str) -> dict[str, Any]:
        """A message that is not accepted says so in the contract's words, and when to come back."""
        answer = await self.say(self.urls[0], session, "hello", "refused")
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1", answer.text
        problem: dict[str, Any] = answer.json()
        assert problem["code"] == "store_unavailable"
        assert "127.0.0.1" not in problem["detail"], "clients are told no addresses"
        return problem


@asynccontextmanager
async def visited(fleet: Fleet) -> AsyncIterator[tuple[Visitor, Client]]:
    """A visitor, and a client with patience."""
    async with httpx2.AsyncClient() as http, Client(fleet.urls, retry=PATIENT) as client:
        yield Visitor(fleet, http), client


def script(name: str, *do: str, **options: Any) -> str:
    """A message for the agent."""
    return json.dumps({"id": name, "do": do, **options})


async def outputs(session: SessionHandle) -> list[str]:
    """What its tools have answered."""
    return [str(item["output"]) async for item in session.items() if item["type"] == "function_call_output"]


async def follow(session: SessionHandle, *, turn: str, seqs: list[int]) -> None:
    """Hear the session from its beginning until that turn has ended."""
    async with aclosing(session.stream(after=0)) as events:
        async for event in events:
            seqs += [] if event.seq is None else [event.seq]
            if event.turn == turn and event.type in TERMINAL:
                return


def lines(fleet: Fleet, words: str) -> int:
    """How many lines of their logs say that."""
    return sum(words in line for line in fleet.text().splitlines())


async def test_a_read_only_database(stack: Stack, serving: Serving, ledger: Ledger, database: str):
    """Reads and streams are served, messages are refused, replicas stay in the balancer; a turn that is under way
    waits, also in the middle of a tool's transaction, and is not told. One line in each log, and one when it is over.
    """
    async with serving(replicas=2) as fleet, visited(fleet) as (visitor, client):
        session = await client.sessions.create()
        await session.ask(script("first", "transactional"))
        receipt = await session.send(script("second", "transactional", "keyed", words=20, pace_ms=20))
        seqs: list[int] = []
        hearing = asyncio.create_task(follow(session, turn=receipt.turn, seqs=seqs))
        await wait_until(lambda: len(seqs) >= receipt.seq, description="the stream is up")
        stack.postgres.set("default_transaction_read_only", "on")
        try:
            read_only = partial(visitor.says, "warm", "the database is read-only")
            await wait_until(read_only, description="every replica says so")
            for path in ("/readyz", "/health", f"/v1/sessions/{session.id}", f"/v1/sessions/{session.id}/items"):
                assert await visitor.states(path) == {200}, path
            assert await visitor.states(f"/v1/sessions/{session.id}/events?limit=5") == {200}
            assert await visitor.failing("warm") == {1}
            assert (await visitor.is_refused(session.id))["outcome"] == "not_applied"
            past: list[int] = []
            reading = asyncio.create_task(follow(client.session(session.id), turn="none", seqs=past))
            await wait_until(lambda: len(past) >= receipt.seq, description="a new stream has what there was")
            reading.cancel()
            assert not hearing.done()
        finally:
            stack.postgres.reset("default_transaction_read_only")
        await session.ask(script("third", "transactional"))
        await asyncio.wait_for(hearing, 20)
        assert seqs == list(range(1, len(seqs) + 1))
        assert await outputs(session) == [
            "transactional first/0 done",
            "transactional second/0 done",
            "keyed second/1 done",
            "transactional third/0 done",
        ]
        assert sorted(world_of(ledger, database).booked.items()) == [("first/0", 1), ("second/0", 1), ("third/0", 1)]
        await wait_until(partial(visitor.says, "warm", "ok"), description="every replica is well")
        await wait_until(lambda: lines(fleet, "the warm tier is well again") == 2, description="the logs say so")
        assert lines(fleet, "the warm tier fails: the database is read-only") == 2
        assert lines(fleet, "duty ") == 0


async def test_a_database_that_is_away(stack: Stack, serving: Serving):
    """Killed, or silent: nothing can be accepted or read, and everybody is told in time; then it goes on by itself."""
    async with serving(replicas=2) as fleet, visited(fleet) as (visitor, client):
        session = await client.sessions.create()
        await session.ask(script("first"))
        faults = [(stack.postgres.crash, stack.postgres.start), (stack.postgres.pause, stack.postgres.resume)]
        for number, (begin, end) in enumerate(faults):
            receipt = await session.send(script(f"during {number}", "transactional", words=20, pace_ms=10))
            await asyncio.to_thread(begin)
            try:
                assert await visitor.states("/readyz") == {503}
                assert await visitor.states("/health") == {503}
                (told,) = {words.partition(" in ")[0] for words in await visitor.told("warm")}
                assert told in ("the database cannot be reached", "no answer")
                assert await visitor.states("/livez") == {200}
                if begin == stack.postgres.crash:
                    assert (await visitor.is_refused(session.id))["outcome"] == "not_applied"
                    assert await visitor.states(f"/v1/sessions/{session.id}") == {503}
            finally:
                await asyncio.to_thread(end)
            await wait_until(partial(ready, visitor), description="every replica is ready again")
            seqs: list[int] = []
            await asyncio.wait_for(follow(session, turn=receipt.turn, seqs=seqs), 30)
            assert (await session.turn(receipt.turn))["status"] == "completed"
        assert lines(fleet, "the warm tier fails") <= 2 * len(faults)


async def ready(visitor: Visitor) -> bool:
    """Whether all are."""
    return await visitor.states() == {200}


async def test_a_database_without_connections(stack: Stack, serving: Serving, database: str):
    """Others took them all, and ours were ended: 503 until there are some; replicas need no restart."""
    async with serving(replicas=2) as fleet, visited(fleet) as (visitor, client):
        session = await client.sessions.create()
        with contextlib.ExitStack() as held:
            ours, taken = held.enter_context(psycopg.connect(database, autocommit=True)), list[Any]()
            end = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = %s"
            )

            def take_all() -> bool:
                # One that ends frees its place a moment later: all are taken when nobody had one, and none was free.
                ended, before = ours.execute(end, (database.rpartition("/")[2],)).fetchall(), len(taken)
                with contextlib.suppress(psycopg.OperationalError):
                    while True:
                        taken.append(held.enter_context(psycopg.connect(stack.postgres.url())))
                return not ended and len(taken) == before

            await wait_until(lambda: asyncio.to_thread(take_all), description="there is no connection left")
            told = partial(visitor.says, "warm", "the database has no connection left")
            await wait_until(told, description="every replica says so")
            assert await visitor.states() == {503}
            assert (await visitor.is_refused(session.id))["outcome"] == "not_applied"
        assert await session.ask(script("after", "transactional"))
        await wait_until(partial(ready, visitor), description="every replica is ready again")


async def test_a_cold_tier_that_is_away(
    stack: Stack, ledger: Ledger, database: str, tmp_path: Path, environment: dict[str, str]
):
    """Only what is large waits: turns whose tools return too much, and artifacts. A deletion is finished later."""
    async with AsyncExitStack() as on:
        proxy = await on.enter_async_context(FaultProxy(("127.0.0.1", stack.objects.port)))
        through = {**environment, "AWS_ENDPOINT_URL": proxy.url}
        options = stack.options(database)
        fleet = Fleet(TARGET, folder=tmp_path, replicas=2, options=options, environment=through)
        await on.enter_async_context(fleet)
        visitor, client = await on.enter_async_context(visited(fleet))
        kept, gone = await client.sessions.create(), await client.sessions.create()
        await kept.ask(script("before", "large"))
        await gone.ask(script("gone", "large"))
        (artifact,) = [item["artifact"]["id"] async for item in kept.items() if "artifact" in item]
        (orphan,) = [item["artifact"]["id"] async for item in gone.items() if "artifact" in item]
        assert await visitor.states(f"/v1/artifacts/{artifact}") == {200}
        await proxy.switch(Refuse())
        proxy.abort()
        late = await kept.send(script("late", "large", "keyed"))
        answer = await visitor.ask(visitor.urls[0], f"/v1/artifacts/{artifact}")
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert answer.headers["retry-after"] == "1"
        await wait_until(
            partial(visitor.says, "cold", "the cold tier does not answer"), description="they say so", timeout=20
        )
        assert await visitor.states() == {200}
        assert 1 in await visitor.failing("cold")
        await gone.delete()
        assert await (await client.sessions.create()).ask(script("small", "keyed", "transactional"))
        assert (await kept.turn(late.turn))["status"] == "running"
        await proxy.switch(Pass())
        seqs: list[int] = []
        await asyncio.wait_for(follow(kept, turn=late.turn, seqs=seqs), 30)
        assert (await kept.turn(late.turn))["status"] == "completed"
        assert len(ledger.lines("keyed", label="late/1")) == 1
        assert (
            await visitor.ask(visitor.urls[1], f"/v1/artifacts/{artifact}")
        ).text == "before/0 " * agents.LARGE_TIMES
        await wait_until(partial(is_erased, stack, orphan), description="the deleted session's artifact is removed")
        await wait_until(partial(visitor.says, "cold", "ok"), description="every replica is well")


async def is_erased(stack: Stack, artifact: str) -> bool:
    """Whether the bucket has nothing of it any more."""
    async with httpx2.AsyncClient() as http:
        url = stack.objects.environment["AWS_ENDPOINT_URL"]
        listed = await http.get(f"{url}/dalsegno?list-type=2")
    return artifact.rpartition(".")[2] not in listed.text


async def test_a_database_that_fails_over_under_load(
    stack: Stack, ledger: Ledger, tmp_path: Path, environment: dict[str, str]
):
    """P1, P5, P7: the primary dies and its synchronous standby is promoted; every replica finds it by the same URL, and
    nothing that was acknowledged is lost, doubled or stuck.
    """
    clock = asyncio.get_running_loop().time
    with postgres.pair() as (primary, standby):
        database = primary.database()
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("CREATE TABLE bookings (label TEXT, key TEXT)")
        options = stack.options(postgres.pair_url(primary, standby, database))
        async with Fleet(TARGET, folder=tmp_path, options=options, environment=environment) as fleet:
            crowd = Crowd(fleet, size=TALKERS, seed=4, retry=PATIENT)
            async with crowd.at_work(within=60), visited(fleet) as (visitor, _):
                await ended(crowd, 2 * TALKERS)
                await asyncio.to_thread(primary.crash)
                only_standby = partial(visitor.says, "warm", "the database has no primary, only a standby")
                await wait_until(only_standby, description="every replica says so")
                assert await visitor.states() == {503}
                await asyncio.to_thread(standby.promote)
                promoted, now = clock(), crowd.ended
                await ended(crowd, now + 1)
                after = clock() - promoted
                await ended(crowd, now + 2 * TALKERS)
            world = world_of(ledger, standby.url(database.rpartition("/")[2]))
            violations, ends = await crowd.judged(world)
    publish(f"{len(ends)} turns; the first ended {after * 1000:.0f} ms after the promotion; {dict(crowd.refusals)}")
    assert violations == []
    assert {(status, code) for status, code, _ in crowd.refusals} <= {(503, "store_unavailable")}


async def test_answers_of_the_database_that_are_lost(
    stack: Stack, ledger: Ledger, database: str, tmp_path: Path, environment: dict[str, str]
):
    """P2, P12: a statement arrives and its answer never does, or a connection ends at any byte: what became of it is
    looked up, and nothing is lost or doubled.
    """
    faults: list[Fault] = [DropReplies(), Cut(after=60), BlackHole(), Cut(after=1000, how="finish")]
    async with FaultProxy(stack.postgres.address) as proxy:
        through = database.replace(f":{stack.postgres.port}/", f":{proxy.port}/")
        options = stack.options(through)
        async with Fleet(TARGET, folder=tmp_path, options=options, environment=environment) as fleet:
            crowd = Crowd(fleet, size=TALKERS, seed=5, retry=PATIENT)
            async with crowd.at_work(within=60):
                await ended(crowd, TALKERS)
                for fault in faults * size(2, 20):
                    before = struck(proxy)
                    await proxy.switch(fault)
                    await wait_until(partial(struck, proxy, since=before + 5), description=f"{fault} has struck")
                    await proxy.switch(Pass())
                    await ended(crowd, crowd.ended + TALKERS // 2)
            violations, ends = await crowd.judged(world_of(ledger, database))
    publish(f"{len(ends)} turns; {proxy.counts}; {dict(crowd.refusals)}; {len(violations)} violations")
    assert violations == []
    assert {(status, code) for status, code, _ in crowd.refusals} <= {(503, "store_unavailable")}
    assert proxy.counts.dropped_bytes and proxy.counts.cut and proxy.counts.held


def struck(proxy: FaultProxy, *, since: int = 0) -> int:
    """How much the wire has lost, cut or kept, if that is more than `since`; else 0."""
    counts = proxy.counts
    return max(0, counts.dropped_bytes + counts.cut + counts.held - since)


@pytest.mark.parametrize("kind", ["sentinel", *(["cluster"] if RELEASE else [])])
async def test_a_hot_tier_that_fails_over_under_load(
    kind: str, stack: Stack, ledger: Ledger, database: str, tmp_path: Path, environment: dict[str, str]
):
    """P10: while Sentinels or a Cluster promote a replica, no turn fails, no stream has a gap, nobody is refused."""
    with contextlib.ExitStack() as servers:
        if kind == "sentinel":
            watched = servers.enter_context(redis.sentinels())
            url, victim, old = watched.url, watched.primary, watched.primary_port()
            promoted: Callable[[], bool] = partial(_has_moved, watched, old)
        else:
            cluster = servers.enter_context(redis.cluster(replicas=1))
            url, victim, promoted = cluster.url, cluster.servers[0], cluster.is_promoted
        cold = stack.options(database)[-2:]
        options = ("--warm", database, "--hot", url, *cold)
        states = Counter[int]()
        async with Fleet(TARGET, folder=tmp_path, options=options, environment=environment) as fleet:
            crowd = Crowd(fleet, size=TALKERS, seed=6, words=16, pace_ms=15)
            async with visited(fleet) as (visitor, _), asyncio.TaskGroup() as group:
                watch = group.create_task(look_at(fleet, states))
                async with crowd.at_work(within=60):
                    await ended(crowd, TALKERS)
                    victim.process.kill()
                    await wait_until(
                        lambda: asyncio.to_thread(promoted), description="the replica is promoted", timeout=20
                    )
                    await ended(crowd, crowd.ended + 2 * TALKERS)
                await wait_until(partial(visitor.says, "hot", "ok"), description="the hot tier is well", timeout=20)
                watch.cancel()
            violations, ends = await crowd.judged(world_of(ledger, database))
            said = lines(fleet, "the hot tier fails")
    publish(f"{len(ends)} turns over {kind}'s fail-over; {dict(states)} looks at /readyz; {said} lines in the logs")
    assert violations == []
    assert crowd.refusals == {} and set(states) == {200}
    assert 0 < said <= 3 * len(fleet.urls)


def _has_moved(watched: redis.Sentinels, old: int) -> bool:
    return watched.primary_port() != old
