"""The hot tier on Redis beyond its port: what it leaves on the server, who shares one, how little it asks for."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from functools import partial

import pytest
from redis.asyncio.connection import Connection

from dalsegno import stores
from dalsegno.core.stream import Piece
from dalsegno.errors import ConfigError, LeaseLost, Unavailable
from dalsegno.ports import Batch, Hint, OpenStep, Ref
from dalsegno.stores.redis import RedisHot
from dalsegno.stores.redis.dial import Dialler
from dalsegno.stores.redis.entries import NAMES_MAX
from dalsegno.stores.redis.line import Line
from dalsegno.stores.redis.place import Place, parse
from dalsegno.testing.conformance.acts import publish, session
from dalsegno.testing.servers import redis as servers
from tests.support import wait_until

PASSWORD = "open-sesame"


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Redis]:
    with servers.running() as server:
        yield server


@pytest.fixture
async def hot(server: servers.Redis) -> AsyncIterator[RedisHot]:
    server.flush()
    hot = await RedisHot.open(server.url)
    yield hot
    await hot.close()


def letters(text: str, *, base: int = 3) -> list[Piece]:
    return [Piece(base, n, 2, "msg", field="text", offset=n, delta=letter) for n, letter in enumerate(text)]


async def test_whatever_is_left_behind_expires_and_lies_together(server: servers.Redis, hot: RedisHot):
    """Hot 4, after each kind of call; all that a session has is in one slot of a cluster."""
    acts = (
        hot.fence(session(), 1),
        publish(hot, session(), 1, []),
        publish(hot, session(), 1, letters("hello")),
        publish(hot, session(), 2, letters("anew")),
        hot.clear(session(), 2),
        hot.clear(session(2), 1),
        hot.read(session(3)),
    )
    for act in acts:
        await act
        for key in server.do("KEYS", "*"):
            assert 0 < server.do("PTTL", key) <= 600_000
            assert f"{{acme/{session().id}}}".encode() in key


async def test_what_nobody_waits_for_is_not_sent(server: servers.Redis):
    """Who has left is passed over; when all have, nothing is written, not even an empty piece: asyncio's transport of
    Python 3.12 and 3.13 would try to get rid of that for ever.
    """
    sent: list[bytes] = []
    dialler = Dialler(parse(server.url))

    async def dial() -> Connection:
        connection = await dialler.first()
        send = connection.send_packed_command

        async def noted(command: bytes, check_health: bool = True) -> None:
            sent.append(command)
            await send(command, check_health)

        connection.send_packed_command = noted  # type: ignore[method-assign, assignment]
        return connection

    line = Line(dial)
    assert await line.ask("ECHO", "heard") == b"heard"
    line.ask("ECHO", "in vain").cancel()
    assert line._exchanging is not None
    await line._exchanging
    assert await line.ask("ECHO", "and on") == b"and on"
    assert sent == [b"*2\r\n$4\r\nECHO\r\n$5\r\nheard\r\n", b"*2\r\n$4\r\nECHO\r\n$6\r\nand on\r\n"]
    await line.close()


async def test_what_is_kept_near_expires_and_lies_together(server: servers.Redis, hot: RedisHot):
    """Cache 3, after each kind of call: one key a session, in the slot of everything else that it has."""
    minute = timedelta(minutes=1)
    acts = (
        hot.put(session(), "context", 3, b"x", keep=minute),
        hot.put(session(), "context", 2, b"x", keep=10 * minute),
        hot.put(session(), "other", 1, b"x", keep=2 * minute),
        hot.get(session(), "context"),
        hot.forget(session()),
        hot.put(session(), "context", 4, b"x", keep=minute),
    )
    lived = []
    for act in acts:
        await act
        (key,) = server.do("KEYS", "*")
        assert f"{{acme/{session().id}}}".encode() in key
        lived.append(round(server.do("PTTL", key) / 60_000))
    assert lived == [1, 1, 2, 2, 10, 10]
    assert server.do("HKEYS", server.do("KEYS", "*")[0]) == [b"forgotten"]


async def test_names_are_bounded(server: servers.Redis, hot: RedisHot):
    """Law 12: whoever puts under ever new names loses the old ones, and the key does not grow."""
    for n in range(200):
        await hot.put(session(), f"name {n}", 1, b"x", keep=timedelta(minutes=1))
    (key,) = server.do("KEYS", "*")
    assert server.do("HLEN", key) <= 2 * NAMES_MAX
    assert await hot.get(session(), "name 199") == (1, b"x")


async def test_large_entries_are_compressed_or_left_out(server: servers.Redis, hot: RedisHot):
    """At most 512 KiB of a server's memory for an entry; what is larger is not kept, and what was there stays."""
    words = b"it is said again and again; " * 100_000
    await hot.put(session(), "context", 1, words, keep=timedelta(minutes=1))
    assert await hot.get(session(), "context") == (1, words)
    (key,) = server.do("KEYS", "*")
    assert server.do("MEMORY", "USAGE", key) < 10_000
    for size in (600 * 1024, 9 * 1024 * 1024):
        await hot.put(session(), "context", 2, random.Random(1).randbytes(size), keep=timedelta(minutes=1))
    assert await hot.get(session(), "context") == (1, words)


