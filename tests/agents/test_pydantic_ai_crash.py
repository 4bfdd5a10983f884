"""A replica dies at every commit, at every effect and at every delta of a turn of a Pydantic AI agent: no answer on
record is asked for again, no effect doubles, and what the model was shown is what the log says.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count, pairwise
from typing import Any

import pytest
from msgspec.structs import replace
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

import dalsegno
from dalsegno.agents.pydantic_ai import PydanticAgent
from dalsegno.core import codec
from dalsegno.core.append import Write
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import Event
from dalsegno.core.stream import Piece
from dalsegno.errors import LeaseLost
from dalsegno.testing.model import Answer, Hold, ModelServer, Thought, To, ToolCall, by_round, by_words
from tests.agents.pydantic_world import wire
from tests.runtime.fleet import Fleet, fleet, streamed
from tests.support import wait_until

CALLS = (ToolCall("look", {"at": "tea"}), ToolCall("pay", {"cents": 300}), ToolCall("mail", {"to": "Ada"}))
SCRIPT = by_words(
    {
        "go": by_round(
            Answer((Thought("All three."), "One moment.", *CALLS)),
            Answer((ToolCall("pay", {"cents": -1}),)),
            lambda shown: f"Done: {len(shown.results)}.",
        )
    }
)
ROUNDS = 3
OUTPUT = "function_call_output"
COMMITS = ("committing", "committed")
COMMITS_LEAST = 4
"""Of a turn; when they are slow, there are fewer of them, and each has more to write."""


class Shop:
    """An agent with a tool of each class, what its tools did, and the places where a replica may die."""

    def __init__(self, place: str, model: Model) -> None:
        self.place = place
        self.model = model
        self.passed: list[str] = []
        self.reached = asyncio.Event()
        self.ended = asyncio.Event()
        """The turn came to its end here, and never passed the place: when commits are slow, there are fewer of them."""
        self.dead = asyncio.Event()
        self.tried: Counter[str] = Counter()
        self.paid: set[str] = set()
        self.agent = self._make()

    async def passing(self, place: str) -> None:
        """One more place; at the one that was named the replica gets no further."""
        self.passed.append(place)
        if f"{place}#{self.passed.count(place)}" == self.place and not self.reached.is_set():
            self.reached.set()
            await self.dead.wait()
            raise LeaseLost

    def _make(self) -> Agent[Any, Any]:
        agent = Agent(self.model, instructions="Sell.", retries=2)

        @agent.tool_plain
        @dalsegno.tool("read")
        async def look(at: str) -> str:
            await self.passing("looking")
            return f"{at} is there"

        @agent.tool_plain(metadata={"dalsegno": {"effect": "keyed"}})
        async def pay(cents: int) -> dict[str, Any]:
            self.tried["pay"] += 1
            if cents < 0:
                raise ModelRetry("more than nothing")
            await self.passing("paying")
            self.paid.add(dalsegno.current_call().key)
            await self.passing("paid")
            return {"paid": cents}

        @agent.tool_plain
        async def mail(to: str) -> str:
            await self.passing("mailing")
            self.tried["mail"] += 1
            await self.passing("mailed")
            return f"wrote to {to}"

        return agent

    def sabotage(self, world: Fleet) -> None:
        """The first replica's commits are places, before and after each."""
        log = world.ones[0].warm
        commit = log.commit

        async def counted(*args: Any, **named: Any) -> Any:
            await self.passing("committing")
            decision = await commit(*args, **named)
            await self.passing("committed")
            if isinstance(decision, Write) and any(event.type == "turn.completed" for event in decision.events):
                self.ended.set()
            return decision

        log.commit = counted  # type: ignore[method-assign]


class Reader:
    """Somebody who follows the session on the replica that lives."""

    def __init__(self, world: Fleet, ref: Any) -> None:
        self._frames: list[Any] = []
        self._task = asyncio.ensure_future(self._read(world, ref))

    def has(self, number: int, at: int, hold: Hold) -> bool:
        """Whether the answer of that round stands still, and they have seen something of it, if there is anything.
        Of those before it they may have seen nothing but the end.
        """
        told = [frame.what for frame in self._frames]
        events = [what for what in told if isinstance(what, Event)]
        items = [codec.decode(event).item["type"] for event in events if event.type == "item.done"]  # type: ignore[union-attr]
        rounds = sum(after == OUTPUT != before for before, after in pairwise(items))
        seen = any(isinstance(what, Piece) and what.base == events[-1].seq and what.delta for what in told)
        return hold.is_reached and (at < 2 or (rounds == number and seen))

    async def agrees(self, turn: Any) -> None:
        """They were shown what is in the log, without a gap and without a repetition."""
        await wait_until(self._ended, description="the reader to see the end")
        self._task.cancel()
        told = streamed(self._frames)
        for item in turn.output:
            if item["type"] in ("message", "reasoning") and item["id"] in told:
                assert told[item["id"]] == "".join(part["text"] for part in item["content"])

    def _ended(self) -> bool:
        return any(isinstance(frame.what, Event) and frame.what.type == "turn.completed" for frame in self._frames)

    async def _read(self, world: Fleet, ref: Any) -> None:
        stream = await world.any.follow(ref, after=Cursor(1))
        async for frame in stream:
            self._frames.append(frame)


