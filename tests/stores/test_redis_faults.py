"""What the hot tier on Redis does when a server or a wire fails: it loses pieces or says so in time, and comes back.

Somebody publishes, reads and sends hints all the while; each answer is timed and compared with what was published.
"""

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TypeVar

import pytest

from dalsegno.core.stream import Piece
from dalsegno.errors import LeaseLost, Unavailable
from dalsegno.ports import Hint, OpenStep
from dalsegno.stores.redis import RedisHot
from dalsegno.stores.redis.entries import FRAME
from dalsegno.testing.conformance.acts import publish, session
from dalsegno.testing.proxy import BlackHole, Cut, Delay, DropReplies, FaultProxy, Pass, Refuse, Throttle
from dalsegno.testing.proxy import Fault as WireFault
from dalsegno.testing.servers import redis as servers
from tests.support import wait_until

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

R = TypeVar("R")
PROMISED_SECONDS = 0.25
SLACK_SECONDS = 0.25
"""What a busy machine may add."""
AT_ONCE_SECONDS = 0.1


class Strain:
    """One session's publisher and reader, and the ear of its replica."""

    def __init__(self, hot: RedisHot) -> None:
        self.answers: list[str] = []
        self.longest = 0.0
        self.heard = 0
        self.read: OpenStep | None = None
        self._hot = hot
        self._epoch = 0
        self._base = 0
        self._step: list[Piece] = []

    def hear(self, hint: Hint) -> None:
        self.heard += 1

    async def round(self) -> None:
        """Publish a letter, tell of it, and read; a step has ten letters, and a fence is raised before every other."""
        if len(self._step) % 10 == 0:
            self._base, self._step = self._base + 1, []
            if self._base % 2:
                self._epoch += 1
                shown = await self._ask("fence", self._hot.fence(session(), self._epoch))
                assert shown is None or shown.base < self._base
        at = len(self._step)
        self._step.append(Piece(self._base, at, 2, "msg", field="text", offset=at, delta="x"))
        await self._ask("publish", publish(self._hot, session(), self._epoch, self._step[-1:]))
        await self._ask("tell", self._hot.tell([Hint("acme", session().id, self._base, at + 1)]))
        self.read = await self._ask("read", self._hot.read(session()))
        if self.read is not None and self.read.base == self._base:
            assert list(self.read.pieces) == self._step[: len(self.read.pieces)]
            assert self.read.epoch == self._epoch

    async def whole(self) -> bool:
        """Whether a round went as if nothing had ever happened."""
        before, heard = len(self.answers), self.heard
        await self.round()
        well = set(self.answers[before:]) == {"ok"} and self.read is not None
        return well and self.read is not None and list(self.read.pieces) == self._step and self.heard > heard

    async def _ask(self, what: str, asking: Awaitable[R]) -> R | None:
        began = time.monotonic()
        try:
            answer = await asking
            self.answers.append("ok")
            return answer
        except Unavailable as error:
            assert "REDIS" not in str(error)
            self.answers.append("unavailable")
            return None
        finally:
            took = time.monotonic() - began
            self.longest = max(self.longest, took)
            assert took < PROMISED_SECONDS + SLACK_SECONDS, f"{what} took {took:.3f} s"


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Redis]:
    with servers.running() as server:
        yield server


@pytest.fixture(autouse=True)
def clean(server: servers.Redis) -> None:
    server.flush()


@pytest.fixture
async def proxy(server: servers.Redis) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.address) as proxy:
        yield proxy


def url(proxy: FaultProxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}"


@asynccontextmanager
async def opened(place: str) -> AsyncIterator[RedisHot]:
    hot = await RedisHot.open(place)
    try:
        yield hot
    finally:
        await hot.close()


@asynccontextmanager
async def strained(place: str) -> AsyncIterator[Strain]:
    """Under strain, and well; in a namespace of its own."""
    async with opened(f"{place}?namespace={secrets.token_hex(4)}") as hot:
        strain = Strain(hot)
        async with hot.listen(strain.hear):
            await wait_until(strain.whole, description="all is well")
            yield strain


def flipped(content: bytes) -> bytes:
    """The content with one bit changed."""
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


