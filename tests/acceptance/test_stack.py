"""The same fleet on the stack of several machines: PostgreSQL, Redis or Valkey, and S3 (an emulator).

Whole fleets of real replicas, while replicas, the database and the hot tier die, and everything else that they can do.
"""

import asyncio
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
import pytest

from dalsegno.client import Client, Receipt, Transcript
from dalsegno.testing.fleet import Fleet
from dalsegno.testing.proxy import FaultProxy
from dalsegno.testing.servers.redis import Redis
from tests.acceptance import agents, weather
from tests.acceptance import ledger as ledgers
from tests.acceptance import stack as stacks
from tests.acceptance.conftest import ROOT, TARGET, Serving
from tests.acceptance.crowd import PATIENT, STUBBORN, Crowd, Talker
from tests.acceptance.ledger import Ledger
from tests.acceptance.sizes import percentile, publish, seconds, size, stack_size
from tests.acceptance.stack import Stack
from tests.acceptance.test_fleet import DRAIN, survive_restarts
from tests.acceptance.test_hostile import survive_shots
from tests.acceptance.test_kill import Blow, survive_kills
from tests.acceptance.test_streams import survive_cuts
from tests.acceptance.test_takeover import SHORT_LEASE, STOPPED, measure_takeovers, survive_pauses
from tests.acceptance.test_undo import TARGET as UNDOING
from tests.acceptance.test_undo import survive_undoing
from tests.acceptance.verdict import Seen, _streamed, log_of, world_of
from tests.support import wait_until

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(240))]

SESSIONS = 20
KEPT = 0.7
WINDOW_SECONDS = size(1, 5)
WINDOWS = size(5, 3)
TRIES = 3
LOOK_EVERY_SECONDS = 0.1
Fault: TypeAlias = Callable[[], AbstractAsyncContextManager[None]]


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


async def test_random_kills_lose_double_and_block_nothing(serving: Serving, ledger: Ledger, database: str):
    """P1, P2, P5, P7, P8 through the crash of any number of replicas, as on the embedded tiers; and P5: "After a
    replica's process dies its turns go on within 1 s", though replicas start all the time on the same machine.
    """
    async with serving() as fleet:
        blows = await survive_kills(fleet, stack_size(30, 100, 1000), ledger, database)
        await spill(fleet)
    latencies = takeovers(blows, ledger)
    p50, p99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
    assert p50 <= 1
    publish(f"{len(latencies)} take-overs under load: p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms")


async def spill(fleet: Fleet) -> None:
    """What is too large for the log is in the cold tier, whole, for every replica."""
    async with Client(fleet.urls[0], retry=STUBBORN) as client, httpx2.AsyncClient() as reader:
        session = await client.sessions.create()
        await session.ask(json.dumps({"id": "large", "do": ["large"]}))
        (pointer,) = [item["artifact"] async for item in session.items() if "artifact" in item]
        for url in fleet.urls:
            found = await reader.get(f"{url}/v1/artifacts/{pointer['id']}")
            assert found.text == "large/0 " * agents.LARGE_TIMES


async def test_a_killed_replica_s_turn_goes_on_at_once(serving: Serving, ledger: Ledger):
    """P5: "After a replica's process dies its turns go on within 1 s"."""
    async with serving() as fleet:
        await measure_takeovers(fleet, stack_size(6, 20, 200), ledger)


async def test_a_stopped_replica_cannot_write_when_it_wakes(serving: Serving, ledger: Ledger, database: str):
    """P4: "A replica that lost its lease, however long it was paused and whatever its clock says, cannot append to a
    turn, end it, or publish to its stream", though the database keeps the connections of the stopped one open.
    """
    async with serving(replicas=STOPPED + 2, options=SHORT_LEASE) as fleet:
        await survive_pauses(fleet, stack_size(3, 20, 500), ledger, database)


async def test_a_fleet_that_is_killed_while_it_undoes(serving: Serving, ledger: Ledger, database: str):
    """What a failed turn did is undone, once, the latest first, by whoever is left."""
    async with serving(target=UNDOING) as fleet:
        await survive_undoing(fleet, stack_size(1, 3, 60), ledger, database)


async def test_a_rolling_restart_fails_no_request(serving: Serving, ledger: Ledger, database: str):
    """Rolling restart under load: every request succeeds after the client's retry, and every replica leaves in time."""
    async with serving(options=DRAIN) as fleet:
        await survive_restarts(fleet, stack_size(1, 3, 50), ledger, database)


async def test_hostile_requests_break_nothing(serving: Serving):
    """P12: "Accepted text comes back code point for code point; what cannot be stored is refused before it is
    acknowledged": what SQLite stores, PostgreSQL stores as well (a zero byte, say), or is never asked to.
    """
    async with serving(replicas=1) as fleet:
        await survive_shots(fleet, stack_size(150, 1000, 50_000))


