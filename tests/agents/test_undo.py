"""Tools that can be undone, and tools in the log's transaction, inside the frameworks: as in a plain function."""

from typing import Any

import agents as openai_agents
import langchain_core.tools
import msgspec
import pydantic_ai
import pytest
from langchain.agents import create_agent

import dalsegno
from dalsegno.agents.langgraph import LangGraphAgent
from dalsegno.agents.openai_agents import OpenAIAgent
from dalsegno.agents.pydantic_ai import PydanticAgent
from dalsegno.core.input import Cancel
from dalsegno.ports import Undo
from dalsegno.testing.model import ModelServer, ToolCall, by_round
from tests.agents import graphs, oai
from tests.runtime.fleet import fleet
from tests.support import wait_until

FRAMEWORKS = ("pydantic_ai", "openai_agents", "langgraph")


class Shop:
    """Two tools that can be undone, and one that hangs until it is let go."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.undone: list[tuple[Any, ...]] = []
        self.closed = True

        async def refund(undo: Undo) -> str:
            self.undone.append((undo.call.arguments, undo.call.key, dalsegno.current_call().key == undo.key))
            return "refunded"

        async def free(undo: Undo) -> None:
            assert undo.call.transaction is not None
            await undo.call.transaction.execute("add", ("seats", -1))

        @dalsegno.tool("keyed", compensate=refund)
        async def pay(amount: int) -> str:
            """Pay."""
            self.keys.append(dalsegno.current_call().key)
            return f"paid {amount}"

        @dalsegno.tool("transactional", compensate=free)
        async def seat(row: int) -> str:
            """Take a seat."""
            transaction = dalsegno.current_call().transaction
            assert transaction is not None
            await transaction.execute("add", ("seats", 1))
            return f"row {row}"

        @dalsegno.tool("read")
        async def look() -> str:
            """Look."""
            self.keys.append("look")
            await wait_until(lambda: not self.closed, description="it is let go")
            return "seen"

        self.tools = [pay, seat, look]

    def agent(self, framework: str, model: ModelServer) -> Any:
        match framework:
            case "pydantic_ai":
                return PydanticAgent(pydantic_ai.Agent("openai-chat:gpt-5", tools=self.tools))
            case "openai_agents":
                tools = [openai_agents.function_tool(tool) for tool in self.tools]
                made = openai_agents.Agent(name="shop", tools=[*tools], model=oai.model_of(model))
                return OpenAIAgent(made, run_config=oai.SILENT)
            case _:
                return LangGraphAgent(
                    create_agent(graphs.model_of(model), [langchain_core.tools.tool(tool) for tool in self.tools])
                )


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_what_a_framework_s_agent_did_is_undone_by_another_replica(framework: str, model: ModelServer) -> None:
    """The one that did it is dead, and the turn is cancelled: another hears of the tools from the agent, undoes the
    latest first, each once; and the provider takes the context of the next turn.
    """
    shop = Shop()
    model.script = by_round(ToolCall("pay", {"amount": 5}), ToolCall("seat", {"row": 3}), ToolCall("look"), "done")
    async with fleet(shop.agent(framework, model).run, count=2) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(lambda: "look" in shop.keys, description="the last tool runs")
        assert world.database.scratch["seats"] == msgspec.msgpack.encode(1)
        other = world.ones[1].replica
        other.draining = True  # it takes no turn before this one is cancelled
        await world.kill(0)
        await world.say(ref, Cancel())
        other.draining = False
        turn = await world.end_of(ref, receipt)
        assert (await world.data(ref, "turn.undoing"))[0].died
        assert turn.status == "cancelled"
        assert shop.undone == [({"amount": 5}, shop.keys[0], True)]
        assert world.database.scratch["seats"] == msgspec.msgpack.encode(0)
        told = await world.data(ref, "tool.undone")
        assert [(one.name, one.status) for one in told] == [("seat", "completed"), ("pay", "completed")]
        model.script = by_round("hello")
        after = await world.ask(ref, "and now?")
        assert after.status == "completed", after.error
        assert not model.log.refusals
        assert "was undone" in str(model.log.entries[-1].request)


async def test_what_an_agent_that_is_a_tool_did_is_undone_by_another_replica(model: ModelServer) -> None:
    """Its own calls are on record inside the call that it was, which is not run again to hear of its tools."""
    shop = Shop()
    pay, _, look = (openai_agents.function_tool(tool) for tool in shop.tools)
    answers = oai.model_of(model)
    buyer = openai_agents.Agent("Buyer", instructions="buyer", tools=[pay], model=answers)
    boss = openai_agents.Agent("Boss", instructions="boss", tools=[buyer.as_tool("buy", "Buys."), look], model=answers)

    def script(shown: Any) -> Any:
        if shown.instructions == "buyer":
            return by_round(ToolCall("pay", {"amount": 5}), "bought")(shown)
        return by_round(ToolCall("buy", {"input": "tea"}), ToolCall("look"), "done")(shown)

    model.script = script
    async with fleet(OpenAIAgent(boss, run_config=oai.SILENT).run, count=2) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(lambda: "look" in shop.keys, description="the last tool runs")
        other = world.ones[1].replica
        other.draining = True  # it takes no turn before this one is cancelled
        await world.kill(0)
        await world.say(ref, Cancel())
        other.draining = False
        turn = await world.end_of(ref, receipt)
        assert turn.status == "cancelled"
        assert shop.undone == [({"amount": 5}, shop.keys[0], True)]
        assert [(one.name, one.status) for one in await world.data(ref, "tool.undone")] == [("pay", "completed")]


@pytest.mark.parametrize("framework", ["pydantic_ai", "langgraph"])
async def test_metadata_says_how_a_tool_is_undone(framework: str, model: ModelServer) -> None:
    """Where a framework's tool has metadata, that says what `@dalsegno.tool` would; the key is there for it, too."""
    done: list[str] = []
    undone: list[tuple[Any, ...]] = []

    async def refund(undo: Undo) -> str:
        undone.append((undo.call.key, dalsegno.current_call().key == undo.key))
        return "refunded"

    async def pay(amount: int) -> str:
        """Pay."""
        done.append(dalsegno.current_call().key)
        return f"paid {amount}"

    async def fail() -> str:
        """Fail."""
        raise ValueError("no luck")

    says: Any = {"dalsegno": {"effect": "keyed", "compensate": refund}}
    served: Any
    if framework == "pydantic_ai":
        tools = [pydantic_ai.Tool(pay, metadata=says), pydantic_ai.Tool(fail)]
        served = PydanticAgent(pydantic_ai.Agent("openai-chat:gpt-5", tools=tools))
    else:
        paying = langchain_core.tools.tool(pay)
        paying.metadata = says
        served = LangGraphAgent(create_agent(graphs.model_of(model), [paying, langchain_core.tools.tool(fail)]))
    model.script = by_round(ToolCall("pay", {"amount": 5}), ToolCall("fail"), "done")
    async with fleet(served.run) as world:
        ref = await world.session()
        turn = await world.ask(ref, "go")
        assert turn.status == "failed"
        assert undone == [(done[0], True)]


