"""An agent that goes ahead computes while the record of what it did is on its way; nothing more is done before that is
there.
"""

import asyncio
from typing import Any

import pytest

from dalsegno.agents.tool import tool
from dalsegno.core.part import ToolCall
from dalsegno.runtime.handle import Turn
from tests.runtime.commits import Held, rounds, slow
from tests.runtime.fleet import fleet
from tests.support import wait_until

INTENT, OUTPUT = b'"effect"', b'"function_call_output"'


@pytest.mark.parametrize(
    ("words", "before"), [(INTENT, ["model", "decided"]), (OUTPUT, ["model", "decided", "look", "told"])]
)
async def test_the_agent_goes_on_and_what_it_does_next_waits(words: bytes, before: list[str]):
    """Law 4: no tool runs before its intent is on record, and no model is asked before the outputs are; but what the
    agent makes of them meanwhile waits for nobody.
    """
    done, held = list[str](), Held(words)

    @tool("once")
    async def look() -> str:
        done.append("look")
        return "there"

    async def model(context: Any) -> Any:
        done.append("model")
        yield "done" if context.items[-1]["type"] == "function_call_output" else ToolCall("look")

    async def agent(turn: Turn) -> None:
        turn.notes.go_ahead()
        reply = await turn.generate(model, tools=[look])
        done.append("decided")
        assert await turn.perform(reply) == ["there"]
        answered = turn.answered(str(reply.calls[0]["call_id"]))
        assert answered is not None and answered["output"] == "there"
        done.append("told")
        await turn.generate(model)

    async with fleet(agent) as world:
        world.ones[0].warm.commit = held.before(world.ones[0].warm.commit)  # type: ignore[method-assign]
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(lambda: held.written.is_set() and done[-1:] == before[-1:], description="the agent goes on")
        await rounds(100)
        assert done == before
        held.answered.set()
        assert (await world.end_of(ref, receipt)).status == "completed"
        assert done == ["model", "decided", "look", "told", "model"]


async def test_an_output_that_waits_for_a_transaction_beside_it_is_not_made_again():
    """P7, `once`: a tool's transaction lets nobody else write; who asks for the call again waits, too."""
    ran = list[int]()

    @tool("once")
    async def pay() -> str:
        ran.append(1)
        return "paid"

    async def model(context: Any) -> Any:
        yield "done" if context.items[-1]["type"] == "function_call_output" else ToolCall("pay")

    async def agent(turn: Turn) -> None:
        turn.notes.go_ahead()
        reply = await turn.generate(model, tools=[pay])
        await turn._recorder.be_sure()
        async with turn._recorder.shut_out():
            assert await turn.perform(reply) == ["paid"]
            again = asyncio.create_task(turn.perform(reply))
            await rounds(100)
            assert not again.done()
        assert (await again, ran) == (["paid"], [1])
        await turn.generate(model)

    async with fleet(agent) as world:
        assert (await world.ask(await world.session(), "go")).status == "completed"


async def test_others_go_on_when_it_is_on_record():
    """A plain agent may look at the context at any time."""
    seen = list[str]()

    @tool("read")
    async def look() -> str:
        return "there"

    async def model(context: Any) -> Any:
        yield "done" if context.items[-1]["type"] == "function_call_output" else ToolCall("look")

    async def agent(turn: Turn) -> None:
        await turn.perform(await turn.generate(model, tools=[look]))
        seen.append(str(turn.context.items[-1]["output"]))
        await turn.generate(model)

    async with fleet(agent) as world:
        world.ones[0].warm.commit = slow(world.ones[0].warm.commit)  # type: ignore[method-assign]
        assert (await world.ask(await world.session(), "go")).status == "completed"
        assert seen == ["there"]
