"""Tools of a Pydantic AI agent: effect classes, keys, humans in between, MCP servers, and tools that misbehave."""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent, ApprovalRequired, CallDeferred, RunContext, Tool
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import ExternalToolset, FunctionToolset

import dalsegno
from dalsegno.agents.pydantic_ai import PydanticAgent
from dalsegno.core.input import Approval, Cancel, ToolResult
from dalsegno.ports import Undo
from dalsegno.runtime.replica import Tuning
from dalsegno.testing.model import ModelServer, Shown, ToolCall, by_round, by_words
from tests.agents.pydantic_world import text_of, wire
from tests.runtime.fleet import fleet
from tests.support import wait_until

CHAT = "openai-chat:gpt-5"


def sum_up(shown: Shown) -> str:
    """What the model says once its tools have answered."""
    return " / ".join(shown.results)


async def test_a_tool_is_what_its_declaration_says(model: ModelServer) -> None:
    """By `@dalsegno.tool` under the framework's decorator or in the list of tools, by metadata of a tool or of a
    toolset, renamed or not; without any, `once`. The key is there for the tool, in a thread, too.
    """
    keys: dict[str, str] = {}

    @dalsegno.tool("read", dedupe="turn")
    def look(call: dalsegno.Call, at: str) -> str:
        keys["look"] = call.key
        return at

    @dalsegno.tool("keyed")
    async def pay(cents: int) -> int:
        keys["pay"] = dalsegno.current_call().headers["Idempotency-Key"]
        return cents

    def mail(to: str) -> None:
        keys["mail"] = dalsegno.current_call().key

    async def note(text: str) -> None:
        return None

    async def plain() -> str:
        return "plain"

    agent = Agent(
        CHAT,
        tools=[look, plain, Tool(mail, metadata={"dalsegno": {"effect": "keyed"}})],
        toolsets=[
            FunctionToolset([pay]).prefixed("shop"),
            FunctionToolset([note]).with_metadata(dalsegno={"effect": "read"}),
        ],
    )
    model.script = by_round(
        [
            ToolCall("look", {"at": "a"}),
            ToolCall("look", {"at": "a"}),
            ToolCall("shop_pay", {"cents": 3}),
            ToolCall("mail", {"to": "x"}),
            ToolCall("note", {"text": "n"}),
            ToolCall("plain"),
        ],
        sum_up,
    )
    async with fleet(PydanticAgent(agent).run) as world:
        ref = await world.session()
        turn = await world.ask(ref, "go")
        assert turn.status == "completed", turn.error
        intents = await world.data(ref, "tool.intent")
        assert {intent.name: intent.effect for intent in intents} == {
            "look": "read",
            "shop_pay": "keyed",
            "mail": "keyed",
            "note": "read",
            "plain": "once",
        }
        known = {intent.name: intent.key for intent in intents[:4] if intent.name != "look"}
        assert (keys["pay"], keys["mail"]) == (known["shop_pay"], known["mail"])
        assert text_of(turn) == "a / a / 3 /  /  / plain"


async def test_metadata_that_says_what_it_should_not_is_a_clear_error(model: ModelServer) -> None:
    model.script = by_round(ToolCall("mail"), sum_up)
    agent = Agent(CHAT, tools=[Tool(lambda: "", name="mail", metadata={"dalsegno": {"effect": "twice"}})])
    async with fleet(PydanticAgent(agent).run) as world:
        ref = await world.session()
        turn = await world.ask(ref, "go")
        assert turn.status == "failed"
        assert "tool mail" in turn.error.message
        assert "twice" in turn.error.message


def deciding() -> Agent[Any, Any]:
    """Tools that wait for a human or for somebody outside, in every way there is."""
    agent = Agent(CHAT, toolsets=[ExternalToolset([ToolDefinition(name="fetch", description="outside")])])
    agent.tool_plain(requires_approval=True)(erase)
    agent.tool(spend)
    agent.tool_plain(wait)
    agent.tool_plain(send)
    agent.tool_plain(quick)
    return agent


async def erase(name: str) -> str:
    return f"erased {name}"


async def spend(ctx: RunContext[Any], cents: int) -> str:
    if cents > 9 and not ctx.tool_call_approved:
        raise ApprovalRequired
    return f"spent {cents}"


async def wait() -> str:
    raise CallDeferred


@dalsegno.tool(gate="approval")
async def send(to: str) -> str:
    return f"sent to {to}"


async def quick() -> str:
    return "at once"