async def test_a_call_that_the_framework_answers_itself_hides_no_tool(model: ModelServer) -> None:
    """OpenAI's SDK tells a model that its agent has no such tool; another agent of the turn has, and what that did is
    undone. What nobody did is not.
    """
    shop = Shop()
    pay, *_ = (openai_agents.function_tool(tool) for tool in shop.tools)
    answers = oai.model_of(model)

    @openai_agents.function_tool(failure_error_function=None)
    def fail() -> str:
        """Fail."""
        raise ValueError("no luck")

    other = openai_agents.Agent("Other", instructions="other", tools=[fail], model=answers)
    main = openai_agents.Agent("Main", instructions="main", tools=[pay], handoffs=[other], model=answers)
    model.script = by_round(
        ToolCall("pay", {"amount": 5}),
        ToolCall("transfer_to_other"),
        ToolCall("pay", {"amount": 7}),
        ToolCall("fail"),
    )
    config = openai_agents.RunConfig(tracing_disabled=True, tool_not_found_behavior="return_error_to_model")
    async with fleet(OpenAIAgent(main, run_config=config).run) as world:
        ref = await world.session()
        turn = await world.ask(ref, "go")
        assert (turn.status, turn.error.message) == ("failed", "Error running tool fail: ValueError: no luck")
        assert shop.undone == [({"amount": 5}, shop.keys[0], True)]
        assert [one.status for one in await world.data(ref, "tool.undone")] == ["completed"]