async def test_the_database_crashes_under_load(stack: Stack, serving: Serving, ledger: Ledger, database: str):
    """P1, P5: "through … any restart of the log's database that keeps its committed data". No replica dies or has to be
    restarted; clients are told 503 and whether anything was applied, and their retries succeed.
    """
    crashes, gaps = size(5, 100), list[float]()
    clock = asyncio.get_running_loop().time
    async with serving() as fleet:
        pids = [replica.pid for replica in fleet]
        crowd = Crowd(fleet, size=SESSIONS, seed=2, retry=PATIENT)
        async with crowd.at_work(within=60):
            await ended(crowd, SESSIONS)
            for _ in range(crashes):
                await asyncio.to_thread(stack.postgres.crash)
                await asyncio.to_thread(stack.postgres.start)
                up = clock()
                now = crowd.ended
                await ended(crowd, now + 1)
                gaps.append(clock() - up)
                await ended(crowd, now + SESSIONS // 2)
        violations, ends = await crowd.judged(world_of(ledger, database))
        assert [replica.pid for replica in fleet if replica.alive] == pids
    publish(
        f"{crashes} crashes of the database, {len(ends)} turns; one ended at most {max(gaps) * 1000:.0f} ms "
        f"after it was back; refused meanwhile: {dict(crowd.refusals)}; {len(violations)} violations"
    )
    assert violations == []
    assert {(status, code) for status, code, _ in crowd.refusals} == {(503, "store_unavailable")}


async def test_the_hot_tier_is_expendable(stack: Stack, serving: Serving, ledger: Ledger, database: str):
    """P10: "Losing, flushing, filling or slowing it changes latency, nothing else": nothing is lost, every stream is
    complete, on the replica that runs the turn and on another one, every replica stays ready, and >= 70 % of the turns
    are done meanwhile.
    """
    redis = stack.redis
    faults = [weather.killed, weather.flushed, weather.full, weather.read_only, weather.paused]
    async with serving() as fleet:
        await endure(fleet, redis, [partial(fault, redis) for fault in faults], ledger, database)


async def test_a_slow_hot_tier_is_expendable(
    stack: Stack, ledger: Ledger, database: str, tmp_path: Path, environment: dict[str, str]
):
    """P10, with a wire to the hot tier on which everything is late, or lost."""
    async with FaultProxy(stack.redis.address) as proxy:
        options = stack.options(database, hot_port=proxy.port)
        async with Fleet(TARGET, folder=tmp_path, options=options, environment=environment) as fleet:
            faults = [partial(weather.slow, proxy), partial(weather.black_holed, proxy)]
            await endure(fleet, stack.redis, faults, ledger, database)


async def endure(fleet: Fleet, redis: Redis, faults: Sequence[Fault], ledger: Ledger, database: str) -> None:
    """Everybody talks while one fault follows another; then everything is judged. A turn takes half a second, so that
    it is the models' pace that is measured, and not this machine's; which may have less time for us just then. So a
    fault under which too little is done is tried again: what it withholds, it withholds always.
    """
    crowd = Crowd(fleet, size=SESSIONS, seed=3, words=16, pace_ms=15)
    states, calm, kept = Counter[int](), list[float](), defaultdict[str, float](float)
    ears: list[Ear] = []
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(look_at(fleet, states))
        async with crowd.at_work(within=60):
            await ended(crowd, 2 * SESSIONS)
            ears = [Ear(talker, fleet) for talker in crowd.talkers]
            listening = [group.create_task(ear.listen()) for ear in ears]
            for fault in faults:
                name = getattr(fault, "func", fault).__name__
                for _ in range(TRIES):
                    calm.append(await best_rate(crowd, enough=1))
                    async with fault():
                        found = await best_rate(crowd, enough=KEPT * calm[-1])
                    kept[name] = max(kept[name], found / calm[-1])
                    redis.flush()  # what is there from now on is new
                    await wait_until(lambda: redis.do("DBSIZE"), description="the hot tier is used again", timeout=20)
                    if kept[name] >= KEPT:
                        break
        await wait_until(
            lambda: all(ear.is_complete for ear in ears), description="those on other replicas heard all", timeout=20
        )
        for task in (watch, *listening):
            task.cancel()
    violations, ends = await crowd.judged(world_of(ledger, database))
    async with Client(fleet.urls) as client:
        for ear in ears:
            log = await log_of(client.session(ear.seen.session.id))
            violations += [f"elsewhere, {ear.seen.session.id}: {found}" for found in _streamed(ear.seen, log)]
    publish(
        f"{len(ends)} turns, {min(calm):.0f} to {max(calm):.0f} a second in calm weather; kept of that: "
        + ", ".join(f"{name} {share:.0%}" for name, share in kept.items())
        + f"; {dict(states)} looks at /readyz; {len(crowd.refusals)} kinds of refusals, {len(violations)} violations"
    )
    assert violations == []
    assert crowd.refusals == {} and set(states) == {200}
    assert all(share >= KEPT for share in kept.values()), kept


async def ended(crowd: Crowd, count: int) -> None:
    """Wait until so many turns have ended."""
    await wait_until(lambda: crowd.ended >= count, description=f"{count} turns have ended", timeout=30)


async def rate(crowd: Crowd) -> float:
    """Turns that end in a second, as those hear it who began them."""
    clock = asyncio.get_running_loop().time
    began, before = clock(), crowd.ended
    await asyncio.sleep(WINDOW_SECONDS)  # how long is counted, and no wait for anything
    return (crowd.ended - before) / (clock() - began)


async def best_rate(crowd: Crowd, *, enough: float) -> float:
    """The best of a few windows: what holds in one of them was not withheld by the fault in the others."""
    best = 0.0
    for _ in range(WINDOWS):
        best = max(best, await rate(crowd))
        if best >= enough:
            break
    return best


async def look_at(fleet: Fleet, states: Counter[int]) -> None:
    """Count what the replicas say to a load balancer, until cancelled."""
    async with httpx2.AsyncClient() as client:
        while True:
            for url in fleet.urls:
                states[(await client.get(f"{url}/readyz", timeout=5)).status_code] += 1
            await asyncio.sleep(LOOK_EVERY_SECONDS)  # as a load balancer would


class Ear:
    """Follows a talker's session from its beginning, on another replica than the talker's."""

    def __init__(self, talker: Talker, fleet: Fleet) -> None:
        assert talker.seen is not None
        place = (talker.client._replica + 1) % len(fleet.urls)
        self._talker = talker.seen
        self._client = Client(fleet.urls[place], retry=STUBBORN)
        self.seen = Seen(self._client.session(talker.seen.session.id))

    @property
    def is_complete(self) -> bool:
        """Whether it has heard what the talker has."""
        return head_of(self.seen) == head_of(self._talker)

    async def listen(self) -> None:
        """Until cancelled."""
        transcript = Transcript()
        async with self._client, aclosing(self.seen.session.stream(after=0)) as events:
            async for event in events:
                transcript.add(event)
                self.seen.events.append(event)
                self.seen.texts = transcript.texts


def head_of(seen: Seen) -> int:
    """The last event that was heard."""
    return next((event.seq for event in reversed(seen.events) if event.seq is not None), 0)


async def test_a_stream_cut_at_any_byte_goes_on_elsewhere(serving: Serving):
    """P8: "Reconnecting anywhere with the last cursor yields every later durable event once and in order, and the text
    of every item completely, without gap or repetition", from whichever replica through Redis.
    """
    async with serving() as fleet:
        await survive_cuts(fleet, stack_size(60, 200, 5000))


async def test_deltas_reach_readers_on_every_replica(serving: Serving):
    """What one replica's model says is heard on the others while it is being said: word by word, and soon."""
    async with serving() as fleet, Client(fleet.urls[0], retry=STUBBORN) as speaker:
        session, late, pieces = await speaker.sessions.create(), list[float](), list[int]()
        for number in range(size(3, 30)):
            script = {"id": f"d{number}", "do": [], "words": 60, "pace_ms": 10}
            receipt = await session.send(json.dumps(script))
            heard = await asyncio.gather(*(hear(url, session.id, receipt) for url in fleet.urls))
            (here, times), *elsewhere = heard
            for text, their_times in elsewhere:
                assert text == here == "".join(agents.words(script, 0))
                pieces.append(len(their_times))
                late += [their_time_of(length, their_times) - at for length, at in times]
    p50, p99 = percentile(late, 0.5), percentile(late, 0.99)
    publish(
        f"{min(pieces)} to {max(pieces)} deltas of 60 words; "
        f"elsewhere p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms later"
    )
    assert min(pieces) > 20
    assert p99 <= 1


async def hear(url: str, session: str, receipt: Receipt) -> tuple[str, list[tuple[int, float]]]:
    """The turn's text, and after each delta how much of it was there, and when."""
    transcript, times, clock = Transcript(), list[tuple[int, float]](), asyncio.get_running_loop().time
    async with Client(url, retry=STUBBORN) as client:
        stream = client.session(session).stream(after=receipt.seq - 1, turn=receipt.turn)
        async with aclosing(stream) as events:
            async for event in events:
                transcript.add(event)
                if event.type == "item.delta":
                    times.append((sum(map(len, transcript.texts.values())), clock()))
    return "".join(transcript.texts.values()), times


def their_time_of(length: int, times: list[tuple[int, float]]) -> float:
    """When that much had been heard."""
    return next(at for reached, at in times if reached >= length)


def takeovers(blows: list[Blow], ledger: Ledger) -> list[float]:
    """From a kill that left somebody until another process runs the step. Of second attempts: in their third, turns go
    one at a time, so that what kills its replica kills no other turn's last one.
    """
    latencies, turns = list[float](), defaultdict[str, list[dict[str, Any]]](list)
    for line in ledger.lines("model"):
        turns[line["turn"]].append(line)
    deaths = {blow.pid: blow.at for blow in blows if blow.others}
    for asked in turns.values():
        for before, after in pairwise(asked):
            if (before["attempt"], after["attempt"]) == (1, 2) and before["pid"] in deaths:
                latencies.append(after["at"] - deaths[before["pid"]])
    return latencies
