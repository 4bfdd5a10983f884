"""What is done inside a call, by an agent that is a tool: recorded as steps, and no part of the conversation."""

import asyncio
from typing import Any

import pytest

from dalsegno.agents.tool import tool
from dalsegno.core.context import context
from dalsegno.core.input import Message
from dalsegno.core.item import INSIDE
from dalsegno.core.part import ToolCall
from dalsegno.ports import Call, Tool
from dalsegno.runtime.handle import Turn
from tests.runtime.fleet import fleet
from tests.support import wait_until


class Nested:
    """An agent whose tool is an agent with a tool."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.asked: list[str] = []
        self.done = 0
        self.hangs = hangs

    async def __call__(self, turn: Turn) -> None:
        @tool("keyed")
        async def search(query: str) -> str:
            """Search."""
            self.done += 1
            return f"found {query}"

        async def run(call: Call) -> str:
            reply = await turn.generate(self.inner, tools=[search], name=f"model:{call.id}", inside=call.id)
            outputs = await turn.perform(reply)
            if self.hangs:
                self.hangs = False
                await asyncio.Event().wait()
            return f"{reply.text}, {outputs}"

        research = Tool("research", run, effect="read")
        while (reply := await turn.generate(self.outer, tools=[research])).calls:
            await turn.perform(reply)

    async def inner(self, shown):
        self.asked.append("inner")
        yield "I search"
        yield ToolCall("search", {"query": "x"}, "inner_call")

    async def outer(self, shown):
        self.asked.append("outer")
        if shown.items[-1]["type"] == "function_call_output":
            yield f"It says: {shown.items[-1]['output']}"
        else:
            yield ToolCall("research", {}, "outer_call")


async def test_it_is_recorded_beside_the_conversation():
    """Its items are in the log, inside the call; no model, no reader of the turn's output and no client has them."""
    agent = Nested()
    async with fleet(agent) as world:
        ref = await world.session()
        turn = await world.ask(ref, "go")
        assert [item["type"] for item in turn.output] == ["function_call", "function_call_output", "message"]
        assert turn.output[1]["output"] == "I search, ['found x']"
        log = await world.log(ref)
        assert [item["type"] for item in context(log, session=ref.id).items] == [
            "message",
            *[i["type"] for i in turn.output],
        ]
        inner = [data.item for data in await world.data(ref, "item.done") if data.item["type"] == INSIDE]
        assert {item["call_id"] for item in inner} == {"outer_call"}
        assert [item["item"]["type"] for item in inner] == ["message", "function_call", "function_call_output"]
        assert [intent.name for intent in await world.data(ref, "tool.intent")] == ["research", "search"]


async def test_a_successor_does_not_repeat_it():
    """The replica dies inside the call: what was recorded there is answered from the record."""
    agent = Nested(hangs=True)
    async with fleet(agent, count=2) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(lambda: agent.done and not agent.hangs, description="the inner tool to be done")
        await world.kill(0)
        turn = await world.end_of(ref, receipt)
        assert turn.status == "completed"
        assert agent.asked == ["outer", "inner", "outer"]
        assert agent.done == 1


@pytest.mark.parametrize("items", [None, 2])
async def test_the_opening_of_a_turn(items: int | None):
    """The context that a turn began with is the same in the middle of it, and in every attempt: its message is last."""
    seen = list[object]()

    async def answer(turn: Turn) -> None:
        seen.append(list(turn.opening.items))
        await turn.say("one moment")
        await turn.step("look", lambda: asyncio.sleep(0, "x"))
        assert list(turn.opening.items) == seen[-1]
        seen.append(list(turn.context.items))

    texts: list[Any] = [{"type": "message", "role": "user", "content": f"{n}"} for n in range(items or 0)]
    async with fleet(answer) as world:
        ref = await world.session()
        await world.ask(ref, "before")
        await world.end_of(ref, await world.say(ref, Message(items=texts) if items else Message("now")))
        assert seen[2] == [*seen[1], *seen[2][-(items or 1) :]]  # type: ignore[misc, index]
        assert seen[3][:-1] == seen[2]  # type: ignore[index]


async def test_calls_of_one_id_are_told_apart():
    """Two agents side by side whose models give their calls the same id: two calls, two keys, two effects."""
    keys = set[str]()

    @tool("keyed")
    async def search(call: Call) -> str:
        """Search."""
        keys.add(call.key)
        return "found"

    async def inner(shown):
        await asyncio.sleep(0)
        yield ToolCall("search", {}, "same")

    async def answer(turn: Turn) -> None:
        async def run(call: Call) -> str:
            reply = await turn.generate(inner, tools=[search], name=f"model:{call.id}", inside=call.id)
            return (await turn.perform(reply))[0]

        async def outer(shown):
            yield ToolCall("research", {}, "a")
            yield ToolCall("research", {}, "b")

        await turn.perform(await turn.generate(outer, tools=[Tool("research", run, effect="read")]))

    async with fleet(answer) as world:
        ref = await world.session()
        assert (await world.ask(ref, "go")).status == "completed"
        intents = [intent.call_id for intent in await world.data(ref, "tool.intent")]
        assert len(keys) == 2
        assert len(set(intents)) == len(intents) == 4
