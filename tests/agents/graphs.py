"""Help for tests of the LangGraph adapter: graphs on a fleet in memory, against the scripted model."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from dalsegno.agents.langgraph import LangGraphAgent
from dalsegno.agents.langgraph.book import Book
from dalsegno.agents.langgraph.record import is_page
from dalsegno.agents.langgraph.saver import Checkpointer
from dalsegno.core.context import context
from dalsegno.core.input import Input
from dalsegno.ports import Ref
from dalsegno.testing.model import ModelServer, Script
from tests.agents.crashes import cut_off
from tests.runtime.fleet import Fleet, fleet

Wire = Literal["chat", "responses", "messages"]
WIRES: list[Wire] = ["chat", "responses", "messages"]


def model_of(server: ModelServer, wire: Wire = "chat") -> BaseChatModel:
    """A chat model of LangChain's, with the provider's real client."""
    if wire == "messages":
        return ChatAnthropic(
            model_name="claude-test",
            base_url=server.url,
            api_key=SecretStr("none"),
            max_retries=0,
            timeout=None,
            stop=None,
        )
    return ChatOpenAI(
        model="gpt-test",
        base_url=f"{server.url}/v1",
        api_key=SecretStr("none"),
        max_retries=0,
        use_responses_api=wire == "responses",
    )


class Stage:
    """A scripted model, and a fleet that serves one graph."""

    def __init__(self, server: ModelServer, world: Fleet, ref: Ref) -> None:
        self.server = server
        self.world = world
        self.ref = ref

    async def ask(self, text: str) -> Any:
        """The turn, once it has ended or waits. Whatever happens, the provider has taken every context."""
        turn = await self.world.ask(self.ref, text)
        assert not self.server.log.refusals
        return turn

    async def answer(self, said: Input) -> Any:
        """The waiting turn, once it has ended or waits again."""
        return await self.world.end_of(self.ref, await self.world.say(self.ref, said))

    async def items(self) -> list[Any]:
        """What a model would be shown now."""
        return list(context(await self.world.log(self.ref), session=self.ref.id).items)

    async def outputs(self) -> list[str]:
        """What tools came to."""
        return [item["output"] for item in await self.items() if item["type"] == "function_call_output"]

    @property
    def asked(self) -> int:
        """How often a model was asked."""
        return len(self.server.log.entries)


@asynccontextmanager
async def stage(
    script: Script, make: Any, *, wire: Wire = "chat", around: Callable[[Any], Any] = lambda run: run
) -> AsyncIterator[Stage]:
    """`make` gives the graph for a model, or a `LangGraphAgent`; `around` what is served of its `run`."""
    async with ModelServer(script) as server:
        made = make(model_of(server, wire))
        served = made if isinstance(made, LangGraphAgent) else LangGraphAgent(made)
        async with fleet(around(served.run)) as world:
            yield Stage(server, world, await world.session())


def said(turn: Any) -> str:
    """The text of a turn's messages."""
    texts = [part["text"] for item in turn.output if item["type"] == "message" for part in item["content"]]
    return " ".join(texts)


class Written:
    """A session's log in the store of a fleet, for a book that only reads."""

    def __init__(self, world: Fleet, ref: Ref) -> None:
        self._world = world
        self._ref = ref

    async def head(self) -> int:
        return len(await self._world.log(self._ref))

    async def read(self, after: int, limit: int) -> Any:
        events = (await self._world.log(self._ref))[after : after + limit]
        items = [(event.seq, json.loads(event.data)["item"]) for event in events if event.type == "item.done"]
        return [(seq, item) for seq, item in items if is_page(item)], events[-1].seq if events else after

    async def append(self, items: Any, *, expect: int) -> int:
        raise NotImplementedError


class OneThread:
    """The thread of that log."""

    def __init__(self, world: Fleet, ref: Ref) -> None:
        self._book = Book(Written(world, ref))

    def book(self, thread: str) -> Book:
        return self._book

    async def every(self) -> AsyncIterator[str]:
        yield ""

    async def delete(self, thread: str) -> None:
        raise NotImplementedError

    def name(self) -> str:
        return "reader"


async def state_of(world: Fleet, ref: Ref) -> Any:
    """The graph's state, as the log has it."""
    saver = Checkpointer(OneThread(world, ref))
    found = await saver.aget_tuple({"configurable": {"thread_id": ref.id}})
    assert found is not None
    return found.checkpoint["channel_values"]


async def cut(
    server: ModelServer, agent: Callable[[], LangGraphAgent], at: int, *, until: Callable[[list[Any]], Any] = bool
) -> Any:
    """The replica dies when the model has said `at` deltas, and a reader on the other one has of it what `until` says;
    the reader follows from beginning to end.
    """
    world, ref, frames = await cut_off(server, lambda: agent().run, at, until=until)
    log, state = await world.log(ref), await state_of(world, ref)
    for one in world.ones:
        await one.replica.drain()
        await one.replica.stop()
    return ref, log, frames, state


def told(found: Any) -> list[tuple[str, str, list[str]]]:
    """Messages, as far as they are the conversation."""
    return [
        (message.type, str(message.text), [call["id"] for call in getattr(message, "tool_calls", [])])
        for message in found
    ]
