"""Replicas on one memory store, in one process, for tests of the runtime: start some, kill one, ask any of them."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from dalsegno.agents.plain import FunctionAgent
from dalsegno.core import codec
from dalsegno.core.admit import Receipt
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import Event, SessionCreated
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Input, Message
from dalsegno.core.stream import Dropped, Piece
from dalsegno.ports import Member, Ref
from dalsegno.runtime.replica import Replica, Tuning
from dalsegno.runtime.service import Service
from dalsegno.runtime.shelf import with_shelf
from dalsegno.stores.memory import MemoryBlobs, MemoryCache, MemoryDatabase, MemoryHot, MemoryLog

TENANT = "t"


class RandomIds:
    def session(self) -> str:
        return str(uuid.uuid4())

    def incarnation(self) -> str:
        return uuid.uuid4().hex


class One:
    """A replica and its service."""

    def __init__(self, fleet: "Fleet", name: str) -> None:
        self.incarnation = f"{name}-{uuid.uuid4().hex}"
        self.warm = MemoryLog(fleet.database)
        self.hot = MemoryHot(fleet.cache)
        self.blobs = MemoryBlobs(fleet.objects)
        self.shelf = with_shelf(self.warm, self.blobs)
        self.replica = Replica(
            Member(self.incarnation, name),
            {name: FunctionAgent(fleet.agent, name=name) for name in ("default", "other")},
            warm=self.shelf,
            hot=self.hot,
            blobs=self.blobs,
            tuning=fleet.tuning,
        )
        self.service = Service(self.replica, warm=self.shelf, blobs=self.blobs, ids=RandomIds())


async def _nowhere(*_: Any) -> Mapping[Ref, Any]:
    """Where a dead replica writes to the hot tier: a thread of its agent goes on for a moment, as none of a dead
    process does.
    """
    return {}


class Fleet:
    """Replicas that share a store. `agent` is what they all serve."""

    def __init__(self, agent, *, tuning: Tuning | None = None) -> None:
        self.agent = agent
        self.tuning = tuning or Tuning(bury_every=timedelta(milliseconds=10), drain_within=timedelta(seconds=5))
        self.database = MemoryDatabase()
        self.cache = MemoryCache()
        self.objects: dict[str, bytes] = {}
        self.ones: list[One] = []

    async def start(self, count: int = 1) -> None:
        for _ in range(count):
            one = One(self, f"r{len(self.ones) + 1}")
            await one.replica.start()
            self.ones.append(one)

    async def kill(self, place: int = 0) -> None:
        """As by kill -9: nothing of it writes any more, and the operating system tells the others."""
        one = self.ones.pop(place)
        await one.warm.close()
        hot: Any = one.hot
        hot.publish = hot.clear = _nowhere
        for task in list(one.replica._turns.values()):
            task.cancel()
        self.database.kill(one.incarnation)
        await one.replica.stop()

    @property
    def any(self) -> Any:
        return self.ones[-1].service

    async def session(self, agent: str = "default") -> Ref:
        made = await self.ones[0].service.create(TENANT, id=None, opening=SessionCreated(agent=agent))
        return Ref(TENANT, made.id)

    async def say(self, ref: Ref, said: Input | str, *, key: str | None = None, place: int = 0) -> Receipt:
        message = Message(said) if isinstance(said, str) else said
        return await self.ones[place].service.admit(ref, message, key=key)

    async def end_of(self, ref: Ref, receipt: Receipt) -> Any:
        """The turn once it has ended or waits for somebody."""
        return await self.any.turn(ref, turn_id(ref.id, receipt.turn), wait=timedelta(seconds=10))

    async def ask(self, ref: Ref, text: str) -> Any:
        return await self.end_of(ref, await self.say(ref, text))

    async def log(self, ref: Ref) -> Sequence[Event]:
        return await self.ones[-1].warm.read(ref, after=0, limit=10_000)

    async def types(self, ref: Ref) -> list[str]:
        return [event.type for event in await self.log(ref)]

    async def data(self, ref: Ref, kind: str) -> list[Any]:
        return [codec.decode(event) for event in await self.log(ref) if event.type == kind]

    async def frames(self, ref: Ref, receipt: Receipt, *, after: Cursor | None = None) -> list[Any]:
        """The turn's stream, to its end."""
        cursor = Cursor(receipt.seq - 1) if after is None else after
        stream = await self.any.follow(ref, after=cursor, turn=turn_id(ref.id, receipt.turn))
        try:
            return [frame async for frame in stream]
        finally:
            await stream.aclose()


@asynccontextmanager
async def fleet(agent, *, count: int = 1, tuning: Tuning | None = None) -> AsyncIterator[Fleet]:
    made = Fleet(agent, tuning=tuning)
    await made.start(count)
    try:
        yield made
    finally:
        for one in made.ones:
            await one.replica.drain()
            await one.replica.stop()


def streamed(frames: list[Any]) -> dict[str, str]:
    """What a reader has of each item, from its pieces alone; a gap or a repetition fails."""
    texts: dict[str, str] = {}
    for frame in frames:
        match frame.what:
            case Piece(item=None) as piece:
                assert len(texts[piece.item_id]) == piece.offset, "a gap, or a repetition"
                texts[piece.item_id] += piece.delta
            case Piece() as piece:
                texts[piece.item_id] = ""
            case Dropped() as dropped:
                del texts[dropped.item_id]
    return texts
