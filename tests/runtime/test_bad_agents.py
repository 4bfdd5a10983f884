"""Agents that do what no agent should: each ends its own turn, with an error that says why, and nothing else."""

import asyncio
import gc
import sys
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from dalsegno.agents.tool import tool
from dalsegno.core.input import Cancel
from dalsegno.core.part import ToolCall
from dalsegno.errors import HandedOver, LeaseLost
from dalsegno.ports import Call, Output, Tool
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.replica import Tuning
from dalsegno.stores.redis.log import RedisLog
from tests.runtime.fleet import fleet
from tests.support import wait_until

DEADLINE = timedelta(seconds=1)
"""Long enough for the turns of those that behave, also where the machine is busy."""
TUNING = Tuning(bury_every=timedelta(milliseconds=10), drain_within=timedelta(seconds=5))
OVER: set[str] = set()
"""Sessions whose test is over: who hears nothing looks here, or the test would never be."""
BAD: dict[str, tuple[Callable[[Turn], Awaitable[Any]], str]] = {}
"""What it does → the agent, and what is said of the failed turn; "" = it completes all the same."""


def bad(name: str, says: str) -> Callable[[Any], Any]:
    def add(agent: Any) -> Any:
        BAD[name] = (agent, says)
        return agent

    return add


@tool("read")
async def look() -> str:
    return "seen"


@bad("raises", "ValueError: the agent has a bug")
async def raises(turn: Turn) -> None:
    raise ValueError("the agent has a bug")


@bad("raises words that no log can hold", "ValueError: half \ufffd")
async def raises_a_surrogate(turn: Turn) -> None:
    raise ValueError("half \ud800")


@bad("raises an error that cannot be shown", "Silent: (its words cannot be shown)")
async def raises_what_cannot_be_shown(turn: Turn) -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    raise Silent


@bad("raises a group", "ExceptionGroup: two (2 sub-exceptions)")
async def raises_a_group(turn: Turn) -> None:
    raise ExceptionGroup("two", [ValueError("a"), KeyError("b")])


@bad("raises a group of our signals", "BaseExceptionGroup: the agent ended itself. signals")
async def raises_signals(turn: Turn) -> None:
    raise BaseExceptionGroup("signals", [LeaseLost(), HandedOver()])


@bad("raises a signal that nobody sent", "HandedOver: the agent ended itself.")
async def raises_a_signal(turn: Turn) -> None:
    raise HandedOver


@bad("leaves the process", "SystemExit: the agent ended itself. 3")
async def leaves(turn: Turn) -> None:
    sys.exit(3)


@bad("cancels itself", "CancelledError: the agent ended itself.")
async def cancels_itself(turn: Turn) -> None:
    raise asyncio.CancelledError


@bad("never returns", "deadline_exceeded: the turn took longer than ")
async def never_returns(turn: Turn) -> None:
    await asyncio.Event().wait()


@bad("never returns and hears nothing", "deadline_exceeded: the turn took longer than ")
async def hears_nothing(turn: Turn) -> None:
    while turn.session not in OVER:
        with suppress(BaseException):
            await asyncio.sleep(60)


@bad("blocks the loop beyond its time", "deadline_exceeded: the turn took longer than ")
async def blocks(turn: Turn) -> None:
    time.sleep(DEADLINE.total_seconds() * 1.1)
    await asyncio.Event().wait()


@bad("returns what cannot be serialised", "")
async def returns_a_thing(turn: Turn) -> Any:
    await turn.say("hello")
    return object()


@bad("records what cannot be serialised", "TypeError: ")
async def records_a_thing(turn: Turn) -> None:
    async def thing() -> Any:
        return object()

    await turn.step("thing", thing)


@bad("emits what cannot be serialised", "TypeError: ")
async def emits_a_thing(turn: Turn) -> None:
    await turn.emit("thing", object())  # type: ignore[arg-type]


@bad("says what is no text", "AttributeError: ")
async def says_a_thing(turn: Turn) -> None:
    await turn.say(object())  # type: ignore[arg-type]


@bad("has a model that says what is no part", "AttributeError: ")
async def speaks_a_thing(turn: Turn) -> None:
    async def model(context: Any) -> Any:
        yield "one"
        yield object()

    await turn.generate(model)


@bad("calls an unknown tool", "")
async def calls_an_unknown_tool(turn: Turn) -> None:
    async def model(context: Any) -> Any:
        yield ToolCall("nobody")

    reply = await turn.generate(model)
    assert await turn.perform(reply) == ["There is no tool named 'nobody'."]


@bad("performs a call that nobody made", "DalsegnoError: ")
async def performs_what_nobody_asked_for(turn: Turn) -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": "{}"}
    await turn.perform([call], tools=[look])  # type: ignore[list-item]


