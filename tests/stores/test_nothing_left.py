"""Deletion provably erases: after it no tier holds a byte of what was said, looked at behind the stores' backs.

Log, keys, hot pieces, artifacts and archive, on real products. What is compressed is looked for by its name: nothing
else is left either.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

import obstore
import psycopg
import pytest
import redis
from obstore.store import S3Store

from dalsegno import stores
from dalsegno.agents.plain import FunctionAgent
from dalsegno.agents.tool import tool
from dalsegno.core.event import SessionCreated
from dalsegno.core.idle import Policy
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Message
from dalsegno.core.item import message
from dalsegno.core.part import ToolCall
from dalsegno.core.stream import Piece
from dalsegno.ops.ids import RandomIds
from dalsegno.ports import Member, Ref
from dalsegno.runtime.archivist import Archivist
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.replica import Replica
from dalsegno.runtime.service import Service
from dalsegno.runtime.shelf import with_shelf
from dalsegno.stores.bodies import unpacked
from dalsegno.testing.conformance.acts import publish
from dalsegno.testing.servers import redis as redis_servers
from dalsegno.testing.servers.objects import BUCKET, objects
from tests.support import wait_until

MARK = "marker-Q7xZp"
KEPT = "somebody else's"
AT_ONCE = Policy(archive_after=timedelta(0), sweep_after=timedelta(0))
Look = Callable[[], bytes]


@tool("read")
async def look_up(word: str) -> str:
    return (word + " ") * 6000


async def model(context):
    if context.items[-1]["type"] == "function_call_output":
        yield f"done: {context.items[-1]['output'][:20]}"
    else:
        yield ToolCall("look_up", {"word": context.items[-1]["content"][0]["text"]})


async def agent(turn: Turn) -> None:
    await turn.perform(await turn.generate(model, tools=[look_up]))
    await turn.generate(model)


class Place:
    """A replica on three URLs."""

    def __init__(self, replica: Replica, service: Service, archivist: Archivist) -> None:
        self.replica = replica
        self.service = service
        self.archivist = archivist

    async def session(self, word: str, key: str) -> Ref:
        """A session in which all was said with that word; it was archived, brought back, and archived again."""
        made = await self.service.create("acme", id=None, opening=SessionCreated("default", word, {"case": word}))
        ref = Ref("acme", made.id)
        for number in (1, 2):
            receipt = await self.service.admit(ref, Message(word), key=f"{key}-{number}")
            turn = await self.service.turn(ref, turn_id(ref.id, receipt.turn), wait=timedelta(seconds=10))
            assert turn.status == "completed"
            await self.walk()
        return ref

    async def walk(self) -> None:
        while not await self.archivist.go_on():
            pass
        assert self.archivist.tally.failed == 0


@asynccontextmanager
async def place(warm_url: str, hot_url: str, cold_url: str) -> AsyncIterator[Place]:
    inner, hot, cold = (
        await stores.open_warm(warm_url),
        await stores.open_hot(hot_url),
        await stores.open_cold(cold_url),
    )
    warm = with_shelf(inner, cold)
    replica = Replica(Member("i1", "r1"), {"default": FunctionAgent(agent)}, warm=warm, hot=hot, blobs=cold)
    await replica.start()
    try:
        service = Service(replica, warm=warm, blobs=cold, ids=RandomIds())
        yield Place(replica, service, Archivist(warm, cold, eraser=replica.eraser, policy=AT_ONCE, incarnation="i1"))
    finally:
        await replica.stop()
        for tier in (inner, hot, cold):
            await stores.close(tier)


async def gone(urls: tuple[str, str, str], looks: list[Look], names: Look) -> None:
    """Say things, see them in the tiers, delete, and see them no more; what others said stays."""
    async with place(*urls) as world:
        ref, other = await world.session(MARK, f"key-{MARK}"), await world.session(KEPT, "key")
        await world.service.events(ref, after=0, limit=1000)
        opened = message("", item_id="msg_1")
        pieces = [Piece(30, 0, 2, "msg_1", item=opened), Piece(30, 1, 2, "msg_1", field="text", delta=MARK * 10)]
        found = await world.service.get(ref)
        await publish(world.replica.hot, ref, found.epoch, pieces)
        step = await world.replica.hot.read(ref)
        assert step is not None and step.pieces
        assert b"".join(look() for look in looks).count(MARK.encode()) > 3
        assert ref.id in names().decode() and other.id in names().decode()
        await world.service.delete(ref)

        async def erased() -> bool:
            return await world.replica._warm.unerased(limit=1) == {}

        await wait_until(erased, description="the session counts as erased")
        step = await world.replica.hot.read(ref)
        assert step is None or not step.pieces
    left = b"".join(look() for look in looks)
    assert MARK.encode() not in left
    assert ref.id not in names().decode()
    assert KEPT.encode() in left and other.id in names().decode()


def folder_bytes(root: Path) -> bytes:
    return b"".join(file.read_bytes() for file in root.rglob("*") if file.is_file())


def folder_names(root: Path) -> bytes:
    return "\n".join(str(file) for file in root.rglob("*") if file.is_file()).encode()


def sqlite_bytes(path: Path) -> bytes:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return b"".join(file.read_bytes() for file in path.parent.glob(path.name + "*") if file.is_file())


async def test_nothing_is_left_in_a_file_and_a_folder(tmp_path: Path):
    """SQLite as log and as hot tier, a directory as cold one."""
    path, cold = tmp_path / "log.db", tmp_path / "cold"
    urls = (f"sqlite:///{path}", f"sqlite:///{path}", f"file://{cold}")
    await gone(urls, [lambda: sqlite_bytes(path), lambda: folder_bytes(cold)], lambda: folder_names(cold))


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[S3Store]:
    with objects(tmp_path) as server, pytest.MonkeyPatch.context() as environment:
        for name, value in server.environment.items():
            environment.setenv(name, value)
        yield S3Store(BUCKET, prefix="d", client_options={"allow_http": True})


async def test_nothing_is_left_in_a_database_and_a_bucket(database: str, bucket: S3Store):
    """PostgreSQL as log and as hot tier, an S3 bucket as cold one."""

    def names() -> bytes:
        return "\n".join(entry["path"] for page in obstore.list(bucket) for entry in page).encode()

    def contents() -> bytes:
        found = [entry["path"] for page in obstore.list(bucket) for entry in page]
        return b"".join(bytes(obstore.get(bucket, path).bytes()) for path in found)

    await gone((database, database, f"s3://{BUCKET}/d"), [lambda: tables(database), contents], names)


def tables(url: str) -> bytes:
    """Every row of every table; what is stored as a frame, unpacked."""
    with psycopg.connect(url) as raw:
        named = raw.execute("SELECT relname FROM pg_class WHERE relname LIKE 'dalsegno%' AND relkind = 'r'").fetchall()
        rows = [row for (table,) in named for row in raw.execute(f'SELECT * FROM "{table}"', binary=True)]
    return b"\n".join(_plain(value) for row in rows for value in row if value is not None)


def _plain(value: object) -> bytes:
    if not isinstance(value, bytes):
        return str(value).encode()
    return unpacked(value) if value.startswith(b"\x28\xb5\x2f\xfd") else value


async def test_nothing_is_left_in_redis(tmp_path: Path):
    """Redis as hot tier: no key's value has a word of it."""
    path, cold = tmp_path / "log.db", tmp_path / "cold"
    with redis_servers.running(next(iter(redis_servers.found().values()))) as server:
        looks = [lambda: sqlite_bytes(path), lambda: folder_bytes(cold), lambda: redis_bytes(server.url)]
        await gone((f"sqlite:///{path}", server.url, f"file://{cold}"), looks, lambda: folder_names(cold))


def redis_bytes(url: str) -> bytes:
    with redis.Redis.from_url(url) as raw:
        return b"\n".join(raw.dump(key) or b"" for key in raw.scan_iter())
