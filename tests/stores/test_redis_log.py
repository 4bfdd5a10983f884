"""What the log on Redis does when a server, a wire or a process does not: nothing acknowledged is lost that the server
keeps, every error says whether anything was applied, and nothing is written twice.
"""

import asyncio
import itertools
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from redis.crc import key_slot

from dalsegno.core.admit import Admission
from dalsegno.core.append import Keep, Write
from dalsegno.core.event import SessionUpdated
from dalsegno.core.session import fold, replace
from dalsegno.errors import ConfigError, Unavailable, Unreadable
from dalsegno.ops.config import Config
from dalsegno.ops.doctor import examine
from dalsegno.ops.tiers import Places
from dalsegno.ports import Member, Query, Ref
from dalsegno.stores import migrate, open_warm
from dalsegno.stores.redis import RedisLog
from dalsegno.stores.redis import beat as beats
from dalsegno.stores.redis.beat import Beat
from dalsegno.stores.redis.claims import Choice
from dalsegno.stores.redis.keys import Layout, Part, name_of
from dalsegno.stores.redis.place import parse
from dalsegno.testing.conformance.acts import (
    DONE,
    accept,
    admission,
    begin,
    change,
    delete,
    history,
    leased,
    note,
    session,
    speak,
    work,
)
from dalsegno.testing.proxy import BlackHole, Cut, Delay, DropReplies, FaultProxy, Pass, Refuse
from dalsegno.testing.servers import redis as servers
from dalsegno.testing.servers.process import free_port
from dalsegno.testing.servers.redis import Redis
from tests.support import wait_until

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
TTL = timedelta(seconds=2)
CHILD = """
import asyncio, os, sys, time
from datetime import timedelta
from dalsegno.ports import Member
from dalsegno.stores.redis import RedisLog

async def live():
    log = await RedisLog.open(sys.argv[1])
    await log.join(Member("child", "child"), ttl=timedelta(seconds=30))
    forked = os.fork() if sys.argv[2] == "forks" else 1
    if not forked:
        time.sleep(60)
    print(forked, flush=True)
    await asyncio.sleep(60)

asyncio.run(live())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with servers.running(None, *DURABLE) as server:
        yield server


@pytest.fixture(autouse=True)
def clean(server: Redis) -> None:
    server.flush()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisLog]:
    log = await RedisLog.open(url)
    try:
        yield log
    finally:
        await log.close()


@pytest.fixture
async def log(server: Redis) -> AsyncIterator[RedisLog]:
    async with opened(server.url) as log:
        yield log


@pytest.fixture
async def proxy(server: Redis) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.address) as proxy:
        yield proxy


@pytest.fixture
async def wired(proxy: FaultProxy) -> AsyncIterator[RedisLog]:
    """A log whose wire can be cut."""
    async with opened(f"redis://127.0.0.1:{proxy.port}/0") as log:
        yield log


class Talk:
    """Sessions that somebody speaks to all the time, each message under a key of its own until it is accepted."""

    def __init__(self, *logs: RedisLog) -> None:
        self.said: dict[Ref, list[str]] = {session(number): [] for number in range(8)}
        self.refusals: set[str] = set()
        self._logs = itertools.cycle(logs)
        self._stop = asyncio.Event()
        self._talking = [asyncio.create_task(self._talk(ref)) for ref in self.said]

    @property
    def count(self) -> int:
        return sum(map(len, self.said.values()))

    async def goes_on(self) -> None:
        """Return when twenty more have been accepted."""
        wanted = self.count + 20
        await wait_until(lambda: self.count > wanted, description="messages are accepted again", timeout=30)

    async def judged(self, log: RedisLog) -> None:
        """Everything that was acknowledged is there, once and in order, under numbers without gaps."""
        self._stop.set()
        await asyncio.gather(*self._talking)
        for ref, texts in self.said.items():
            events = await history(log, ref)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            messages = [event.data for event in events if event.type == "turn.created"]
            assert len(messages) == len(texts), "something was lost, or said twice"
            for text, data in zip(texts, messages, strict=True):
                assert f'"{text}"'.encode() in data

    async def _talk(self, ref: Ref) -> None:
        for count in itertools.count():
            if self._stop.is_set():
                return
            text = f"{ref.id}/{count}"
            wanted = replace(admission(ref, text, key=f"key {text}"), queue_max=10**6)
            while not await _arrived(next(self._logs), wanted, self.refusals):
                await asyncio.sleep(0.01)
            self.said[ref].append(text)


async def _arrived(log: RedisLog, wanted: Admission, refusals: set[str] | None = None) -> bool:
    try:
        return isinstance(await speak(log, wanted), Write | Keep)
    except Unavailable as error:
        if refusals is not None:
            refusals.add(f"{error.outcome}: {error}")
        return False


# ------------------------------------------------------------------ the server


async def test_what_is_acknowledged_survives_the_servers_crash(server: Redis, log: RedisLog):
    """P1, under load: three times the server is killed, and with `appendfsync always` nothing acknowledged is missing.
    P2: nothing is said twice, whatever was on its way.
    """
    async with opened(server.url) as other:
        talk = Talk(log, other)
        for _ in range(3):
            await talk.goes_on()
            await asyncio.to_thread(server.restart)
        await talk.goes_on()
        await talk.judged(other)
        assert len((await other.list("acme", Query())).sessions) == 8


async def test_an_outage_is_nobodys_death(server: Redis):
    """Log 6: "after an outage nobody takes the turns of the living": who was cut off itself gives the others time to
    come back, also when it is the first; and P5: whoever does not come back is gone.
    """
    ttl = timedelta(seconds=1)
    async with opened(server.url) as one, opened(server.url) as other:
        for log, name in ((one, "a"), (other, "b")):
            await log.join(Member(name, name), ttl=ttl)
        await begin(one, session(), owner="a")
        late = one._fleet._beat
        assert late is not None
        late.stop()
        server.process.kill()
        await asyncio.sleep(1.2 * ttl.total_seconds())  # everybody's time is over
        server.process.start()

        async def beats() -> bool:
            with suppress(Unavailable):
                return [member.id for member in await other.members()] == ["b"]
            return False

        await wait_until(beats, description="the first of them beats again")
        assert list(await other.claim("b", limit=10)) == [], "a living replica's turn was taken"
        await wait_until(lambda: other.claim("b", limit=10), description="it has not come back", timeout=15)


async def test_another_run_of_the_server_knows_nobodys_connection(server: Redis):
    """Fleet 4: the numbers of connections begin anew when a server starts: those of its last run say nothing."""
    async with opened(server.url) as one, opened(server.url) as other:
        for log, name in ((one, "a"), (other, "b")):
            await log.join(Member(name, name), ttl=timedelta(seconds=60))
        assert one._fleet._beat is not None
        one._fleet._beat.stop()
        await asyncio.to_thread(server.restart)

        async def buried() -> Sequence[str] | None:
            with suppress(Unavailable):
                return await other.bury() or [member.id for member in await other.members()]
            return None

        assert await wait_until(buried, description="the server answers again") == ["a", "b"]
        (pulse,) = other._fleet._beat._pulses.values()  # type: ignore[union-attr]
        await wait_until(lambda: pulse.lost_at is None and pulse.connection, description="the other one is back")
        assert list(await other.bury()) == []


async def test_after_a_restart_a_death_is_noticed_at_once(server: Redis):
    """Fleet 4, once everybody has another connection: that they all lost the last one is no reason to wait."""
    async with opened(server.url) as one, opened(server.url) as other:
        for log, name in ((one, "a"), (other, "b")):
            await log.join(Member(name, name), ttl=timedelta(seconds=60))
        await asyncio.to_thread(server.restart)
        part = Layout(parse(server.url)).parts[0]

        async def all_back() -> bool:
            with suppress(Unavailable):
                roll = await other._fleet._roll(part)
                return all(record.server == roll.server for record in roll.records.values())
            return False

        await wait_until(all_back, description="both beat on this run of the server")
        dead, one._fleet._beat = one._fleet._beat, None
        assert dead is not None
        await asyncio.to_thread(dead.close)
        await wait_until(lambda: other.bury(), description="it is missed", timeout=15)


async def test_a_server_that_refuses_has_applied_nothing(server: Redis, log: RedisLog):
    """Full, or a replica by now: `not_applied`, and reads are served. What is deleted makes room, and replicas go on
    living meanwhile.
    """
    await log.join(Member("a", "a"), ttl=TTL)
    await accept(log, session(1))
    await accept(log, session(2))
    server.fill()
    try:
        await _not_applied(log)
        async with opened(server.url) as late:
            await late.join(Member("b", "b"), ttl=TTL)
            assert sorted(member.id for member in await log.members()) == ["a", "b"]
            await late.leave()
        await log.erase(session(2), await delete(log, session(2)))
        assert await log.unerased(limit=10) == {}
    finally:
        server.empty()
    server.follow(1)
    try:
        await _not_applied(log)
    finally:
        server.lead()

    async def well() -> bool:
        return await _arrived(log, admission(session(1), "and now?", key="k"))

    await wait_until(well, description="the log accepts again")
    assert [event.seq for event in await history(log, session(1))] == [1, 2, 3]


async def _not_applied(log: RedisLog) -> None:
    for ref in (session(1), session(7)):
        with pytest.raises(Unavailable) as caught:
            await speak(log, admission(ref, "no room", key="k"))
        assert caught.value.outcome == "not_applied"
    many = (speak(log, admission(session(number), "no room")) for number in range(10, 20))
    assert {type(error) for error in await asyncio.gather(*many, return_exceptions=True)} == {Unavailable}
    assert await log.load(session(1)) is not None, "what is there can be read"
    assert [event.seq for event in await history(log, session(1))] == [1, 2]


async def test_a_session_that_went_back_is_not_mixed_with_what_is_remembered(server: Redis, log: RedisLog):
    """P9: a server that lost its last writes (a fail-over) has an older session; this process's memory of a newer one
    does not hide that, and nothing is written on top of what is not there.
    """
    await accept(log, session(), "kept")
    part, name = Layout(parse(server.url)).parts[0], name_of(session())
    keys = (part.row(name), part.events(name), part.known(name))
    older = {key: server.do("DUMP", key) for key in keys[:2]}
    for count in range(3):
        await accept(log, session(), f"lost {count}")
    for key, dump in older.items():
        server.do("RESTORE", key, 0, dump, "REPLACE")
    async with opened(server.url) as other:
        # As far as the one that is remembered, and with the same epoch; but another story.
        for count in range(3):
            await change(other, session(), SessionUpdated({"count": count}))
    assert (await accept(log, session(), "after")).receipt.seq == 6
    events = await history(log, session())
    assert [event.seq for event in events] == [1, 2, 3, 4, 5, 6]
    assert await log.load(session()) == fold(session().id, session().tenant, events)
    assert not any(b"lost" in event.data for event in events)
    server.do("HDEL", keys[1], 4)
    with pytest.raises(Unreadable):
        await log.read(session(), after=0)


# ------------------------------------------------------------------ the wire


@pytest.mark.parametrize("after", [0, 1, 5])
async def test_a_cut_answer_leaves_the_outcome_unknown(proxy: FaultProxy, wired: RedisLog, log: RedisLog, after: int):
    """The command was sent, also a second time, and no answer came: whether it was carried out is found by the key."""
    await accept(wired, session())
    await accept(wired, session())
    await proxy.switch(Cut(after=after))
    same = admission(session(), "once", key="k1")
    with pytest.raises(Unavailable) as caught:
        await speak(wired, same)
    assert caught.value.outcome == "unknown"
    assert proxy.counts.cut > 0
    await proxy.switch(Pass())
    again = await _until_answered(wired, same)
    assert isinstance(again, Write | Keep) and again.result.receipt.seq == 4
    assert [event.seq for event in await history(log, session())] == [1, 2, 3, 4]


async def _until_answered(log: RedisLog, wanted: Admission) -> object:
    """Ask until the server is asked again: it is left alone for a moment after a failure."""

    async def ask() -> object:
        try:
            return await speak(log, wanted)
        except Unavailable as error:
            assert error.outcome == "not_applied"
            return None

    return await wait_until(ask, description="the server is asked again")


async def test_a_lost_answer_is_asked_for_again(proxy: FaultProxy, wired: RedisLog, log: RedisLog):
    """A write that arrives twice is written once: who lost the answer asks again, and learns that it had arrived. Not
    even a message without a key is doubled.
    """
    await accept(wired, session())
    await proxy.switch(DropReplies())
    asking = asyncio.create_task(accept(wired, session(), "no key"))
    await wait_until(lambda: proxy.counts.dropped_bytes, description="the answer is dropped")
    await proxy.switch(Pass())
    assert (await asking).receipt.seq == 3
    assert [event.seq for event in await history(log, session())] == [1, 2, 3]


async def test_cuts_under_load_lose_and_double_nothing(proxy: FaultProxy, wired: RedisLog, log: RedisLog):
    """P1, P2: all connections are cut again and again, in the middle of commits."""
    talk = Talk(wired, log)
    for _ in range(10):
        await talk.goes_on()
        await wait_until(lambda: proxy.abort() > 0, description="a connection is cut")
    await talk.judged(log)


async def test_who_cannot_connect_has_applied_nothing(proxy: FaultProxy, wired: RedisLog):
    """No connection: `not_applied`, and it goes on by itself once there is one."""
    await accept(wired, session())
    await proxy.switch(Refuse())
    proxy.abort()
    errors: list[Unavailable] = []
    for count in range(3):
        with pytest.raises(Unavailable) as caught:
            await speak(wired, admission(session(), "hello?", key=f"k{count}"))
        errors.append(caught.value)
    assert errors[-1].outcome == "not_applied"
    await proxy.switch(Pass())
    assert await _until_answered(wired, admission(session(), "hello!", key="k"))


async def test_a_silent_server_is_given_up(proxy: FaultProxy, wired: RedisLog, monkeypatch: pytest.MonkeyPatch):
    """Every call has an end: nobody waits for a wire on which nothing moves."""
    await accept(wired, session())
    line = wired._sessions.writes.route._line  # type: ignore[attr-defined]
    monkeypatch.setattr(line, "_manners", line._manners._replace(answer_seconds=0.3, dial_seconds=0.3))
    await proxy.switch(BlackHole())
    with pytest.raises(Unavailable) as caught:
        await asyncio.wait_for(speak(wired, admission(session())), 5)
    assert caught.value.outcome == "unknown"
    await proxy.switch(Pass())


async def test_who_begins_is_given_longer_than_who_lives(proxy: FaultProxy, wired: RedisLog, log: RedisLog):
    """A member with a short time to live joins over a wire whose answers take most of it."""
    await proxy.switch(Delay(latency=timedelta(seconds=0.1)))
    await wired.join(Member("far", "far"), ttl=timedelta(seconds=0.6))
    await proxy.switch(Pass())
    assert await log.members() == [Member("far", "far")]


async def test_who_cannot_begin_is_told_how_long_was_waited(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch):
    """A server that accepts connections and says nothing."""
    monkeypatch.setattr(beats, "BEGIN_SECONDS", 0.3)
    await proxy.switch(BlackHole())
    place = parse(f"redis://127.0.0.1:{proxy.port}/0")
    mute = Beat(place, Layout(place), Member("mute", "mute"), timedelta(seconds=30))
    with pytest.raises(TimeoutError, match=r"no answer in 0.3 s"):
        await asyncio.to_thread(mute.begin)
    mute.close()


# ------------------------------------------------------------------ the process


@pytest.mark.parametrize("does", ["nothing", "forks"])
async def test_a_killed_process_is_missed_at_once(server: Redis, log: RedisLog, does: str):
    """Fleet 4, with a process and `kill -9`: `bury` does not wait for its time to live of 30 s; nor does it matter that
    the process has a child, which was forked without exec and lives on.
    """
    await log.join(Member("a", "a"), ttl=TTL)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, server.url, does, stdout=asyncio.subprocess.PIPE, env=_environment()
    )
    grandchild = 1
    try:
        assert child.stdout is not None
        grandchild = int(await asyncio.wait_for(child.stdout.readline(), 30))
        assert sorted(member.id for member in await log.members()) == ["a", "child"]
        assert list(await log.bury()) == []
        await accept(log, session(), taker="child")
        child.send_signal(signal.SIGKILL)
        await wait_until(lambda: _buried(log), description="it is missed", timeout=15)
        assert (await leased(log, "a")).orphaned
    finally:
        if child.returncode is None and child.pid:
            child.kill()
        if grandchild > 1:
            os.kill(grandchild, signal.SIGKILL)
        # to the end of what it says, which its child holds open longer than it lives
        await child.communicate()


def _environment() -> dict[str, str]:
    source = str(Path(__file__).parents[2] / "src")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))}


async def _buried(log: RedisLog) -> bool:
    return list(await log.bury()) == ["child"]


async def test_a_lost_connection_is_not_a_death(server: Redis, log: RedisLog):
    """Fleet 1: who lives and has lost its connection has another one before anybody gives up on it."""
    async with opened(server.url) as other:
        await log.join(Member("a", "a"), ttl=TTL)
        await other.join(Member("b", "b"), ttl=TTL)
        for _ in range(5):
            beat = log._fleet._beat
            assert beat is not None
            (pulse,) = beat._pulses.values()
            before = pulse._client
            server.do("CLIENT", "KILL", "ID", before)
            assert list(await other.bury()) == []

            async def again(pulse=pulse, before=before) -> bool:
                return pulse._client not in (0, before) and len(await other.members()) == 2

            await wait_until(again, description="it beats on another connection")
        assert list(await other.bury()) == []


# ------------------------------------------------------------------ claims


async def test_of_two_that_looked_at_the_same_moment_one_claims(log: RedisLog, server: Redis):
    """Log 6: the write of a claim is refused by the server if the session is not the one that was looked at, also where
    neither its head nor its epoch would tell.
    """
    async with opened(server.url) as other:
        for one, name in ((log, "a"), (other, "b")):
            await one.join(Member(name, name), ttl=TTL)
        await begin(log, session(), owner="somebody gone")
        looks = [await _looked(log, "a"), await _looked(other, "b")]
        won = [
            await one._claims._write(name, look, []) for one, name, look in zip((log, other), "ab", looks, strict=True)
        ]
        assert [len(one) for one in won] == [1, 0]
        found = await other.load(session())
        assert found is not None and (found.owner, found.epoch) == ("a", 2)


async def test_a_claim_asks_again_who_lives(log: RedisLog, server: Redis):
    """Log 6: between a look and its write an owner may come back, and a claimant may be gone."""
    ttl = timedelta(seconds=0.6)
    async with opened(server.url) as other:
        for one, name in ((log, "a"), (other, "b")):
            await one.join(Member(name, name), ttl=ttl)
        await begin(log, session(1), owner="a")
        paused = log._fleet._beat
        assert paused is not None
        paused.stop()
        look = await wait_until(lambda: _looked(other, "b"), description="the owner misses its time")
        log._fleet._beat = Beat(paused._place, paused._layout, paused._member, ttl)
        log._fleet._beat.begin()
        paused.close()
        assert await other._claims._write("b", look, []) == []
        await accept(log, session(2))
        look = await _looked(other, "b")
        assert len(look) == 1
        await other.leave()
        assert await other._claims._write("b", look, []) == []
        assert [ref.id for ref in await log.holdings("a")] == [session(1).id]


async def _looked(log: RedisLog, owner: str) -> list[Choice]:
    """What this claimant would write."""
    return await log._claims._choose(owner, await log._claims._look(owner, 10, 1, []), 1, [])


# ------------------------------------------------------------------ a cluster


async def test_a_part_of_a_cluster_moves_under_load():
    """Every key of a part is moved to another server, one by one, while sessions are spoken to: what cannot be had is
    refused with nothing applied, and nothing is lost, doubled, or begun a second time where it is not.
    """
    with servers.cluster(None, *DURABLE) as cluster:
        async with opened(cluster.url) as log, opened(cluster.url) as other:
            await log.join(Member("a", "a"), ttl=TTL)
            talk = Talk(log, other)
            await talk.goes_on()
            parts = {layout_part(cluster.url, ref).number: layout_part(cluster.url, ref) for ref in talk.said}
            begun: list[Ref] = []
            beginning = asyncio.create_task(_begin_more(log, begun))
            for part in parts.values():
                await asyncio.to_thread(_move, cluster, key_slot(part.members))
                await talk.goes_on()
            beginning.cancel()
            await asyncio.gather(beginning, return_exceptions=True)
            await talk.judged(other)
            assert any("being moved" in refusal for refusal in talk.refusals), talk.refusals
            for ref in begun:
                assert [event.seq for event in await history(other, ref)] == [1, 2]
            assert len(await other.walk(limit=10_000)) == len(begun) + 8
            claimed = {one.session.id for one in await log.claim("a", limit=64)}
            assert len(claimed) == 64, "what is ready is found where it is now"


async def _begin_more(log: RedisLog, begun: list[Ref]) -> None:
    """New sessions, one after another, everywhere in the cluster, for as long as it may."""
    for number in itertools.count(1000):
        begun.append(ref := session(number))
        while not await asyncio.shield(_arrived(log, admission(ref, key="k"))):
            await asyncio.sleep(0.005)


def layout_part(url: str, ref: Ref) -> Part:
    return Layout(parse(url)).part(name_of(ref))


def _move(cluster: servers.Cluster, slot: int) -> None:
    """As `redis-cli --cluster reshard` does it."""
    names = {server.do("CLUSTER", "MYID").decode(): server for server in cluster.servers}
    ranges = cluster.servers[0].do("CLUSTER", "SLOTS")
    owner = next(primary[2].decode() for first, last, primary, *_ in ranges if first <= slot <= last)
    heir = next(name for name in names if name != owner)
    names[heir].do("CLUSTER", "SETSLOT", slot, "IMPORTING", owner)
    names[owner].do("CLUSTER", "SETSLOT", slot, "MIGRATING", heir)
    while keys := names[owner].do("CLUSTER", "GETKEYSINSLOT", slot, 1):
        names[owner].do("MIGRATE", *names[heir].address, "", 0, 5000, "KEYS", *keys)
        time.sleep(0.005)  # so that others come in between
    for name in (heir, owner, *(name for name in names if name not in (heir, owner))):
        names[name].do("CLUSTER", "SETSLOT", slot, "NODE", heir)


async def test_the_other_parts_of_a_cluster_go_on():
    """A server of the cluster is paused: its sessions are unavailable, those of the others are claimed and run."""
    with servers.cluster(None, *DURABLE, "--cluster-require-full-coverage", "no") as cluster:
        async with opened(cluster.url) as log:
            await log.join(Member("a", "a"), ttl=TTL)
            refs = [session(number) for number in range(12)]
            for ref in refs:
                await accept(log, ref)
            cluster.servers[1].process.kill()
            taken: set[str] = set()

            async def served() -> bool:
                try:
                    taken.update(one.session.id for one in await log.claim("a", limit=100))
                except Unavailable:
                    return False
                return bool(taken)

            await wait_until(served, description="what is left is claimed", timeout=20)
            assert 0 < len(taken) < len(refs)


async def test_a_promoted_replica_takes_over():
    """Behind sentinels, with `wait=1`: what was acknowledged is on the replica, and goes on there without a gap."""
    with servers.sentinels() as watched:
        async with opened(f"{watched.url}?wait=1") as log:
            await log.join(Member("a", "a"), ttl=TTL)
            for count in range(10):
                await accept(log, session(), f"{count}")
            line = log._sessions.writes.route._line  # type: ignore[attr-defined]
            line._manners = line._manners._replace(answer_seconds=1.0)
            watched.primary.process.kill()

            async def goes_on() -> bool:
                try:
                    return isinstance(await speak(log, admission(session(), "after", key="k")), Write | Keep)
                except Unavailable as error:
                    # Nobody is left to copy to: what the promoted one wrote is never acknowledged.
                    return "has not reached" in str(error)

            await wait_until(goes_on, description="the promoted replica accepts", timeout=30)
        async with opened(watched.url) as log:
            events = await history(log, session())
            assert [event.seq for event in events][:11] == list(range(1, 12))
            assert len([event for event in events if b'"after"' in event.data]) == 1


async def test_a_commit_without_its_copies_is_not_acknowledged(server: Redis, log: RedisLog):
    """`?wait=1` where there is no replica: `unknown`, and the key finds what was written."""
    async with opened(f"{server.url}?wait=1") as careful:
        manners = careful._sessions.writes.route._line  # type: ignore[attr-defined]
        manners._manners = manners._manners._replace(answer_seconds=0.4)
        with pytest.raises(Unavailable) as caught:
            await speak(careful, admission(session(), key="k"))
        assert caught.value.outcome == "unknown"
    found = await speak(log, admission(session(), key="k"))
    assert isinstance(found, Keep) and found.result.receipt.seq == 2


# ------------------------------------------------------------------ what is kept, and for how long


async def test_a_session_expires_as_a_whole(server: Redis):
    """`?retention=1h`: all that a session has goes at once, that long after its last event, and it is not listed."""
    part = Layout(parse(server.url)).parts[0]
    async with opened(f"{server.url}?retention=1h") as log:
        await log.join(Member("a", "a"), ttl=TTL)
        for number in (1, 2, 3, 4):
            await speak(log, admission(session(number), key="k"))
        await begin(log, session(5), owner="a")
        await delete(log, session(4))
        await accept(log, session(3), "again", taker="a")
        for number in (1, 2, 3, 4, 5):
            for key in _keys(part, session(number)):
                left = server.do("PTTL", key)
                assert 3_500_000 < left <= 3_600_000 or left == -2, "each event begins the time anew"
                server.do("PEXPIRE", key, 1 if number in (1, 4, 5) else 60_000)
        await wait_until(lambda: not server.do("EXISTS", part.row(name_of(session(5)))), description="they expire")
        assert await log.load(session(1)) is None
        assert await history(log, session(1)) == []
        assert [one.id for one in (await log.list("acme", Query())).sessions] == [session(2).id, session(3).id]
        assert [one.id for one in await log.walk(limit=10)] == [session(2).id, session(3).id]
        assert await log.unerased(limit=10) == {}
        assert [one.session.id for one in await log.claim("a", limit=10)] == [session(2).id]
        assert [ref.id for ref in await log.holdings("a")] == [session(2).id, session(3).id]
        assert server.do("ZCARD", part.all) == 2 and server.do("ZCARD", part.unerased) == 0
        for key in _keys(part, session(2)):
            server.do("PEXPIRE", key, 1)
        server.do("ZADD", part.expiring, 1, name_of(session(2)), 2, name_of(session(3)))
        await log.claim("a", limit=10)
        assert server.do("ZRANGE", part.all, 0, -1) == [name_of(session(3))], "nobody has to ask for it to be taken off"
        assert int(server.do("ZSCORE", part.expiring, name_of(session(3)))) > 2, "it is still there"
    async with opened(server.url) as log:
        await accept(log, session(3), "and again")
        assert {server.do("PTTL", key) for key in _keys(part, session(3))} == {-1}, "kept for good from now on"


def _keys(part: Part, ref: Ref) -> Sequence[bytes]:
    name = name_of(ref)
    return part.row(name), part.events(name), part.known(name)


async def test_a_server_that_may_forget_is_refused_or_complained_of(server: Redis, caplog: pytest.LogCaptureFixture):
    """A server that evicts is refused, one that keeps nothing on its disk is loudly complained of, at every start."""
    with servers.running() as forgetful:
        with caplog.at_level(logging.WARNING):
            async with opened(forgetful.url) as log:
                assert [risk.state for risk in log.risks] == ["wrong"]
        assert "LOST" in caplog.text
        findings = [one async for one in examine(Config(), Places(forgetful.url, forgetful.url, "memory:"))]
        assert [one.state for one in findings if one.what == "durability"] == ["wrong"]
        assert {one.state for one in findings if one.what != "durability"} == {"ok"}
        forgetful.do("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        with pytest.raises(ConfigError, match="noeviction"):
            await RedisLog.open(forgetful.url)
    async with opened(server.url) as log:
        assert list(log.risks) == []
    server.do("ACL", "SETUSER", "mute", "on", ">s3cret", "~*", "&*", "+@all", "-config")
    async with opened(server.url.replace("//", "//mute:s3cret@")) as log:
        assert [risk.state for risk in log.risks] == ["degraded"]
    with pytest.raises(ConfigError) as caught:
        await RedisLog.open(server.url.replace("//", "//mute:guessed@"))
    assert "guessed" not in str(caught.value)
    server.do("CONFIG", "SET", "appendfsync", "everysec")
    try:
        async with opened(server.url) as log:
            assert [risk.state for risk in log.risks] == ["degraded"]
    finally:
        server.do("CONFIG", "SET", "appendfsync", "always")


async def test_a_url_says_what_it_means(server: Redis):
    """What cannot be is refused with what to write instead; nobody there is `Unavailable`. There is no schema."""
    for phase in ("pre", "post"):
        await migrate(server.url, phase=phase)
    for query in ("?retention=30", "?retention=0d", "?wait=many", "?colour=red"):
        with pytest.raises(ConfigError):
            await open_warm(server.url + query)
    part_of_a_cluster = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with servers.running(None, *part_of_a_cluster) as part, pytest.raises(ConfigError, match=r"redis\+cluster"):
        await open_warm(part.url)
    with pytest.raises(Unavailable):
        await open_warm(part.url)


async def test_a_large_import_is_one_commit(log: RedisLog):
    """Log 2: however many events, written together or not at all."""
    await log.join(Member("a", "a"), ttl=TTL)
    lease = await begin(log, session(), owner="a")
    await work(log, lease, *(note(f"{n}") for n in range(20_000)), DONE, then="release")
    assert [event.seq for event in await log.read(session(), after=0, limit=30_000)] == list(range(1, 20_005))