@bad("performs what is no call", "TypeError: ")
async def performs_a_thing(turn: Turn) -> None:
    await turn.perform([object()])  # type: ignore[list-item]


@bad("is no coroutine function", "TypeError: ")
def is_no_coroutine(turn: Turn) -> Any:
    return "hello"


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_agent_ends_its_turn_and_nothing_else(name: str, monkeypatch: pytest.MonkeyPatch):
    """The turn ends with an error that says why; the session's next turn and other sessions are served by the same
    replica, in its first attempt.
    """
    misbehaving, says = BAD[name]
    monkeypatch.setattr("dalsegno.runtime.play.LEAVING_SECONDS", 0.05)

    tuning = msgspec.structs.replace(TUNING, turn_deadline=DEADLINE) if says.startswith("deadline") else TUNING
    begun: list[str] = []

    async def agent(turn: Turn) -> Any:
        begun.append(turn.text)
        return await (misbehaving(turn) if turn.text == "bad" else turn.say("fine"))

    async with fleet(agent, tuning=tuning) as world:
        ref, other = await world.session(), await world.session()
        receipt = await world.say(ref, "bad")
        await wait_until(lambda: begun, description="it misbehaves")  # or it would be the other's time that it blocks
        assert (await world.ask(other, "hi")).status == "completed"
        turn = await world.end_of(ref, receipt)
        if says:
            assert turn.status == "failed"
            assert f"{turn.error.code}: {turn.error.message}".startswith(says)
        else:
            assert turn.status == "completed"
        assert turn.attempt == 1
        after = await world.ask(ref, "hi")
        assert (after.status, after.attempt) == ("completed", 1)
        OVER.add(ref.id)


async def test_what_cannot_be_recorded_takes_nothing_else_with_it(monkeypatch: pytest.MonkeyPatch):
    """What waits beside it to be written is on record."""
    go, gate = asyncio.Event(), asyncio.Event()

    async def agent(turn: Turn) -> None:
        async def one() -> int:
            return 1

        async def other() -> int:
            await go.wait()
            return 2

        work = [turn.step("other", other), turn.step("one", one), turn.emit("thing", object())]  # type: ignore[arg-type]
        tasks = [asyncio.ensure_future(each) for each in work]
        for opened in (go, gate):
            for _ in range(10):  # until each has come as far as it can
                await asyncio.sleep(0)
            opened.set()
        made = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(found) for found in made] == [int, int, TypeError]

    async with fleet(agent) as world:
        ref, commit = await world.session(), world.ones[0].shelf.commit

        async def held(ref: Any, decide: Any, **more: Any) -> Any:
            if getattr(decide, "keywords", {}).get("drafts"):
                await gate.wait()
            return await commit(ref, decide, **more)

        monkeypatch.setattr(world.ones[0].shelf, "commit", held)
        turn = await world.ask(ref, "go")
        assert turn.status == "completed", turn.error
        assert [done.item["name"] for done in await world.data(ref, "item.done")] == ["one", "other"]


