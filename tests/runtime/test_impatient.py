"""Agents that have a time limit of their own, as frameworks do, and ask again: what is on record is not done twice."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest

from dalsegno.agents.tool import tool
from dalsegno.core.input import ToolResult
from dalsegno.core.part import ToolCall
from dalsegno.ports import Call, ToolFunction
from dalsegno.runtime.handle import Turn
from dalsegno.stores.memory.log import MemoryTransaction
from tests.runtime.commits import Held
from tests.runtime.fleet import Fleet, fleet

OUTPUT = b'"function_call_output"'


class Late(Held):
    """A commit whose answer comes only when whoever waited for it has been cancelled."""

    async def cancel(self, work: Coroutine[Any, Any, Any]) -> None:
        """As a time limit does, in the middle of that commit."""
        task = asyncio.create_task(work)
        await self.written.wait()
        task.cancel()
        self.answered.set()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()


async def steps(world: Fleet, ref: Any) -> list[str]:
    """The keys of the steps on record."""
    return [done.step for done in await world.data(ref, "item.done") if done.step is not None]


async def test_a_model_that_was_given_up_as_its_answer_was_recorded_is_not_asked_again():
    """P6: the record is looked at before anything is done."""
    asked, late = list[int](), Late(b'"call_id"')

    @tool("read")
    async def look() -> str:
        return "there"

    async def model(context: Any) -> Any:
        asked.append(len(context.items))
        yield "done" if context.items[-1]["type"] == "function_call_output" else ToolCall("look")

    async def agent(turn: Turn) -> None:
        await late.cancel(turn.generate(model, tools=[look]))
        while (reply := await turn.generate(model, tools=[look])).calls:
            await turn.perform(reply)

    async with fleet(agent) as world:
        world.ones[0].warm.commit = late.before(world.ones[0].warm.commit)  # type: ignore[method-assign]
        ref = await world.session()
        assert (await world.ask(ref, "go")).status == "completed"
        assert await steps(world, ref) == ["model#1", "model#2"]
        assert len(asked) == 2


async def test_a_step_that_was_given_up_as_it_was_recorded_is_not_run_again():
    """The same of a function of the user's own."""
    ran, late = list[int](), Late(b'"f#1"')

    async def function() -> int:
        ran.append(1)
        return len(ran)

    async def agent(turn: Turn) -> None:
        await late.cancel(turn.step("f", function))
        await turn.say(str(await turn.step("f", function)))

    async with fleet(agent) as world:
        world.ones[0].warm.commit = late.before(world.ones[0].warm.commit)  # type: ignore[method-assign]
        ref = await world.session()
        turn = await world.ask(ref, "go")
        assert turn.output[-1]["content"][0]["text"] == "1"
        assert (len(ran), await steps(world, ref)) == (1, ["f#1", "say#1"])


def paying(pay: ToolFunction, late: Late) -> Any:
    """An agent that gives the call up as it is being recorded, and then makes it again."""

    async def model(context: Any) -> Any:
        yield "done" if context.items[-1]["type"] == "function_call_output" else ToolCall("pay")

    async def agent(turn: Turn) -> None:
        reply = await turn.generate(model, tools=[pay])
        await late.cancel(turn.perform(reply))
        await turn.perform(reply)
        await turn.generate(model, tools=[pay])

    return agent


def outputs(turn: Any) -> list[str]:
    """What the model was told."""
    return [str(item["output"]) for item in turn.output if item["type"] == "function_call_output"]


async def test_a_call_that_was_given_up_as_it_was_recorded_is_not_carried_out_again():
    """P7, `once`: its effect has been had, and its result is the one on record."""
    ran, late = list[int](), Late(OUTPUT)

    @tool("once")
    async def pay() -> str:
        ran.append(1)
        return f"paid {len(ran)}"

    async with fleet(paying(pay, late)) as world:
        world.ones[0].warm.commit = late.before(world.ones[0].warm.commit)  # type: ignore[method-assign]
        turn = await world.ask(await world.session(), "go")
        assert (turn.status, len(ran), outputs(turn)) == ("completed", 1, ["paid 1"])


async def test_a_large_result_that_was_given_up_is_recorded_too():
    """P7: the cold tier may be slow, and the agent impatient."""
    ran, late = list[int](), Late(b"")

    @tool("once")
    async def pay() -> str:
        ran.append(1)
        return "x" * 100_000

    async with fleet(paying(pay, late)) as world:
        put = world.ones[0].blobs.put

        async def slow(name: str, content: bytes) -> None:
            late.written.set()
            await late.answered.wait()
            await put(name, content)

        world.ones[0].blobs.put = slow  # type: ignore[method-assign]
        turn = await world.ask(await world.session(), "go")
        assert (turn.status, len(ran), len(outputs(turn))) == ("completed", 1, 1)


@pytest.mark.parametrize("answer", ["late", "lost"])
async def test_a_transaction_that_was_given_up_as_it_was_committed_is_not_made_again(
    answer: str, monkeypatch: pytest.MonkeyPatch
):
    """P7, `transactional`: exactly once, also if the answer to its commit is lost, and nobody waits for it."""
    ran, late = list[int](), Late(OUTPUT)
    late.lost = answer == "lost"

    @tool("transactional")
    async def pay(call: Call) -> str:
        ran.append(1)
        assert call.transaction is not None
        ((total,),) = await call.transaction.execute("add", ["paid", 5])
        return str(total)

    monkeypatch.setattr(MemoryTransaction, "commit", late.before(MemoryTransaction.commit))
    async with fleet(paying(pay, late)) as world:
        turn = await world.ask(await world.session(), "go")
        assert (turn.status, len(ran), outputs(turn)) == ("completed", 1, ["5"])


async def test_who_gives_up_waiting_as_the_turn_is_left_does_nothing_more_in_it():
    """It has been left, and goes on when there is an answer: what was done now would be done in nobody's name."""
    ran, late = list[int](), Late(b'"actions"')

    async def work() -> int:
        ran.append(1)
        return 1

    async def agent(turn: Turn) -> None:
        if not late.written.is_set():
            await late.cancel(turn.ask("May I?"))
            await turn.step("work", work)
        else:
            await turn.say(await turn.ask("May I?"))

    async with fleet(agent) as world:
        world.ones[0].warm.commit = late.before(world.ones[0].warm.commit)  # type: ignore[method-assign]
        ref = await world.session()
        receipt = await world.say(ref, "go")
        turn = await world.end_of(ref, receipt)
        assert (turn.status, ran) == ("waiting", [])
        await world.say(ref, ToolResult(turn.actions[0].call_id, output="yes"))
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.output[-1]["content"][0]["text"], ran) == ("completed", "yes", [])