Change = Callable[[servers.Redis], None]
SERVER_FAULTS: dict[str, tuple[Change, Change]] = {
    "killed": (lambda server: server.process.kill(), lambda server: server.process.start()),
    "restarted": (servers.Redis.restart, lambda server: None),
    "flushed": (servers.Redis.flush, lambda server: None),
    "full": (servers.Redis.fill, servers.Redis.empty),
    "a replica": (lambda server: server.follow(1), servers.Redis.lead),
    "paused": (lambda server: server.process.pause(), lambda server: server.process.resume()),
    "forgets its scripts": (lambda server: server.do("SCRIPT", "FLUSH"), lambda server: None),
    "closes every connection": (lambda server: server.do("CLIENT", "KILL", "SKIPME", "yes"), lambda server: None),
}
FELT = {"killed", "full", "a replica", "paused"}


@pytest.mark.parametrize("fault", SERVER_FAULTS)
async def test_a_server_that_fails_costs_pieces_and_hints(fault: str, server: servers.Redis):
    """P10, Hot 2, 3 and 5: `Unavailable` in time or lost pieces, never a wrong prefix; then all is well by itself."""
    begin, end = SERVER_FAULTS[fault]
    async with strained(server.url) as strain:
        begin(server)
        try:
            for _ in range(100):
                await strain.round()
        finally:
            end(server)
        assert ("unavailable" in strain.answers[-100:]) or fault not in FELT
        await wait_until(strain.whole, description=f"all is well after the server was {fault}")


WIRE_FAULTS: dict[str, WireFault] = {
    "slow": Delay(latency=timedelta(seconds=2)),
    "a little slow": Delay(latency=timedelta(milliseconds=20)),
    "narrow": Throttle(bytes_per_second=5000),
    "refused": Refuse(),
    "a black hole": BlackHole(),
    "without replies": DropReplies(),
    "cut in a reply": Cut(after=7),
    "cut after some": Cut(after=1000),
    "closed after some": Cut(after=700, how="finish"),
}


@pytest.mark.parametrize("fault", WIRE_FAULTS)
async def test_a_wire_that_fails_costs_pieces_and_hints(fault: str, proxy: FaultProxy):
    """P10, Hot 2, 3 and 5, with the same words; a connection that was cut is made again."""
    async with strained(url(proxy)) as strain:
        await proxy.switch(WIRE_FAULTS[fault])
        if fault == "refused":
            proxy.abort()
        for _ in range(20):
            await strain.round()
        await proxy.switch(Pass())
        await wait_until(strain.whole, description=f"all is well after the wire was {fault}")


async def test_connections_that_are_cut_anywhere_cost_nothing_but_pieces(server: servers.Redis):
    """What was on a broken connection is sent once more: it may have arrived, and arrives once."""

    async def cut(places: Sequence[int]) -> int:
        async with FaultProxy(server.address) as proxy, strained(url(proxy)) as strain:
            for after in places:
                await proxy.switch(Pass())
                await wait_until(strain.whole, description="all is well")
                await proxy.switch(Cut(after=after))
                await strain.round()
                await strain.round()
            await proxy.switch(Pass())
            await wait_until(strain.whole, description="all is well")
            return proxy.counts.cut

    # Four wires at once: most of the time goes into waiting until each is made again.
    everywhere = range(0, 400, 7)
    assert sum(await asyncio.gather(*(cut(everywhere[first::4]) for first in range(4)))) > 50


async def test_a_server_that_does_not_answer_is_left_alone(server: servers.Redis):
    """After failures in a row, calls fail at once; one in a while tries, and pays for the others."""
    async with strained(server.url) as strain, opened(server.url) as hot:
        await hot.read(session())
        server.process.pause()
        try:
            took = []
            for _ in range(20):
                began = time.monotonic()
                with pytest.raises(Unavailable):
                    await hot.read(session())
                took.append(time.monotonic() - began)
            assert max(took) < PROMISED_SECONDS + SLACK_SECONDS
            assert sum(one > AT_ONCE_SECONDS for one in took) <= 5
        finally:
            server.process.resume()
        await wait_until(strain.whole, description="all is well")


async def test_nobody_has_to_be_there(proxy: FaultProxy):
    """P10: a fleet starts without its hot tier, and uses it when it comes."""
    await proxy.switch(Refuse())
    async with opened(url(proxy)) as hot:
        heard: list[Hint] = []
        async with hot.listen(heard.append):
            with pytest.raises(Unavailable) as error:
                await publish(hot, session(7), 1, [])
            assert error.value.outcome == "not_applied"
            await proxy.switch(Pass())

            async def hears() -> bool:
                try:
                    await hot.tell([Hint("acme", "s")])
                except Unavailable:
                    return False
                return bool(heard)

            await wait_until(hears, description="the hint is heard")


