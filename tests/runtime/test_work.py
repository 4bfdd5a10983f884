"""A turn is left to wait for somebody only when nothing else of it is under way: frameworks do things side by side."""

import asyncio
from typing import Any

import pytest

from dalsegno.agents.tool import tool
from dalsegno.core.event import Action
from dalsegno.core.input import Approval
from dalsegno.core.part import ToolCall
from dalsegno.errors import Parked
from dalsegno.ports import Output
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.work import Work
from tests.runtime.fleet import fleet


async def model(context):
    if context.items[-1]["type"] == "function_call_output":
        yield "done"
    else:
        yield ToolCall("ask_me", {"n": 1})
        yield ToolCall("slow")
        yield ToolCall("ask_me", {"n": 2})


async def test_one_call_each_from_tasks_of_their_own_park_together():
    """A framework carries calls out one by one, each in a task: those that wait do so together, and only once those
    that can be done are done; each runs once.
    """
    ran: list[str] = []

    @tool("once", gate="approval")
    async def ask_me(n: int) -> str:
        ran.append(f"ask_me {n}")
        return "asked"

    @tool("once")
    async def slow() -> str:
        for _ in range(50):
            await asyncio.sleep(0)
        ran.append("slow")
        return "slowly"

    async def agent(turn: Turn) -> None:
        while (reply := await turn.generate(model, tools=[ask_me, slow])).calls:
            async with asyncio.TaskGroup() as group:
                for call in reply.calls:
                    group.create_task(turn.perform([call]))

    async with fleet(agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        turn = await world.end_of(ref, receipt)
        assert turn.status == "waiting"
        assert [action.arguments for action in turn.actions] == ['{"n":1}', '{"n":2}']
        assert ran == ["slow"]
        for action in turn.actions:
            await world.say(ref, Approval(action.call_id, "approve"))
        turn = await world.end_of(ref, receipt)
        assert turn.status == "completed"
        assert sorted(ran) == ["ask_me 1", "ask_me 2", "slow"]
        assert (await world.types(ref)).count("turn.waiting") == 1


async def test_a_tool_that_waits_inside_another_does_not_wait_for_itself():
    """A tool may be an agent with tools of its own: what waits inside it keeps nobody up."""

    @tool("once", gate="approval")
    async def inner() -> str:
        return "inside"

    async def ask_inner(context):
        yield ToolCall("inner")

    async def agent(turn: Turn) -> None:
        @tool("read")
        async def outer() -> str:
            reply = await turn.generate(ask_inner, tools=[inner], name="nested")
            return (await turn.perform(reply))[0]

        await turn.say(await turn.call(outer))

    async with fleet(agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        turn = await world.end_of(ref, receipt)
        assert [action.name for action in turn.actions] == ["inner"]
        await world.say(ref, Approval(turn.actions[0].call_id, "approve"))
        turn = await world.end_of(ref, receipt)
        assert turn.status == "completed"
        assert turn.output[-1]["content"][0]["text"] == "inside"


async def test_a_signal_that_an_agent_swallows_ends_its_run_all_the_same():
    """Law 6: parked is parked, whatever the agent makes of it; nothing that it does afterwards is part of the turn."""

    @tool("once", gate="approval")
    async def ask_me() -> str:
        return "asked"

    async def ask(context):
        yield ToolCall("ask_me") if context.items[-1]["type"] != "function_call_output" else "done"

    async def agent(turn: Turn) -> None:
        try:
            while (reply := await turn.generate(ask, tools=[ask_me])).calls:
                async with asyncio.TaskGroup() as group:
                    group.create_task(turn.perform(reply))
        except* Parked:
            pass

    async with fleet(agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        turn = await world.end_of(ref, receipt)
        assert turn.status == "waiting"
        await world.say(ref, Approval(turn.actions[0].call_id, "approve"))
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.output[-1]["content"][0]["text"]) == ("completed", "done")
        assert [action.name for waiting in await world.data(ref, "turn.waiting") for action in waiting.actions] == [
            "ask_me"
        ]


async def test_details_of_a_tools_output_are_kept_with_it():
    """What an adapter wants back with an output is on record, and is answered from there."""

    @tool("once")
    async def look() -> Output:
        return Output("nothing there", {"retry": True}, "incomplete")

    found: list[Any] = []

    async def agent(turn: Turn) -> None:
        assert await turn.call(look) == "nothing there"
        call = next(item for item in turn.context.items if item["type"] == "function_call")
        found.append(turn.answered(str(call["call_id"])))

    async with fleet(agent) as world:
        turn = await world.ask(await world.session(), "go")
        assert turn.status == "completed"
    assert (found[0]["details"], found[0]["status"], found[0]["output"]) == (
        {"retry": True},
        "incomplete",
        "nothing there",
    )


async def test_quiet_is_when_only_waiters_are_left():
    """Two that wait and one that works: both wait for the third, and not for each other."""
    work, order = Work(), []

    async def waits(name: str) -> Action | None:
        with work.under_way():
            await asyncio.sleep(0)
        await work.quiet(grace=0)
        order.append(name)
        return None

    async def works() -> None:
        with work.under_way():
            for _ in range(5):
                await asyncio.sleep(0)
            order.append("worked")

    await asyncio.wait_for(asyncio.gather(waits("a"), waits("b"), works()), 20)
    assert order[0] == "worked" and sorted(order[1:]) == ["a", "b"]


@pytest.mark.parametrize("when", ["before it ends", "after it has ended"])
async def test_what_outlives_the_thing_it_was_begun_in_is_under_way(when: str):
    """A tool leaves a task behind that does something of its turn: the turn is not left while that is at it."""
    work, begin, begun, end = Work(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def left_behind() -> None:
        await begin.wait()
        with work.under_way():
            begun.set()
            await end.wait()

    with work.under_way():
        task = asyncio.create_task(left_behind())
        if when == "before it ends":
            begin.set()
            await begun.wait()
    begin.set()
    await begun.wait()
    quiet = asyncio.create_task(work.quiet(grace=0))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not quiet.done()
    end.set()
    await asyncio.gather(task, quiet)