@asynccontextmanager
async def shop(place: str, asked: Model) -> AsyncIterator[tuple[Fleet, Shop, Any]]:
    sold = Shop(place, asked)
    async with fleet(PydanticAgent(sold.agent).run, count=2) as world:
        ref = await world.session()
        sold.sabotage(world)
        yield world, sold, ref


async def goes_on(world: Fleet, sold: Shop, ref: Any, model: ModelServer, *, died: Any) -> Any:
    """The turn, once the replica has died where it was to, and the checks that hold wherever that is."""
    talk = asyncio.ensure_future(world.say(ref, "go", key="k"))
    await wait_until(lambda: died() or (talk.done() and talk.exception()), description="the place where it dies")
    asked = len(model.log.entries)
    answers = len({data.step for data in await world.data(ref, "item.done") if (data.step or "").startswith("model")})
    await world.ones[0].warm.close()
    sold.dead.set()
    await world.kill()
    model.calm()
    talk.cancel()
    await asyncio.wait([talk])
    receipt = await world.say(ref, "go", key="k")
    turn = await world.end_of(ref, receipt)
    assert turn.status == "completed", turn.error
    assert not model.log.refusals
    # nothing on record is asked for again
    rounds = [shown.round for shown in model.log.shown[asked:]]
    assert all(number >= answers for number in rounds), (answers, rounds)
    assert len(model.log.entries) <= ROUNDS + 1
    # no effect doubles
    assert len(sold.paid) == 1
    assert sold.tried["mail"] <= 1
    outputs = [item["output"] for item in turn.output if item["type"] == "function_call_output"]
    assert sold.tried["mail"] == 1 or any("unknown" in output for output in outputs)
    # what the model was shown, by whichever replica, is what the log says: the same of one who was asked twice, and the
    # beginning of what the next turn is shown (where its thoughts of past turns are left out)
    sent: dict[int, Any] = {}
    for before, request in zip(model.log.shown, wire(model), strict=True):
        assert sent.setdefault(before.round, request) == request
    await world.ask(ref, "thanks")
    *shown, last = [[replace(said, thought="") for said in before.messages] for before in model.log.shown]
    for messages in shown:
        assert last[: len(messages)] == messages
    return turn


@pytest.fixture
def asked(model: ModelServer) -> Model:
    """The real client, for all replicas of a test."""
    model.script = SCRIPT
    return OpenAIChatModel("gpt-5", provider=OpenAIProvider(base_url=f"{model.url}/v1", api_key="none"))


@pytest.mark.parametrize("kind", [*COMMITS, "looking", "paying", "paid", "mailing", "mailed"])
async def test_at_every_commit_and_every_effect(model: ModelServer, asked: Model, kind: str) -> None:
    """Before and after each: at the first of its kind, at the second, and so on, until a turn ends without so many."""
    for number in count(1):
        model.log.clear()
        async with shop(f"{kind}#{number}", asked) as (world, sold, ref):
            over = (sold.reached, sold.ended)
            await goes_on(world, sold, ref, model, died=lambda over=over: any(event.is_set() for event in over))
            if not sold.reached.is_set():
                break
    assert number > (COMMITS_LEAST if kind in COMMITS else 1)


async def test_at_every_delta(model: ModelServer, asked: Model) -> None:
    """Of every answer: readers are shown one text without gap or repetition, across both replicas."""
    model.log.clear()
    async with shop("", asked) as (world, sold, ref):
        await world.ask(ref, "go")
        deltas = [entry.deltas for entry in model.log.entries]
    assert len(deltas) == ROUNDS
    assert sum(deltas) > 15
    carried = 0
    for number, said_in_all in enumerate(deltas):
        for at in range(said_in_all + 1):
            model.log.clear()
            async with shop("", asked) as (world, sold, ref):
                hold = model.hold(at, to=To(said="go", round=number))
                reader = Reader(world, ref)
                turn = await goes_on(world, sold, ref, model, died=partial(reader.has, number, at, hold))
                said = [item for item in turn.output if item["type"] in ("message", "reasoning")]
                assert [item["status"] for item in said] == ["completed"] * 3
                await reader.agrees(turn)
                carried += any(started.carried for started in await world.data(ref, "turn.started"))
    assert carried > sum(deltas) / 2
