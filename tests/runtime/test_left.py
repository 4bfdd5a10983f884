"""What a turn leaves in its process once it is over, and what an agent leaves behind in a turn."""

import asyncio
import gc
from typing import Any

from dalsegno.agents.tool import tool
from dalsegno.core.append import Write
from dalsegno.core.part import ToolCall
from dalsegno.errors import TurnOver
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.recorder import Recorder
from dalsegno.runtime.tools import ToolBox
from tests.runtime.fleet import fleet
from tests.support import wait_until


def held() -> int:
    """How much there is of turns."""
    return sum(isinstance(one, Recorder | ToolBox | Turn) for one in gc.get_objects())


async def test_a_turn_leaves_nothing_for_the_garbage_collector():
    """All that it held is free when it ends: what only a collection frees costs memory until then, and then time."""

    @tool("keyed")
    async def look_up(order: str) -> str:
        return "found"

    async def model(context: Any) -> Any:
        yield "done" if context.items[-1]["type"] == "function_call_output" else ToolCall("look_up", {"order": "1"})

    async def agent(turn: Turn) -> None:
        while (reply := await turn.generate(model, tools=[look_up])).calls:
            await turn.perform(reply)

    async with fleet(agent) as world:
        ref = await world.session()
        gc.collect()
        before = held()
        gc.disable()
        try:
            for _ in range(3):
                await world.ask(ref, "go")
            await wait_until(lambda: held() <= before, description="nothing of the turns is left")
        finally:
            gc.enable()


async def test_an_answer_that_is_left_behind_is_finished_once():
    """A model that goes on, in a task of its own, while the end is being written: the end has closed what readers were
    shown of it, and nothing more of it is recorded.
    """
    hold = asyncio.Event()
    left = list[asyncio.Task[Any]]()

    async def model(context: Any) -> Any:
        yield "one "
        await hold.wait()
        yield "two"

    async def agent(turn: Turn) -> None:
        left.append(asyncio.create_task(turn.generate(model, name="aside")))
        shown = world.ones[0].hot.publish

        async def published(*given: Any) -> Any:
            failed = await shown(*given)
            out.set()
            return failed

        out = asyncio.Event()
        vars(world.ones[0].hot)["publish"] = published
        await out.wait()
        await turn.say("bye")

    async with fleet(agent) as world:
        commit = world.ones[0].warm.commit

        async def slow(*positional: Any, **named: Any) -> Any:
            decided = await commit(*positional, **named)
            if isinstance(decided, Write) and any(b"bye" in event.data for event in decided.events):
                hold.set()  # the model goes on while the turn's end waits for the pen
                await asyncio.wait(left)
            return decided

        vars(world.ones[0].warm)["commit"] = slow
        ref = await world.session()
        await world.ask(ref, "go")
        made = [done.item for done in await world.data(ref, "item.done")]
        assert [(item["status"], item["content"][0]["text"]) for item in made] == [
            ("completed", "bye"),
            ("incomplete", "one "),
        ]
        assert isinstance(left[0].exception(), TurnOver)