async def test_a_server_that_became_a_replica_is_left_for_the_primary(proxy: FaultProxy, server: servers.Redis):
    """Fail-over behind a name: the connection is fine, and leads to the wrong one. It is made again."""
    with servers.running() as promoted:
        async with strained(url(proxy)) as strain:
            server.follow(promoted.port)
            try:
                proxy.targets = [promoted.address]
                await wait_until(strain.whole, description="all is well")
                assert promoted.do("DBSIZE") == 1
            finally:
                server.lead()


async def test_an_ear_that_hears_nothing_is_replaced(proxy: FaultProxy):
    """A wire that is dead looks like silence: the ear asks whether somebody is there, and then dials again."""
    async with opened(url(proxy)) as hot:
        heard: list[Hint] = []
        async with hot.listen(heard.append):
            await hot.tell([Hint("acme", "s")])
            await wait_until(lambda: heard, description="the hint is heard")
            accepted = proxy.counts.accepted
            await proxy.switch(BlackHole())
            await wait_until(lambda: proxy.counts.accepted > accepted, description="the ear dials again")


async def test_a_zombie_is_refused_after_it_was_cut_off(proxy: FaultProxy, server: servers.Redis):
    """P4: what a zombie sends again after its connection broke is refused like anything else."""
    async with opened(url(proxy)) as zombie, opened(server.url) as heir:
        await zombie.fence(session(3), 1)
        proxy.abort()
        await heir.fence(session(3), 2)
        with pytest.raises(LeaseLost):
            await publish(zombie, session(3), 1, [])


async def test_a_reply_is_never_somebody_elses(proxy: FaultProxy):
    """Callers that are cancelled at any moment leave nothing behind in the pipe (redis-py #2624, #2665)."""
    async with opened(url(proxy)) as hot:
        refs = [session(n) for n in range(1, 9)]
        for n, ref in enumerate(refs):
            await publish(hot, ref, 1, [Piece(n, 0, 1, "msg", field="text", delta="x")])
        mismatches = cancelled = 0
        for turn in range(70):
            reading = [asyncio.create_task(hot.read(ref)) for ref in refs]
            for _ in range(turn % 7):
                await asyncio.sleep(0)
            for task in reading[turn % 3 :: 3]:
                cancelled += task.cancel()
            for n, found in enumerate(await asyncio.gather(*reading, return_exceptions=True)):
                if isinstance(found, asyncio.CancelledError):
                    continue
                mismatches += not isinstance(found, OpenStep) or found.base != n
        assert mismatches == 0 and cancelled > 100


async def test_an_evicted_step_is_lost_as_a_whole(server: servers.Redis):
    """Hot 3: what follows is not returned, and the next step is."""
    async with opened(server.url) as hot:
        await publish(hot, session(4), 1, [Piece(3, 0, 2, "msg", field="text", delta="he")])
        server.do("DEL", f"dalsegno:{{acme/{session(4).id}}}:step")
        await publish(hot, session(4), 1, [Piece(3, 2, 2, "msg", field="text", delta="llo")])
        assert await hot.read(session(4)) is None
        await publish(hot, session(4), 1, [Piece(4, 0, 2, "msg", field="text", delta="x")])
        assert await hot.read(session(4)) is not None


@pytest.mark.parametrize(
    "damage", [("SET", "x"), ("XADD", "9-9", "state", "x"), ("XADD", "9-9", "state", b"\x01\x01\x03\x01", "piece", "x")]
)
async def test_damage_is_as_good_as_loss(server: servers.Redis, damage: tuple[str, ...]):
    """P9, P10: what is not understood is never shown."""
    async with opened(server.url) as hot:
        key = f"dalsegno:{{acme/{session(5).id}}}:step"
        server.do("DEL", key)
        server.do(damage[0], key, *damage[1:])
        try:
            assert await hot.read(session(5)) is None
        except Unavailable as error:
            assert error.outcome == "not_applied"
        assert await hot.read(session(6)) is None


DAMAGED: dict[str, tuple[str | bytes, ...]] = {
    "of another type": ("SET", "x"),
    "no version": ("HSET", "is:context", "x", "has:context", b"x"),
    "no content": ("HSET", "is:context", "7 99999999999999"),
    "no frame": ("HSET", "is:context", "7 99999999999999", "has:context", b"x"),
    "a bit of it": ("HSET", "is:context", "7 99999999999999", "has:context", zstd.compress(b"x" * 99)[:-1]),
    "a flipped bit": (
        "HSET",
        "is:context",
        "7 99999999999999",
        "has:context",
        flipped(zstd.compress(b"abc" * 99, options=FRAME)),
    ),
    "a huge one": ("HSET", "is:context", "7 99999999999999", "has:context", zstd.compress(bytes(9 * 2**20))),
}