async def test_what_is_large_stands_in_nobodys_way(server: servers.Redis, hot: RedisHot):
    """What is kept near goes over a connection of its own, which is made when it is needed."""
    await publish(hot, session(), 1, letters("x"))
    before = server.do("CLIENT", "LIST").count(b"\n")
    await hot.put(session(), "context", 1, b"x", keep=timedelta(minutes=1))
    assert server.do("CLIENT", "LIST").count(b"\n") == before + 1


async def test_fleets_that_share_a_server_do_not_hear_each_other(server: servers.Redis):
    """A namespace or a database is a fleet's own: its sessions, fences and hints."""
    places = [server.url, f"{server.url}?namespace=other", server.url.removesuffix("0") + "1"]
    hots = [await RedisHot.open(place) for place in places]
    heard: list[list[Hint]] = [[], [], []]
    ears = [hot.listen(ear.append) for hot, ear in zip(hots, heard, strict=True)]
    for ear in ears:
        await ear.__aenter__()
    for n, hot in enumerate(hots):
        await hot.fence(session(), 9 - n)
        await publish(hot, session(), 9 - n, letters("abc"[n]))
        await hot.tell([Hint("acme", f"s{n}")])
    for n, hot in enumerate(hots):
        assert await hot.read(session()) == OpenStep(3, 9 - n, tuple(letters("abc"[n])))
        await wait_until(partial(heard.__getitem__, n), description="each hears itself")
    assert heard == [[Hint("acme", f"s{n}")] for n in range(3)]
    for ear, hot in zip(ears, hots, strict=True):
        await ear.__aexit__(None, None, None)
        await hot.close()


async def test_many_calls_are_few_exchanges_on_one_connection(server: servers.Redis, hot: RedisHot):
    """What is asked while an exchange is under way leaves together in the next."""
    await publish(hot, session(999), 1, letters("x"))
    before = server.do("INFO", "stats"), server.do("CLIENT", "LIST").count(b"\n")
    await asyncio.gather(*(publish(hot, session(n), 1, letters("hello")) for n in range(200)))
    assert server.do("CLIENT", "LIST").count(b"\n") == before[1] == 2
    reads = [int(_stat(stats, "total_reads_processed")) for stats in (before[0], server.do("INFO", "stats"))]
    assert reads[1] - reads[0] < 40
    found = await asyncio.gather(*(hot.read(session(n)) for n in range(200)))
    assert all(step == OpenStep(3, 1, tuple(letters("hello"))) for step in found)


async def test_hints_said_at_once_are_one_message(server: servers.Redis, hot: RedisHot):
    """Whoever listens is woken once."""
    heard: list[Hint] = []
    async with hot.listen(heard.append):
        said = [Hint("acme", f"s{n}", n) for n in range(300)]
        before = int(_calls(server.do("INFO", "commandstats"), "publish"))
        await hot.tell(said)
        await wait_until(lambda: len(heard) == 300, description="all is heard")
        assert heard == said
        assert int(_calls(server.do("INFO", "commandstats"), "publish")) == before + 1


async def test_what_is_no_hint_is_not_heard(server: servers.Redis, hot: RedisHot):
    """Another version's message, or nobody's, is passed over."""
    heard: list[Hint] = []
    async with hot.listen(heard.append):
        server.do("PUBLISH", "dalsegno:0:hints:0", b"\xc1")
        await hot.tell([Hint("acme", "s")])
        await wait_until(lambda: heard, description="the hint is heard")


async def test_much_at_once_is_kept_in_order(hot: RedisHot):
    """More pieces than a script takes at once; and a repetition of them all changes nothing."""
    step = letters("x" * 2300)
    for _ in range(2):
        await publish(hot, session(), 1, step)
        assert await hot.read(session()) == OpenStep(3, 1, tuple(step))
    assert await hot.read(session(), base=3, after=1777) == OpenStep(3, 1, tuple(step[1777:]))
    await hot.fence(session(), 2)
    with pytest.raises(LeaseLost):
        await publish(hot, session(), 1, letters("x" * 2400))


async def test_of_many_steps_much_is_kept_at_once(server: servers.Redis, hot: RedisHot):
    """One script for as many sessions as go in; those that are cut into several calls are whole, too."""
    said = {session(n): letters("x" * length) for n, length in enumerate((1, 499, 1, 1300, 0, 2, 700))}
    before = int(_calls(server.do("INFO", "commandstats"), "evalsha"))
    assert await hot.publish([Batch(ref, 1, pieces) for ref, pieces in said.items()]) == {}
    assert int(_calls(server.do("INFO", "commandstats"), "evalsha")) == before + 6, "2503 pieces, 500 in each"
    for ref, pieces in said.items():
        assert await hot.read(ref) == (OpenStep(3, 1, tuple(pieces)) if pieces else None)