async def test_a_turn_parks_for_humans_and_goes_on_with_what_they_say(model: ModelServer) -> None:
    """Approvals declared, raised by the tool or of our own, tools carried out outside, denials: the turn waits in the
    log and holds nothing; the framework goes on as if it had known all along.
    """
    model.script = by_words(
        {
            "go": by_round(
                [
                    ToolCall("erase", {"name": "it"}),
                    ToolCall("spend", {"cents": 99}),
                    ToolCall("wait"),
                    ToolCall("send", {"to": "Ada"}),
                    ToolCall("send", {"to": "Bob"}),
                    ToolCall("fetch"),
                    ToolCall("quick"),
                ],
                sum_up,
            )
        }
    )
    decisions: dict[str, Any] = {
        "erase": lambda asked: Approval(asked.call_id, "approve"),
        "spend": lambda asked: Approval(asked.call_id, "approve"),
        "send": lambda asked: Approval(asked.call_id, "approve" if "Ada" in asked.arguments else "deny", "not him"),
        "wait": lambda asked: ToolResult(asked.call_id, output="waited"),
        "fetch": lambda asked: ToolResult(asked.call_id, error="nobody home"),
    }
    async with fleet(PydanticAgent(deciding()).run, count=2) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        asked: list[str] = []
        turn = await world.end_of(ref, receipt)
        while turn.status == "waiting":
            for action in turn.actions:
                asked.append(action.name)
                await world.say(ref, decisions[action.name](action))
            turn = await world.end_of(ref, receipt)
        assert turn.status == "completed", turn.error
        assert sorted(asked) == ["erase", "fetch", "send", "send", "spend", "wait"]
        assert len(model.log.entries) == 2
        erased, spent, waited, ada, bob, fetched, at_once = text_of(turn).split(" / ")
        assert (erased, spent, waited, ada, at_once) == ("erased it", "spent 99", "waited", "sent to Ada", "at once")
        assert "denied" in bob and "not him" in bob
        assert "nobody home" in fetched
        before = wire(model)[-1]["messages"]
        await world.ask(ref, "thanks")
        assert wire(model)[-1]["messages"][: len(before)] == before
        assert not model.log.refusals


async def test_humans_are_asked_for_several_calls_at_once(model: ModelServer) -> None:
    """Two approvals of one answer are one waiting turn, and the tools run when both are decided."""
    model.script = by_round([ToolCall("erase", {"name": "a"}), ToolCall("erase", {"name": "b"})], sum_up)
    async with fleet(PydanticAgent(deciding()).run) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        turn = await world.end_of(ref, receipt)
        assert [action.name for action in turn.actions] == ["erase", "erase"]
        assert len(await world.data(ref, "turn.waiting")) == 1
        for action in turn.actions:
            await world.say(ref, Approval(action.call_id, "approve"))
        turn = await world.end_of(ref, receipt)
        assert text_of(turn) == "erased a / erased b"


SERVER = """
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from pathlib import Path
import sys

server = MCPServer("shop")

@server.tool()
def pay(cents: int, ctx: Context) -> str:
    meta = ctx.request_context.meta
    with Path(sys.argv[1]).open("a") as ledger:
        print(dict(meta or {}).get("dalsegno.dev/idempotency-key"), file=ledger)
    return f"paid {cents}"

server.run("stdio")
"""


async def test_mcp_servers_are_sent_the_key_of_the_call(model: ModelServer, tmp_path: Path) -> None:
    """A real server on stdio, as a toolset of the agent: its tool is an effect with our key in `_meta`."""
    (tmp_path / "server.py").write_text(SERVER)
    transport = StdioTransport(sys.executable, [str(tmp_path / "server.py"), str(tmp_path / "ledger")])
    toolset = MCPToolset(transport).with_metadata(dalsegno={"effect": "keyed"})
    agent = Agent(CHAT, toolsets=[toolset])
    model.script = by_round(ToolCall("pay", {"cents": 5}), sum_up)
    async with fleet(PydanticAgent(agent).run) as world:
        ref = await world.session()
        turn = await world.ask(ref, "go")
        assert turn.status == "completed", turn.error
        assert "paid 5" in text_of(turn)
        (intent,) = await world.data(ref, "tool.intent")
        assert intent.effect == "keyed"
        assert (tmp_path / "ledger").read_text().split() == [intent.key]


async def test_an_mcp_server_that_dies_while_another_turn_holds_its_connection(
    model: ModelServer, tmp_path: Path
) -> None:
    """Who finds it lost is told, and no call is repeated; the next step of any turn has it again. While the server is
    away, turns that need it fail.
    """
    program, away, pid = tmp_path / "server.py", tmp_path / "away.py", tmp_path / "pid"
    program.write_text(f"import os, pathlib\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n{SERVER}")
    begun, go = asyncio.Event(), asyncio.Event()

    async def hold() -> str:
        begun.set()
        await go.wait()
        return "held"

    def alive(process: int) -> bool:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        return True

    async def dies() -> None:
        process = int(pid.read_text())
        os.kill(process, signal.SIGKILL)
        await wait_until(lambda: not alive(process), description="the process is gone")

    transport = StdioTransport(sys.executable, [str(program), str(tmp_path / "ledger")])
    toolset = MCPToolset(transport).with_metadata(dalsegno={"effect": "keyed"})
    agent = Agent(CHAT, toolsets=[toolset], tools=[Tool(hold, metadata={"dalsegno": {"effect": "read"}})])
    twice = by_round(ToolCall("hold"), ToolCall("pay", {"cents": 7}), sum_up)
    model.script = by_words({"hold": twice, "": by_round(ToolCall("pay", {"cents": 5}), sum_up)})
    async with fleet(PydanticAgent(agent).run) as world:
        ref, other = await world.session(), await world.session()
        holding = await world.say(other, "hold")
        await begun.wait()
        await dies()
        assert "Connection closed" in text_of(await world.ask(ref, "one"))
        assert "paid 5" in text_of(await world.ask(ref, "two"))
        await dies()
        program.rename(away)
        assert "Connection closed" in str((await world.ask(ref, "three")).output)
        assert (await world.ask(ref, "four")).status == "failed"
        away.rename(program)
        assert "paid 5" in text_of(await world.ask(ref, "five"))
        go.set()
        assert "paid 7" in text_of(await world.end_of(other, holding))
        assert len((tmp_path / "ledger").read_text().split()) == 3
        await dies()
        assert "paid 5" in text_of(await world.ask(ref, "six"))


