"""A transactional tool whose database breaks under it: nothing is lost or doubled, and the model is not told."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from dalsegno.agents.tool import tool
from dalsegno.core.part import ToolCall
from dalsegno.core.tool import ToolFunction
from dalsegno.errors import Unavailable
from dalsegno.ports import Call
from dalsegno.runtime.handle import Turn
from dalsegno.stores.memory.log import MemoryTransaction
from tests.runtime.fleet import Fleet, fleet
from tests.support import wait_until

AWAY = Unavailable("the connection was lost", outcome="not_applied")


def paying(pay: ToolFunction) -> Any:
    """An agent that calls the tool once."""

    async def model(context: Any) -> Any:
        yield "done" if context.items[-1]["type"] == "function_call_output" else ToolCall("pay")

    async def agent(turn: Turn) -> None:
        while (reply := await turn.generate(model, tools=[pay])).calls:
            await turn.perform(reply)

    return agent


def outputs(turn: Any) -> list[str]:
    """What the model was told."""
    return [str(item["output"]) for item in turn.output if item["type"] == "function_call_output"]


def paid(world: Fleet) -> Any:
    """What the tools' table says."""
    content = world.database.scratch.get("paid")
    return None if content is None else msgspec.msgpack.decode(content)


async def test_an_error_of_the_database_is_not_the_tool_s(monkeypatch: pytest.MonkeyPatch):
    """Law 6: the tool is run again when the database answers, also if it made something of the error itself."""
    runs, execute = list[int](), MemoryTransaction.execute

    async def broken_at_first(self: MemoryTransaction, *words: Any) -> Any:
        if len(runs) <= 2:
            raise AWAY
        return await execute(self, *words)

    @tool("transactional")
    async def pay(call: Call) -> str:
        runs.append(1)
        assert call.transaction is not None
        try:
            ((total,),) = await call.transaction.execute("add", ["paid", 5])
        except Exception:  # as an agent's code does
            if len(runs) == 2:
                raise ValueError("out of luck") from None
            return "never mind"
        return str(total)

    monkeypatch.setattr(MemoryTransaction, "execute", broken_at_first)
    async with fleet(paying(pay)) as world:
        turn = await world.ask(await world.session(), "go")
        assert (len(runs), outputs(turn), paid(world)) == (3, ["5"], 5)


@pytest.mark.parametrize("arrives", ["before", "after", "never"])
async def test_a_commit_whose_answer_is_lost_is_looked_for(arrives: str, monkeypatch: pytest.MonkeyPatch):
    """P7, `transactional`: exactly once, whether the commit had arrived, arrives late, or never does."""
    runs, commit, late, again = list[int](), MemoryTransaction.commit, list[asyncio.Task[None]](), asyncio.Event()

    async def lost(self: MemoryTransaction, decide: Any) -> Any:
        if len(runs) > 1:
            again.set()
            await asyncio.gather(*late)
            return await commit(self, decide)
        if arrives == "before":
            await commit(self, decide)
        elif arrives == "after":
            late.append(asyncio.create_task(arrive(self, decide, dict(self._written))))
        raise Unavailable("the answer was lost", outcome="unknown")

    async def arrive(self: MemoryTransaction, decide: Any, written: dict[str, bytes]) -> None:
        await again.wait()
        self._database.decide(self._ref, decide)
        self._database.scratch.update(written)

    @tool("transactional")
    async def pay(call: Call) -> str:
        runs.append(1)
        assert call.transaction is not None
        ((total,),) = await call.transaction.execute("add", ["paid", 5])
        return str(total)

    monkeypatch.setattr(MemoryTransaction, "commit", lost)
    async with fleet(paying(pay)) as world:
        turn = await world.ask(await world.session(), "go")
        assert (outputs(turn), paid(world)) == (["5"], 5)
        assert len(runs) == (1 if arrives == "before" else 2)