async def test_what_is_broken_breaks_nobody_elses(server: servers.Redis, hot: RedisHot):
    """Hot 6: where somebody else's key is in the way, that session's pieces are lost, and no others."""
    await publish(hot, session(2), 1, letters("x"))
    (key,) = server.do("KEYS", "*")
    server.do("SET", key, "nothing of ours")
    failed = await hot.publish([Batch(session(n), 1, letters("hello")) for n in (1, 2, 3)])
    assert list(failed) == [session(2)] and isinstance(failed[session(2)], Unavailable)
    for n in (1, 3):
        assert await hot.read(session(n)) == OpenStep(3, 1, tuple(letters("hello")))


async def test_a_step_is_bounded(server: servers.Redis, hot: RedisHot):
    """P10: what is over the bound is lost, and with it what follows; the next step has room again."""
    mebibyte = [Piece(3, n * 2**20, 2, "msg", field="text", delta="x" * 2**20) for n in range(9)]
    for piece in mebibyte:
        await publish(hot, session(), 1, [piece])
    kept = await hot.read(session())
    assert kept is not None and kept.pieces == tuple(mebibyte[:7])
    await publish(hot, session(), 1, letters("next", base=4))
    assert await hot.read(session()) == OpenStep(4, 1, tuple(letters("next", base=4)))


async def test_names_are_not_mixed_up(hot: RedisHot):
    """P11: whatever characters a tenant has in its name."""
    refs = [Ref(tenant, session().id) for tenant in ("a", "a}b", "{a", "a/b", "ü 𝄋", "a\nb")]
    for n, ref in enumerate(refs):
        await publish(hot, ref, n + 1, letters("x" * (n + 1)))
    for n, ref in enumerate(refs):
        assert await hot.read(ref) == OpenStep(3, n + 1, tuple(letters("x" * (n + 1))))


async def test_a_password_is_used_and_never_told(server: servers.Redis):
    """Wrong: the process does not start, and says why without saying it. Right: it works, also as a user."""
    server.do("ACL", "SETUSER", "fleet", "on", f">{PASSWORD}", "~*", "&*", "+@all")
    right = f"redis://fleet:{PASSWORD}@127.0.0.1:{server.port}/2"
    hot = await RedisHot.open(right)
    await publish(hot, session(), 1, letters("x"))
    await hot.close()
    server.do("ACL", "SETUSER", "fleet", "-eval", "-evalsha", "resetkeys", "~none")
    hot = await RedisHot.open(right)
    with pytest.raises(Unavailable) as refused:
        await hot.read(session())
    await hot.close()
    assert PASSWORD not in str(refused.value)
    with pytest.raises(ConfigError, match="password") as wrong:
        await RedisHot.open(right.replace(PASSWORD, PASSWORD + "!"))
    assert PASSWORD not in str(wrong.value)


async def test_a_url_opens_it(server: servers.Redis):
    """`DALSEGNO_HOT=redis://…`."""
    hot = await stores.open_hot(server.url)
    assert isinstance(hot, RedisHot)
    await stores.close(hot)


def test_urls_say_where_and_what():
    """One server, a cluster, sentinels; with TLS, a user, a database, a namespace."""
    assert parse("redis://localhost") == Place("single", (("localhost", 6379),), {})
    assert parse("rediss://u%40:p%3A%2F@h:1/3?namespace=n&ssl_ca_certs=/ca") == Place(
        "single",
        (("h", 1),),
        {"username": "u@", "password": "p:/", "ssl_ca_certs": "/ca"},
        tls=True,
        db=3,
        namespace="n",
    )
    assert parse("redis+cluster://:pw@a:1,b,[::1]:2") == Place(
        "cluster", (("a", 1), ("b", 6379), ("::1", 2)), {"password": "pw"}
    )
    assert parse("redis+sentinel://a,b:2/main/5") == Place("sentinel", (("a", 26379), ("b", 2)), {}, False, 5, "main")


@pytest.mark.parametrize(
    "rest",
    ["", "h:x", "h:99999", "a,b", "h/x", "h?timeout=3", "h?namespace=", "h?namespace={a}", ":6379"],
)
def test_a_url_that_says_nothing_is_a_configuration_error(rest: str):
    """The message lists the forms, and does not repeat a password."""
    with pytest.raises(ConfigError, match="redis\\+cluster") as error:
        parse(f"redis://u:{PASSWORD}@{rest}")
    assert PASSWORD not in str(error.value)


@pytest.mark.parametrize(
    "url", ["redis+sentinel://a,b", "redis+cluster://a/1", "redis+proxy://a", "redis:a", "http://a"]
)
def test_neither_is_one_of_another_kind(url: str):
    """Sentinels watch a service; a cluster has one database."""
    with pytest.raises(ConfigError):
        parse(url)


def _stat(info: bytes, name: str) -> bytes:
    return next(line.partition(b":")[2] for line in info.splitlines() if line.startswith(name.encode() + b":"))


def _calls(info: bytes, command: str) -> bytes:
    lines = (line for line in info.splitlines() if line.startswith(f"cmdstat_{command}:".encode()))
    return next(lines, b"x:calls=0,").partition(b"calls=")[2].partition(b",")[0]