@pytest.mark.parametrize("damage", DAMAGED)
async def test_a_damaged_entry_is_as_good_as_lost(server: servers.Redis, damage: str):
    """Cache 1: whole, or nothing."""
    command, *values = DAMAGED[damage]
    async with opened(server.url) as hot:
        server.do(command, f"dalsegno:{{acme/{session(5).id}}}:cache", *values)
        try:
            assert await hot.get(session(5), "context") is None
        except Unavailable as error:
            assert error.outcome == "not_applied"


@pytest.mark.parametrize("fault", SERVER_FAULTS)
async def test_what_is_kept_near_may_be_lost_and_never_takes_long(fault: str, server: servers.Redis):
    """P10, Cache 1, 2 and 5: `Unavailable` in time or nothing, never another content; then all is well by itself."""
    begin, end = SERVER_FAULTS[fault]
    async with opened(server.url) as hot:
        answers: list[str] = []
        version = 0

        async def round() -> bool:
            nonlocal version
            version += 1
            began, before = time.monotonic(), len(answers)
            with suppress(Unavailable):
                await hot.put(session(), "context", version, b"%d" % version, keep=timedelta(minutes=1))
                answers.append("put")
            with suppress(Unavailable):
                found = await hot.get(session(), "context")
                assert found is None or found[1] == b"%d" % found[0]
                assert found is None or found[0] <= version
                answers.append("got" if found is not None and found[0] == version else "lost")
            assert time.monotonic() - began < 2 * (PROMISED_SECONDS + SLACK_SECONDS)
            return answers[before:] == ["put", "got"]

        await wait_until(round, description="all is well")
        begin(server)
        try:
            for _ in range(30):
                await round()
        finally:
            end(server)
        assert (len(answers) < 60) or fault not in FELT
        await wait_until(round, description=f"all is well after the server was {fault}")


async def test_a_full_server_can_be_fenced_and_cleared(server: servers.Redis):
    """P4: a zombie is refused later on, too; and what is not needed any more makes room."""
    async with opened(server.url) as hot:
        await publish(hot, session(8), 1, [Piece(3, 0, 2, "msg", field="text", delta="x")])
        server.fill()
        try:
            with pytest.raises(Unavailable):
                await publish(hot, session(8), 1, [Piece(3, 1, 2, "msg", field="text", delta="y")])
            shown = await hot.fence(session(8), 2)
            assert shown is not None and len(shown.pieces) == 1
            await hot.clear(session(8), 2)
        finally:
            server.empty()
        assert await hot.read(session(8)) is None
        with pytest.raises(LeaseLost):
            await publish(hot, session(8), 1, [])


async def test_a_cluster_goes_on_without_one_of_its_servers():
    """P10: the sessions of the others are served in time, those of the lost one are unavailable; slots may move."""
    with servers.cluster() as cluster:
        async with opened(cluster.url) as hot:
            refs = [session(n) for n in range(40)]
            for ref in refs:
                await publish(hot, ref, 1, [Piece(3, 0, 2, "msg", field="text", delta="x")])
            # A session that nobody has heard of: its slot is empty and can simply be given away.
            server = cluster.servers[0]
            ref = session(99)
            slot = server.do("CLUSTER", "KEYSLOT", f"dalsegno:{{acme/{ref.id}}}:step")
            for _ in range(2):
                assert await hot.read(ref) is None
                cluster.move(slot)
            assert await hot.read(ref) is None
            cluster.servers[1].process.kill()
            served, took = 0, 0.0
            for ref in refs:
                began = time.monotonic()
                with suppress(Unavailable):
                    served += await hot.read(ref) is not None
                took = max(took, time.monotonic() - began)
            assert took < PROMISED_SECONDS + SLACK_SECONDS
            assert 0 < served < len(refs)


async def test_a_promoted_replica_takes_over():
    """P10: Redis fails over; calls are answered in time all the while, and then all is well by itself."""
    with servers.sentinels() as watched:
        async with strained(watched.url) as strain:
            old = watched.primary_port()
            watched.primary.process.kill()

            async def goes_on() -> bool:
                await strain.round()
                return watched.primary_port() != old

            await wait_until(goes_on, description="the replica is promoted", timeout=30)
            await wait_until(strain.whole, description="all is well", timeout=20)