class Broken:
    """What no model can be shown."""


async def unserialisable() -> Any:
    return Broken()


async def raising() -> str:
    raise ZeroDivisionError("by nought")


async def leaving() -> str:
    raise SystemExit(3)


async def failing() -> str:
    raise ToolFailed("no luck")


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("unserialisable", "failed", "unserialisable_result"),
        ("raising", "failed", "ZeroDivisionError: by nought"),
        ("leaving", "completed", "SystemExit"),
        ("failing", "completed", "no luck"),
        ("missing", "completed", "missing"),
    ],
)
async def test_a_tool_that_misbehaves_ends_its_turn_at_most(
    name: str, status: str, says: str, model: ModelServer
) -> None:
    """With a clear error, on record as the call's output, too; the session goes on."""
    model.script = by_words({"go": by_round(ToolCall(name), sum_up)})
    agent = Agent(CHAT, tools=[unserialisable, raising, leaving, failing])
    async with fleet(PydanticAgent(agent).run) as world:
        ref = await world.session()
        turn = await world.ask(ref, "go")
        assert turn.status == status
        told = text_of(turn) if turn.error is None else f"{turn.error.code}: {turn.error.message}"
        assert says in told
        assert (await world.ask(ref, "hello?")).status == "completed"
        assert not model.log.refusals


@pytest.mark.parametrize("how", ["cancelled", "deadline_exceeded"])
async def test_a_run_that_does_not_end_is_ended(how: str, model: ModelServer) -> None:
    """By a human, or by the deadline of its turn; the next turn's model is told that the call had no result."""
    model.script = by_words({"go": by_round(ToolCall("linger"), sum_up)})
    begun = asyncio.Event()
    agent = Agent(CHAT)

    @agent.tool_plain(metadata={"dalsegno": {"effect": "read"}})
    async def linger() -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    tuning = Tuning(turn_deadline=timedelta(seconds=30 if how == "cancelled" else 2))
    async with fleet(PydanticAgent(agent).run, tuning=tuning) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(begun.is_set, description="the tool to run")
        if how == "cancelled":
            await world.say(ref, Cancel())
        turn = await world.end_of(ref, receipt)
        assert how in (turn.status, turn.error and turn.error.code)
        assert (await world.ask(ref, "hello?")).status == "completed"
        assert not model.log.refusals


async def test_what_ended_a_run_ends_it_again(model: ModelServer) -> None:
    """A replica dies between the error of a tool and the end of its turn: the tool does not run again, and the turn
    fails as it would have.
    """
    model.script = by_round(ToolCall("raising"), sum_up)
    tried: list[str] = []
    stop = asyncio.Event()

    async def raising() -> str:
        tried.append("once")
        raise ZeroDivisionError("by nought")

    agent = Agent(CHAT, tools=[raising])
    serve = PydanticAgent(agent)

    async def run(turn: Any) -> None:
        try:
            await serve.run(turn)
        except ZeroDivisionError:
            stop.set()
            await asyncio.Event().wait()

    async with fleet(run, count=2) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(stop.is_set, description="the run to fail")
        await world.kill()
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.error.code, turn.error.message) == ("failed", "ZeroDivisionError", "by nought")
        assert tried == ["once"]


async def test_what_a_failed_turn_did_is_undone(model: ModelServer) -> None:
    """A tool of ours that says how: its calls are undone in reverse when the turn fails, those that were refused by the
    framework are not.
    """
    undone: list[Any] = []

    async def unbook(undo: Undo) -> None:
        undone.append(undo.call.arguments)

    @dalsegno.tool("keyed", compensate=unbook)
    async def book(city: str) -> str:
        return f"booked {city}"

    model.script = by_round(
        ToolCall("book", {"city": "Parma"}),
        ToolCall("book", {"town": "Lodi"}),
        ToolCall("book", {"city": "Pisa"}),
        ToolCall("raising"),
    )
    agent = Agent(CHAT, tools=[book, raising])
    async with fleet(PydanticAgent(agent).run) as world:
        turn = await world.ask(await world.session(), "go")
        assert turn.status == "failed"
        assert undone == [{"city": "Pisa"}, {"city": "Parma"}]