async def test_a_tool_that_outlives_its_time_is_told_so():
    """That is the tool's own error: it is not run again, and nothing of it is left."""
    runs = list[int]()

    @tool("transactional", timeout=timedelta(milliseconds=200))
    async def pay(call: Call) -> str:
        runs.append(1)
        assert call.transaction is not None
        await call.transaction.execute("add", ["paid", 5])
        await asyncio.Event().wait()
        return "never"

    async with fleet(paying(pay)) as world:
        turn = await world.ask(await world.session(), "go")
        assert (len(runs), paid(world)) == (1, None)
        (told,) = outputs(turn)
        assert "did not finish" in told and "undone" in told


async def test_a_transaction_that_is_over_is_told_so():
    """The same, if the tool comes back too late to its transaction."""
    runs = list[int]()

    @tool("transactional", timeout=timedelta(milliseconds=50))
    async def pay(call: Call) -> str:
        runs.append(1)
        assert call.transaction is not None
        call.transaction._inner.expire()  # type: ignore[attr-defined]
        await call.transaction.execute("add", ["paid", 5])
        return "never"

    async with fleet(paying(pay)) as world:
        turn = await world.ask(await world.session(), "go")
        assert (len(runs), paid(world)) == (1, None)
        assert "took too long" in outputs(turn)[0]


async def test_no_transaction_is_held_while_the_cold_tier_is_away(monkeypatch: pytest.MonkeyPatch):
    """Law 8: an output that has to be put there first waits outside; then the tool is run again."""
    runs, away, tried = list[int](), [True], list[int]()

    @tool("transactional")
    async def pay(call: Call) -> str:
        runs.append(1)
        assert call.transaction is not None
        await call.transaction.execute("add", ["paid", 5])
        return "x" * 100_000

    async with fleet(paying(pay)) as world:
        blobs, put = world.ones[0].blobs, world.ones[0].blobs.put

        async def refused(name: str, content: bytes) -> None:
            tried.append(1)
            if away[0]:
                raise Unavailable("the cold tier does not answer")
            await put(name, content)

        monkeypatch.setattr(blobs, "put", refused)
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(lambda: len(tried) > 2, description="the cold tier is asked again")
        assert len(runs) == 1 and not world.database.scratch_lock.locked()
        away[0] = False
        turn = await world.end_of(ref, receipt)
        assert (turn.status, len(runs), paid(world)) == ("completed", 2, 5)
        assert len(world.objects) == 1


async def test_what_is_recorded_beside_a_lost_answer_is_recorded(monkeypatch: pytest.MonkeyPatch):
    """P6: a call at its side writes its output before anybody has looked what became of the commit; none is lost."""
    commit, gone, runs = MemoryTransaction.commit, asyncio.Event(), list[str]()

    async def lost(self: MemoryTransaction, decide: Any) -> Any:
        await commit(self, decide)
        gone.set()
        raise Unavailable("the answer was lost", outcome="unknown")

    @tool("transactional")
    async def pay(call: Call) -> str:
        runs.append("pay")
        assert call.transaction is not None
        ((total,),) = await call.transaction.execute("add", ["paid", 5])
        return str(total)

    @tool("read")
    async def look() -> str:
        runs.append("look")
        await gone.wait()
        return "seen"

    async def model(context: Any) -> Any:
        if context.items[-1]["type"] == "function_call_output":
            yield "done"
        else:
            yield ToolCall("pay")
            yield ToolCall("look")

    async def agent(turn: Turn) -> None:
        while (reply := await turn.generate(model, tools=[pay, look])).calls:
            await turn.perform(reply)

    monkeypatch.setattr(MemoryTransaction, "commit", lost)
    async with fleet(agent) as world:
        turn = await world.ask(await world.session(), "go")
        assert (turn.status, sorted(outputs(turn)), paid(world)) == ("completed", ["5", "seen"], 5)
        assert sorted(runs) == ["look", "pay"]
