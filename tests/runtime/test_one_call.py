"""One call of a model has one output, however often it is asked for, and whoever asks at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dalsegno.agents.tool import tool
from dalsegno.core.item import OUTPUT
from dalsegno.core.part import ToolCall
from dalsegno.errors import DalsegnoError
from dalsegno.ports import Output
from dalsegno.runtime.handle import Turn
from tests.runtime.fleet import fleet

Asks = Callable[[Turn, Any, asyncio.Event], Awaitable[Any]]


async def perform_twice(turn: Turn, call: Any, begun: asyncio.Event) -> None:
    assert list(await asyncio.gather(turn.perform([call]), turn.perform([call]))) == [["paid"], ["paid"]]


async def perform_again_after_letting_go(turn: Turn, call: Any, begun: asyncio.Event) -> None:
    first = asyncio.create_task(turn.perform([call]))
    await begun.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(first), 0)
    assert await turn.perform([call]) == await first == ["paid"]


async def answer_beside_perform(turn: Turn, call: Any, begun: asyncio.Event) -> None:
    first = asyncio.create_task(turn.perform([call]))
    await begun.wait()
    await turn.answer(call, Output("nothing was done"))
    assert await first == ["paid"]


@pytest.mark.parametrize("asks", [perform_twice, perform_again_after_letting_go, answer_beside_perform])
async def test_p7_a_call_that_is_asked_for_again_meanwhile_runs_once(asks: Asks):
    """P7: whoever asks while it is being carried out gets what it comes to; the log has one output."""
    paid, begun = list[str](), asyncio.Event()

    @tool("once")
    async def pay() -> str:
        paid.append("paid")
        begun.set()
        await asyncio.sleep(0.01)
        return "paid"

    assert await outputs(pay, asks, begun) == ["paid"]
    assert paid == ["paid"]


async def test_the_first_answer_stays():
    """Of two at the same time, too."""

    @tool("once")
    async def pay() -> str:
        raise AssertionError

    async def answer_twice(turn: Turn, call: Any, begun: asyncio.Event) -> None:
        await asyncio.gather(turn.answer(call, Output("one")), turn.answer(call, Output("two")))

    assert await outputs(pay, answer_twice, asyncio.Event()) == ["one"]


async def test_a_call_that_nobody_asked_for_has_no_answer():
    """As it is not carried out."""

    @tool("once")
    async def pay() -> str:
        return "paid"

    async def answer_another(turn: Turn, call: Any, begun: asyncio.Event) -> None:
        with pytest.raises(DalsegnoError, match="'elsewhere'"):
            await turn.answer({**call, "call_id": "elsewhere"}, Output("one"))

    assert await outputs(pay, answer_another, asyncio.Event()) == []


async def outputs(pay: Any, asks: Asks, begun: asyncio.Event) -> list[str]:
    """What is on record once an agent has asked so."""

    async def model(context: Any) -> Any:
        yield ToolCall("pay", {})

    async def agent(turn: Turn) -> None:
        reply = await turn.generate(model, tools=[pay])
        await asks(turn, reply.calls[0], begun)

    async with fleet(agent) as world:
        ref = await world.session()
        assert (await world.ask(ref, "go")).status == "completed"
        items = [done.item for done in await world.data(ref, "item.done")]
    return [item["output"] for item in items if item["type"] == OUTPUT]