async def test_a_tool_is_seen_through_however_long_its_agent_takes_to_leave(monkeypatch: pytest.MonkeyPatch):
    """An agent that waits for its tool is not one that hears nothing."""
    monkeypatch.setattr("dalsegno.runtime.play.LEAVING_SECONDS", 0.01)
    ran: list[str] = []

    async def run(call: Call) -> str:
        ran.append("begun")
        await asyncio.sleep(0.3)
        ran.append("done")
        return "done"

    async def agent(turn: Turn) -> None:
        await turn.call(Tool("slow", run, effect="once"))

    async with fleet(agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(lambda: ran, description="the tool runs")
        await world.say(ref, Cancel())
        turn = await world.end_of(ref, receipt)
        assert (turn.status, ran) == ("cancelled", ["begun", "done"])
        assert turn.output[-1]["output"] == "done"


@pytest.mark.parametrize("ends", ["fails", "completes"])
async def test_what_an_agent_leaves_behind_is_seen_through_and_begins_nothing(ends: str):
    """A call that is under way when the agent's run ends is recorded before the turn's end; a call that would begin
    afterwards is not made.
    """
    ran: list[str] = []
    gate, over = asyncio.Event(), asyncio.Event()

    async def run(call: Call) -> str:
        ran.append(call.name)
        await gate.wait()
        return "done"

    first, second = Tool("first", run, effect="keyed"), Tool("second", run, effect="keyed")

    async def calls(turn: Turn) -> None:
        try:
            await turn.call(first)
            await turn.call(second)
        finally:
            over.set()

    async def agent(turn: Turn) -> None:
        tasks.append(asyncio.ensure_future(calls(turn)))
        await wait_until(lambda: ran, description="the first runs")
        asyncio.get_running_loop().call_later(0.05, gate.set)
        if ends == "fails":
            raise ValueError("out of patience")

    tasks: list[Any] = []
    async with fleet(agent) as world:
        ref = await world.session()
        turn = await world.ask(ref, "go")
        assert turn.status == ("failed" if ends == "fails" else "completed")
        assert [item["output"] for item in turn.output if item["type"] == "function_call_output"] == ["done"]
        await over.wait()
        assert ran == ["first"]
        await asyncio.wait(tasks)
        assert tasks[0].exception() is not None


# ------------------------------------------------------------------------------------------- bad tools


class Unspeakable(Exception):
    """Has no words."""

    def __str__(self) -> str:
        raise RuntimeError("not even this")


def nothing(call: Call) -> Any:
    return None


BAD_TOOLS: dict[str, tuple[Callable[[Call], Any], str]] = {
    "raises": (lambda call: 1 // 0, "Error: ZeroDivisionError: "),
    "raises what cannot be shown": (lambda call: _raise(Unspeakable()), "Error: Unspeakable: "),
    "leaves the process": (lambda call: sys.exit(3), "Error: RuntimeError: the tool raised SystemExit"),
    "returns what cannot be serialised": (lambda call: object(), "Error: TypeError: "),
    "returns half a character": (lambda call: "\ud800", "\ufffd"),
    "says what cannot be kept": (lambda call: Output("x", {"y": object()}), "Error: TypeError: "),  # type: ignore[dict-item]
    "says what is no text": (lambda call: Output(object()), "Error: "),  # type: ignore[arg-type]
    "returns nothing": (nothing, "null"),
}


def _raise(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize("name", BAD_TOOLS)
async def test_a_bad_tool_is_an_answer_to_the_model(name: str):
    """And never the end of the turn, or of the replica."""
    function, says = BAD_TOOLS[name]

    async def run(call: Call) -> Any:
        return function(call)

    async def agent(turn: Turn) -> None:
        outputs.append(await turn.call(Tool("bad", run)))

    outputs: list[str] = []
    async with fleet(agent, tuning=TUNING) as world:
        turn = await world.ask(await world.session(), "go")
        assert (turn.status, turn.attempt) == ("completed", 1)
        assert outputs[0].startswith(says)


@pytest.mark.parametrize("how", ["raises", "never returns"])
async def test_a_probe_that_fails_cannot_tell(how: str):
    """The model is told that nobody knows; the call is not run again."""
    ran: list[str] = []

    async def probe(call: Call) -> Any:
        if how == "raises":
            raise OSError("the service is down")
        await asyncio.Event().wait()

    async def run(call: Call) -> str:
        ran.append(call.id)
        await asyncio.Event().wait()
        return "never"

    tool = Tool("send", run, unknown="probe", probe=probe, timeout_seconds=60 if how == "raises" else 0.2)

    async def agent(turn: Turn) -> None:
        await turn.say(await turn.call(tool))

    async with fleet(agent, count=2) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(lambda: ran, description="the tool runs")
        await world.kill(0)
        turn = await world.end_of(ref, receipt)
        assert (turn.status, len(ran)) == ("completed", 1)
        assert "unknown" in str(turn.output[-1])


async def test_a_tool_that_its_store_cannot_run_is_refused_before_a_model_is_asked(monkeypatch: pytest.MonkeyPatch):
    """A transactional tool on a log without transactions (Redis): the turn fails and says what to do."""
    asked: list[int] = []

    async def model(context: Any) -> Any:
        asked.append(1)
        yield "hello"

    async def agent(turn: Turn) -> None:
        await turn.generate(model, tools=[Tool("seat", nothing, effect="transactional")])

    async with fleet(agent) as world:
        replica = world.ones[0].replica
        monkeypatch.setattr(replica, "_around", msgspec.structs.replace(replica._around, transactions=None))
        turn = await world.ask(await world.session(), "go")
        assert (turn.status, turn.error.code, asked) == ("failed", "ConfigError", [])
        assert "SQLite or PostgreSQL" in turn.error.message
    assert not hasattr(RedisLog, "transaction")


async def test_a_turn_that_failed_is_let_go_of_at_once():
    """Its transcript may be large, and the collector that looks for cycles comes by rarely (`ops.loop`)."""
    kept: list[weakref.ref[Turn]] = []

    async def agent(turn: Turn) -> None:
        kept.append(weakref.ref(turn))
        raise ValueError("no")

    gc.disable()
    try:
        async with fleet(agent) as world:
            turn = await world.ask(await world.session(), "go")
            assert turn.status == "failed"
            await wait_until(lambda: kept[0]() is None, description="the turn to be let go of")
    finally:
        gc.enable()
