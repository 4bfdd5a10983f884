"""The turn that everything is measured with: a message of 200 bytes, one tool with a 2 KB result, an answer of 600
bytes.

The model answers at once, so what is left is ours. The content is hard to compress, so that no store can cheat.
"""

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from bench.content import ANSWER_BYTES, MESSAGE_BYTES, RESULT_BYTES, text
from dalsegno.agents.plain import FunctionAgent
from dalsegno.agents.tool import tool
from dalsegno.core.context import Context
from dalsegno.core.event import SessionCreated
from dalsegno.core.input import Message
from dalsegno.core.part import Part, ToolCall
from dalsegno.ops.loop import factory, steady
from dalsegno.ports import Call, Member, Ref
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.replica import Replica, Tuning
from dalsegno.runtime.service import Service
from dalsegno.stores import open_cold, open_hot, open_warm

R = TypeVar("R")
EVENTS_PER_TURN = 7
TUNING = Tuning(lease_ttl=timedelta(seconds=5))


@tool("keyed")
async def look_up(call: Call, order: str) -> str:
    """What a shop knows of an order."""
    return text(RESULT_BYTES)


async def model(context: Context) -> AsyncGenerator[Part, None]:
    """Calls the tool, then answers."""
    if context.items[-1]["type"] == "function_call_output":
        yield text(ANSWER_BYTES)
    else:
        yield ToolCall("look_up", {"order": text(20)})


async def agent(turn: Turn) -> None:
    """The plain loop."""
    while (reply := await turn.generate(model, tools=[look_up])).calls:
        await turn.perform(reply)


def run(work: Coroutine[object, object, R]) -> R:
    """On the loop that a replica runs on; what it is compared with runs there, too."""
    with asyncio.Runner(loop_factory=factory()) as runner:
        return runner.run(work)


class RandomIds:
    """Random names."""

    def session(self) -> str:
        """A session id."""
        return str(uuid.uuid4())

    def incarnation(self) -> str:
        """An incarnation."""
        return uuid.uuid4().hex


class Bench:
    """One replica on a store, without HTTP."""

    def __init__(self, replica: Replica, service: Service) -> None:
        self.replica = replica
        self.service = service

    async def session(self) -> Ref:
        """A new session."""
        made = await self.service.create("bench", id=None, opening=SessionCreated())
        return Ref("bench", made.id)

    async def turn(self, ref: Ref) -> None:
        """One turn, from the message to its end."""
        await self.service.admit(ref, Message(text(MESSAGE_BYTES)), key=f"{random.getrandbits(128):032x}")
        running = self.replica.running(ref)
        if running is not None:
            await running

    async def check(self, ref: Ref, *, turns: int) -> None:
        """Every turn completed, in as many events as it should: a failed turn is quick, and would flatter us."""
        session = await self.service.get(ref)
        expected = 1 + EVENTS_PER_TURN * turns
        notes = (session.head - expected) if session.summary else 0
        assert session.head - notes == expected, f"{session.head} events after {turns} turns"
        await self.check_end(ref)

    async def check_end(self, ref: Ref) -> None:
        """The last turn completed."""
        session = await self.service.get(ref)
        last = await self.service.events(ref, after=session.head - 1, limit=1)
        assert last[0].type == "turn.completed", last


@asynccontextmanager
async def bench(
    directory: Path,
    *,
    name: str = "r1",
    warm_url: str = "",
    hot_url: str = "",
    runs: Callable[[Turn], Awaitable[None]] = agent,
    tuning: Tuning = TUNING,
):
    """A replica on SQLite in a directory, as `dalsegno serve` without options has it; or on other tiers."""
    warm_url = warm_url or f"sqlite:////{directory}/bench.db"
    warm = await open_warm(warm_url)
    hot = await open_hot(hot_url or warm_url)
    blobs = await open_cold(f"file:///{directory}/cold")
    ids = RandomIds()
    replica = Replica(
        Member(ids.incarnation(), name),
        {"default": FunctionAgent(runs)},
        warm=warm,
        hot=hot,
        blobs=blobs,
        tuning=tuning,
    )
    await replica.start()
    steady()
    try:
        yield Bench(replica, Service(replica, warm=warm, blobs=blobs, ids=ids))
    finally:
        await replica.drain()
        await replica.stop()
        await warm.close()
