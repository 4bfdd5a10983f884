"""A node's own calls, side by side: each finds its own record, in whatever order a second attempt begins them."""

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

import dalsegno
from dalsegno.agents.langgraph import LangGraphAgent
from dalsegno.agents.langgraph import claims as module
from dalsegno.agents.langgraph.claims import Claims
from dalsegno.errors import DalsegnoError
from tests.runtime.fleet import fleet
from tests.support import wait_until


async def test_a_call_takes_the_record_of_its_own_words():
    """Also if another one's stands before it; the second of the same words is another call."""
    recorded: list[str] = []
    before = Claims(lambda prefix: recorded)
    names = {asked: await before.name("pay", asked) for asked in ("A", "B")}
    assert names["A"] != names["B"]
    recorded += [names["A"], names["B"]]
    after = Claims(lambda prefix: recorded)
    for asked in ("B", "A", "B"):
        name = await after.name("pay", asked)
        assert name == names[asked]
        with after.taken(name):
            pass


async def test_words_that_are_not_on_record_wait_for_those_that_are(monkeypatch: pytest.MonkeyPatch):
    """One that is new goes on as soon as the others have been asked for. Else it is refused, or takes what is left if
    that does no harm.
    """
    recorded = [await Claims(lambda prefix: []).name("pay", "A")]
    claims = Claims(lambda prefix: recorded)
    new = asyncio.create_task(claims.name("pay", "B", otherwise="cannot be known"))
    await asyncio.sleep(0)
    assert not new.done()
    with claims.taken(await claims.name("pay", "A")):
        assert await new == await Claims(lambda prefix: []).name("pay", "B")
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.0)
    claims = Claims(lambda prefix: recorded)
    with pytest.raises(DalsegnoError, match="cannot be known"):
        await claims.name("pay", "B", otherwise="cannot be known")
    assert await claims.name("pay", "B") == recorded[0]


async def test_p7_a_second_attempt_that_begins_in_another_order_pays_each_once():
    """One was paid and is on record, the other had not begun: the successor begins with the other."""
    paid: list[tuple[str, str]] = []
    attempts: list[int] = []

    @tool
    @dalsegno.tool("keyed")
    async def pay(order: str) -> str:
        """Pay for an order."""
        paid.append((dalsegno.current_call().key, order))
        return f"paid {order}"

    async def node(state: MessagesState) -> dict[str, Any]:
        attempts.append(1)
        first = len(attempts) == 1

        async def a() -> str:
            await asyncio.sleep(0 if first else 0.05)
            return str(await pay.ainvoke({"order": "A"}))

        async def b() -> str:
            if first:
                await asyncio.Event().wait()
            return str(await pay.ainvoke({"order": "B"}))

        return {"messages": [AIMessage(", ".join(await asyncio.gather(a(), b())))]}

    graph = StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()
    async with fleet(LangGraphAgent(graph).run, count=2) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")

        async def recorded() -> bool:
            return any("output" in data.item.get("type", "") for data in await world.data(ref, "item.done"))

        await wait_until(recorded, description="the first payment on record")
        await world.kill()
        turn = await world.end_of(ref, receipt)
    assert turn.status == "completed", turn.error
    assert turn.output[-1]["content"][0]["text"] == "paid A, paid B"
    assert [order for _, order in paid] == ["A", "B"] and len({key for key, _ in paid}) == 2
