"""Compiled graphs of LangGraph as agents."""

import asyncio
import base64
import json
import operator
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, ClassVar, TypedDict

import ormsgpack
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import InjectedState, create_react_agent
from langgraph.runtime import Runtime
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel

import dalsegno
from dalsegno.agents.langgraph import LangGraphAgent, adapt, book, step
from dalsegno.agents.langgraph.tools import tools_in
from dalsegno.core.input import Approval, Message, ToolResult
from dalsegno.errors import ConfigError
from dalsegno.ports import Ref
from dalsegno.testing.model import ToolCall, by_round
from tests.agents.graphs import WIRES, Wire, said, stage, state_of


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@pytest.mark.parametrize("wire", WIRES)
async def test_an_unmodified_agent_is_served_with_its_tools(wire: Wire):
    """`create_agent` as it is: its model calls are steps, its tool calls are recorded, its answer is the turn's."""
    script = by_round(
        ["Looking. ", ToolCall("weather", {"city": "Bologna"})], lambda shown: f"It is {shown.results[-1]}."
    )

    async with stage(script, lambda model: create_agent(model, [weather], system_prompt="brief"), wire=wire) as here:
        turn = await here.ask("How is Bologna?")
        assert turn.status == "completed", turn.error
        assert said(turn) == "Looking.  It is sunny in Bologna."
        turn = await here.ask("And again?")
        assert turn.status == "completed", turn.error
        kinds = [item["type"] for item in await here.items()]
        assert kinds == ["message", "message", "function_call", "function_call_output", "message"] * 2
        assert here.asked == 4


class Answers(TypedDict):
    messages: Annotated[list[Any], add_messages]
    found: Annotated[list[str], operator.add]


async def test_nodes_that_are_not_async():
    """A node in a thread calls its model and its tool without `await`: both are recorded as anybody's."""

    def build(model: Any) -> Any:
        def think(state: MessagesState) -> Any:
            answer = model.bind_tools([weather]).invoke(state["messages"])
            results = [weather.invoke(call) for call in answer.tool_calls]
            return {"messages": [answer, *results]}

        def speak(state: MessagesState) -> Any:
            whole = None
            for chunk in model.stream(state["messages"]):
                whole = chunk if whole is None else whole + chunk
            return {"messages": [whole]}

        graph = StateGraph(MessagesState)
        graph.add_sequence([think, speak])
        graph.add_edge(START, "think")
        return graph.compile()

    async with stage(by_round(ToolCall("weather", {"city": "Rome"}), "Sunny."), build) as here:
        turn = await here.ask("Rome?")
        assert turn.status == "completed", turn.error
        assert [item["type"] for item in turn.output] == ["function_call", "function_call_output", "message"]
        assert await here.outputs() == ["sunny in Rome"]


async def test_parallel_tasks_have_their_own_records():
    """Tasks of a fan-out ask models side by side; each step is named after its task."""

    def build(model: Any) -> Any:
        async def work(state: Any) -> Any:
            answer = await model.ainvoke([HumanMessage(state["city"])])
            return {"found": [str(answer.content)]}

        async def tell(state: Answers) -> Any:
            return {"messages": [AIMessage(" and ".join(state["found"]))]}

        graph = StateGraph(Answers)
        graph.add_node("work", work)
        graph.add_node("tell", tell)
        graph.add_conditional_edges(START, lambda state: [Send("work", {"city": c}) for c in ("Rome", "Oslo")])
        graph.add_edge("work", "tell")
        return graph.compile()

    async with stage(lambda shown: f"<{shown.said}>", build) as here:
        turn = await here.ask("Both?")
        assert turn.status == "completed", turn.error
        assert said(turn).endswith("<Rome> and <Oslo>")
        steps = [data.step for data in await here.world.data(here.ref, "item.done") if data.step]
        assert len({step for step in steps if step.startswith("model@work")}) == 2


async def test_an_interrupt_parks_the_turn():
    """`interrupt()` is an action that somebody answers; what is answered is what it returns, one after another."""

    def build(model: Any) -> Any:
        async def ask(state: MessagesState) -> Any:
            first = interrupt({"question": "who?"})
            second = interrupt("when?")
            return {"messages": [AIMessage(f"{first} at {second['hour']}")]}

        return StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile()

    async with stage(by_round("never"), build) as here:
        turn = await here.ask("book")
        assert turn.status == "waiting"
        (action,) = turn.actions
        assert (action.type, action.name) == ("tool_result", "interrupt")
        assert json.loads(action.arguments) == {"value": {"question": "who?"}}
        turn = await here.answer(ToolResult(action.call_id, output="Ada"))
        assert turn.status == "waiting"
        assert json.loads(turn.actions[0].arguments) == {"value": "when?"}
        turn = await here.answer(ToolResult(turn.actions[0].call_id, output='{"hour": 9}'))
        assert turn.status == "completed", turn.error
        assert said(turn) == "Ada at 9"


async def test_interrupts_side_by_side_are_asked_at_once():
    """Two tasks that wait give one turn with two actions."""

    def build(model: Any) -> Any:
        async def ask(state: Any) -> Any:
            return {"found": [str(interrupt(state["city"]))]}

        async def tell(state: Answers) -> Any:
            return {"messages": [AIMessage(", ".join(sorted(state["found"])))]}

        graph = StateGraph(Answers).add_node("ask", ask).add_node("tell", tell).add_edge("ask", "tell")
        graph.add_conditional_edges(START, lambda state: [Send("ask", {"city": c}) for c in ("Rome", "Oslo")])
        return graph.compile()

    async with stage(by_round("never"), build) as here:
        turn = await here.ask("both")
        assert len(turn.actions) == 2
        for action in turn.actions:
            value = json.loads(action.arguments)["value"]
            turn = await here.answer(ToolResult(action.call_id, output=f"{value} answered"))
        assert said(turn) == "Oslo answered, Rome answered", turn.error


@pytest.mark.parametrize("decision", ["approve", "deny"])
async def test_tool_calls_reviewed_by_middleware(decision: Any):
    """LangChain's human-in-the-loop middleware asks for an approval."""
    script = by_round(ToolCall("weather", {"city": "Rome"}), lambda shown: f"So: {shown.results[-1]}")

    def build(model: Any) -> Any:
        review = HumanInTheLoopMiddleware(interrupt_on={"weather": True})
        return create_agent(model, [weather], middleware=[review])

    async with stage(script, build) as here:
        turn = await here.ask("Rome?")
        assert turn.status == "waiting", turn.error
        (action,) = turn.actions
        assert action.type == "approval"
        turn = await here.answer(Approval(action.call_id, decision, reason="too far"))
        assert turn.status == "completed", turn.error
        assert ("sunny in Rome" in said(turn)) == (decision == "approve")
        assert ("too far" in said(turn)) == (decision == "deny")


async def test_a_subgraph():
    """A graph in a graph: its checkpoints, its model's steps and its interrupts are the turn's."""

    def build(model: Any) -> Any:
        async def inner(state: MessagesState) -> Any:
            word = interrupt("word?")
            return {"messages": [await model.ainvoke([HumanMessage(str(word))])]}

        sub = StateGraph(MessagesState).add_node("inner", inner).add_edge(START, "inner").compile()
        return StateGraph(MessagesState).add_node("sub", sub).add_edge(START, "sub").compile()

    async with stage(lambda shown: f"<{shown.said}>", build) as here:
        turn = await here.ask("go")
        assert turn.status == "waiting", turn.error
        turn = await here.answer(ToolResult(turn.actions[0].call_id, output="hush"))
        assert said(turn) == "<hush>", turn.error


async def test_the_functional_api():
    """An `@entrypoint` is given the messages; what it returns is said; its tasks are recorded."""
    ran: list[str] = []

    def build(model: Any) -> Any:
        @task
        async def double(text: str) -> str:
            ran.append(text)
            return text * 2

        @entrypoint()
        async def agent(messages: list[Any]) -> str:
            answer = await model.ainvoke(messages)
            return await double(str(answer.content))

        return agent

    async with stage(lambda shown: f"<{shown.said}>", build) as here:
        turn = await here.ask("hi")
        assert turn.status == "completed", turn.error
        assert said(turn) == "<hi> <hi><hi>"
        assert ran == ["<hi>"]


async def test_a_conversation_that_somebody_else_began():
    """Turns of a plain function, before and between: the graph's model is shown them all."""

    def build(model: Any) -> Any:
        return create_agent(model, [weather], system_prompt="brief")

    async with stage(
        lambda shown: f"{shown.turn}: {shown.said}", build, around=lambda run: partial(either, run)
    ) as here:
        await here.ask("plain one")
        await here.ask("two")
        await here.ask("plain three")
        turn = await here.ask("four")
        assert said(turn) == "4: four", turn.error
        texts = [message.text for message in here.server.log.shown[-1].messages]
        assert texts == ["plain one", "plainly", "two", "2: two", "plain three", "plainly", "four"]


async def either(graph: Any, turn: Any) -> None:
    """A plain function for some turns, the graph for the others."""
    await (turn.say("plainly") if turn.text.startswith("plain") else graph(turn))


async def test_a_turn_that_failed_leaves_no_call_without_a_result():
    """A node fails while a tool's call is open: the next turn's model is shown what became of it."""

    @tool
    def broken(city: str) -> str:
        """Breaks."""
        raise RuntimeError("out of order")

    def script(shown: Any) -> Any:
        return ToolCall("broken", {"city": "Rome"}) if shown.said == "Rome?" else f"{shown.said}"

    async with stage(script, lambda model: create_agent(model, [broken])) as here:
        turn = await here.ask("Rome?")
        assert (turn.status, turn.error.message) == ("failed", "out of order")
        turn = await here.ask("Hello?")
        assert said(turn) == "Hello?", turn.error
        roles = [message.role for message in here.server.log.shown[-1].messages]
        assert roles == ["user", "assistant", "tool", "user"]
        assert "out of order" in here.server.log.shown[-1].messages[2].text


async def test_a_turn_that_was_rolled_back():
    """It is no part of the graph's conversation either."""

    def build(model: Any) -> Any:
        return create_agent(model, [weather])

    async with stage(lambda shown: f"{shown.turn}", build) as here:
        await here.ask("one")
        hold = here.server.hold(0)
        await here.world.say(here.ref, "two")
        await hold.reached()
        receipt = await here.world.say(here.ref, Message("three", on_busy="rollback"))
        hold.release()
        turn = await here.world.end_of(here.ref, receipt)
        assert said(turn) == "2", turn.error
        assert [message.text for message in here.server.log.shown[-1].messages] == ["one", "1", "three"]


async def test_a_message_that_joins_the_turn():
    """Steering is given to the graph once it has come to its end."""

    async with stage(lambda shown: f"to {shown.said}", lambda model: create_agent(model, [weather])) as here:
        hold = here.server.hold(0)
        receipt = await here.world.say(here.ref, "one")
        await hold.reached()
        await here.world.say(here.ref, Message("two", on_busy="steer"))
        hold.release()
        turn = await here.world.end_of(here.ref, receipt)
        assert said(turn) == "to one to two", turn.error


def loops(model: Any) -> Any:
    graph = StateGraph(MessagesState).add_node("again", lambda state: {"messages": []})
    return LangGraphAgent(
        graph.add_edge(START, "again").add_edge("again", "again").compile(), config={"recursion_limit": 5}
    )


def keeps_a_lock(model: Any) -> Any:
    class State(MessagesState):
        lock: Any

    graph = StateGraph(State).add_node("lock", lambda state: {"lock": threading.Lock()})
    return graph.add_edge(START, "lock").compile()


def raises(model: Any) -> Any:
    def fail(state: Any) -> Any:
        raise ValueError("no idea")

    return StateGraph(MessagesState).add_node("fail", fail).add_edge(START, "fail").compile()


def blocks(model: Any) -> Any:
    async def block(state: Any) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    return StateGraph(MessagesState).add_node("block", block).add_edge(START, "block").compile()


@pytest.mark.parametrize(
    ("build", "code", "why"),
    [
        (loops, "GraphRecursionError", "Recursion limit of 5"),
        (keeps_a_lock, "DalsegnoError", "'lock' cannot be stored"),
        (raises, "ValueError", "no idea"),
        (blocks, "DalsegnoError", "ainvoke"),
    ],
)
async def test_bad_graphs_fail_their_turn(build: Any, code: str, why: str):
    """And say why; the session and the replica go on."""
    async with stage(by_round("never"), build) as here:
        for _ in range(2):
            turn = await here.ask("go")
            assert (turn.status, turn.error.code) == ("failed", code)
            assert why in turn.error.message


async def test_a_tool_that_nobody_has():
    """The model is told, as LangGraph tells it, and so is whoever reads the log."""
    script = by_round(ToolCall("nothing", {}), lambda shown: shown.results[-1])
    async with stage(script, lambda model: create_agent(model, [weather])) as here:
        turn = await here.ask("go")
        assert "nothing is not a valid tool" in said(turn), turn.error
        (output,) = (item for item in turn.output if item["type"] == "function_call_output")
        assert (output["output"], output["status"]) == (said(turn), "incomplete")


async def test_a_state_without_messages():
    """`input` and `output` map the conversation to any state."""

    class State(TypedDict, total=False):
        question: str
        answer: str

    def build(model: Any) -> Any:
        graph = StateGraph(State).add_node("shout", lambda state: {"answer": state["question"].upper()})
        compiled = graph.add_edge(START, "shout").compile()
        return LangGraphAgent(
            compiled, input=lambda new: {"question": new[-1].text}, output=lambda state: state["answer"]
        )

    async with stage(by_round("never"), build) as here:
        turn = await here.ask("hello")
        assert said(turn) == "HELLO", turn.error


async def test_a_graph_that_stops_before_a_node():
    """`interrupt_before` asks for an approval; denied, the turn ends there and the next one is whole."""
    script = by_round(ToolCall("weather", {"city": "Rome"}), lambda shown: f"So: {shown.results[-1]}")

    async with stage(script, lambda model: create_agent(model, [weather], interrupt_before=["tools"])) as here:
        turn = await here.ask("Rome?")
        assert turn.status == "waiting", turn.error
        turn = await here.answer(Approval(turn.actions[0].call_id, "approve"))
        assert said(turn) == "So: sunny in Rome", turn.error
        turn = await here.ask("Rome again?")
        turn = await here.answer(Approval(turn.actions[0].call_id, "deny"))
        assert turn.status == "completed", turn.error
        here.server.script = lambda shown: "fine"
        turn = await here.ask("Enough.")
        assert said(turn) == "fine", turn.error


async def test_steps_of_a_node():
    """What a node does by itself is recorded with `step`; without a turn it is just done."""
    done: list[str] = []

    async def work() -> str:
        done.append("worked")
        return "worked"

    def build(model: Any) -> Any:
        async def node(state: Any) -> Any:
            return {"messages": [AIMessage(await step("work", work))]}

        return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()

    async with stage(by_round("never"), build) as here:
        turn = await here.ask("go")
        assert said(turn) == "worked", turn.error
        assert [d.item["output"] for d in await here.world.data(here.ref, "item.done") if d.step and "work@" in d.step]
    assert await step("work", work) == "worked"


async def test_what_a_run_is_configured_with():
    """`config` may be made of the turn: `configurable` for nodes, `context` for graphs that have one."""

    class Who(TypedDict):
        name: str

    def build(model: Any) -> Any:
        async def node(state: Any, config: RunnableConfig, runtime: Runtime[Who]) -> Any:
            return {"messages": [AIMessage(f"{config['configurable']['tone']} {runtime.context['name']}")]}

        graph: Any = StateGraph(MessagesState, context_schema=Who)
        graph.add_node("node", node).add_edge(START, "node")
        made = lambda turn: {"configurable": {"tone": "kind"}, "context": {"name": turn.tenant}}  # noqa: E731
        return LangGraphAgent(graph.compile(), config=made)

    async with stage(by_round("never"), build) as here:
        assert said(await here.ask("go")) == "kind t"


@pytest.mark.filterwarnings("ignore::langgraph.warnings.LangGraphDeprecatedSinceV10")
async def test_the_prebuilt_agent_with_tools_of_all_kinds():
    """`create_react_agent`: tools that ask a human, that change the state, that are given it, that return no text."""

    @tool
    @dalsegno.tool("keyed", gate="approval")
    async def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    @tool
    def look(city: str, state: Annotated[Any, InjectedState], call_id: Annotated[str, InjectedToolCallId]) -> Any:
        """Look."""
        told = ToolMessage(f"{city}, after {len(state['messages'])}", tool_call_id=call_id)
        return Command(update={"messages": [told]})

    @tool(response_format="content_and_artifact")
    async def measure(what: str) -> Any:
        """Measure."""
        return "long", {"metres": 7}

    calls = [ToolCall("pay", {"amount": 3}), ToolCall("look", {"city": "Rome"}), ToolCall("measure", {"what": "it"})]
    script = by_round(calls, lambda shown: " | ".join(shown.results))
    async with stage(script, lambda model: create_react_agent(model, [pay, look, measure])) as here:
        turn = await here.ask("all")
        assert turn.status == "waiting", turn.error
        (action,) = turn.actions
        assert (action.type, action.name) == ("approval", "pay")
        turn = await here.answer(Approval(action.call_id, "approve"))
        assert said(turn) == "paid 3 | Rome, after 2 | long", turn.error
        found = (await state_of(here.world, here.ref))["messages"]
        assert [message.artifact for message in found if message.type == "tool"] == [None, None, {"metres": 7}]
        assert here.asked == 2


async def test_a_replica_that_drains_hands_over():
    """It leaves at a step's end, in a node of any kind; the other goes on."""

    def build(model: Any) -> Any:
        def think(state: MessagesState) -> Any:
            return {"messages": [model.invoke(state["messages"]), model.invoke(state["messages"])]}

        return StateGraph(MessagesState).add_node("think", think).add_edge(START, "think").compile()

    answers = iter(["one", "two"])
    async with stage(lambda shown: next(answers), build) as here:
        await here.world.start()
        hold = here.server.hold(0)
        receipt = await here.world.say(here.ref, "go")
        await hold.reached()
        draining = asyncio.ensure_future(here.world.ones[0].replica.drain())
        await asyncio.sleep(0)
        hold.release()
        turn = await here.world.end_of(here.ref, receipt)
        await draining
        assert said(turn) == "one two", turn.error
        assert here.asked == 2
        assert [d.attempt for d in await here.world.data(here.ref, "turn.started")] == [1, 1]


def test_what_is_no_compiled_graph():
    """Says what to do."""
    with pytest.raises(TypeError, match="compile"):
        adapt(StateGraph(MessagesState), name="x")
    with pytest.raises(ConfigError, match="input="):
        LangGraphAgent(StateGraph(Plain).add_node("node", lambda state: state).add_edge(START, "node").compile())
    with pytest.raises(ConfigError, match="keyde"):
        tools_in(create_agent(GenericFakeChatModel(messages=iter([])), [wrong]))


class Plain(TypedDict):
    text: str


@tool
def wrong(text: str) -> str:
    """Is declared wrong."""
    return text


wrong.metadata = {"dalsegno": {"effect": "keyde"}}


class Evil:
    """What nobody may make by writing to a log."""

    made: ClassVar[list[Any]] = []

    def __init__(self, *given: Any, **named: Any) -> None:
        self.made.append((given, named))


class Parcel(BaseModel):
    """A type that the graph's state names."""

    weight: int


async def test_a_client_cannot_have_objects_made():
    """Details of an item that a client brought in name a class: it is not called, and the item is what it says."""
    Evil.made.clear()
    forged = ormsgpack.Ext(1, ormsgpack.packb([Evil.__module__, "Evil", [1]]))
    packed = base64.b64encode(ormsgpack.packb(forged)).decode()
    item: Any = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "hi"}],
        "details": {"langchain": ["msgpack", packed]},
    }
    async with stage(lambda shown: "fine", lambda model: create_agent(model, [weather])) as here:
        receipt = await here.world.say(
            here.ref, Message(None, items=[item, {"type": "message", "role": "user", "content": "hello"}])
        )
        turn = await here.world.end_of(here.ref, receipt)
        assert not Evil.made
        assert said(turn) == "fine", turn.error
        assert [message.text for message in here.server.log.shown[-1].messages] == ["hi", "hello"]


async def test_types_that_the_state_names_are_kept():
    """And others are refused when they are written, not when they are read."""

    class State(MessagesState):
        parcel: Parcel
        thing: Any

    def build(model: Any) -> Any:
        def pack(state: Any) -> Any:
            thing = {"thing": Evil()} if state["messages"][-1].text == "evil" else {}
            return {"parcel": Parcel(weight=len(state["messages"])), **thing}

        return StateGraph(State).add_node("pack", pack).add_edge(START, "pack").compile()

    async with stage(by_round("never"), build) as here:
        for weight in (1, 2):
            assert (await here.ask("go")).status == "completed"
            assert (await state_of(here.world, here.ref))["parcel"] == Parcel(weight=weight)
        turn = await here.ask("evil")
        assert (turn.status, turn.error.code) == ("failed", "DalsegnoError")
        assert (await here.ask("go")).status == "completed"


async def test_a_fork_goes_on_from_where_it_was_made():
    """The graph's state comes along; what is said in the one is not heard in the other."""

    async with stage(lambda shown: f"{shown.turn}", lambda model: create_agent(model, [weather])) as here:
        for text in ("one", "two"):
            await here.ask(text)
        origin, head = here.ref, (await here.world.log(here.ref))[-1].seq
        await here.ask("three")
        made = await here.world.any.fork(origin, at=head)
        here.ref = Ref(origin.tenant, made.id)
        assert said(await here.ask("other")) == "3"
        assert [message.text for message in here.server.log.shown[-1].messages] == ["one", "1", "two", "2", "other"]
        here.ref = origin
        assert said(await here.ask("four")) == "4"


async def test_a_rolled_back_turn_that_repeated_the_state(monkeypatch: pytest.MonkeyPatch):
    """The newest page was written by the turn that is gone: the graph finds what was before it all the same."""
    monkeypatch.setattr(book, "REPEAT_BYTES_MIN", 10)
    monkeypatch.setattr(book, "REPEAT_RATIO", 1)
    async with stage(lambda shown: f"{shown.turn}", lambda model: create_agent(model, [weather])) as here:
        await here.ask("one")
        for text in ("two", "three"):
            hold = here.server.hold(0)
            await here.world.say(here.ref, "gone")
            await hold.reached()
            receipt = await here.world.say(here.ref, Message(text, on_busy="rollback"))
            hold.release()
            turn = await here.world.end_of(here.ref, receipt)
            assert turn.status == "completed", turn.error
        texts = [message.text for message in here.server.log.shown[-1].messages]
        assert texts == ["one", "1", "two", "2", "three"]


async def test_an_approval_in_a_thread():
    """A node that is not async calls a tool that a human must allow: the turn parks, and goes on in the node."""

    @tool
    @dalsegno.tool("keyed", gate="approval")
    def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    def build(model: Any) -> Any:
        def node(state: MessagesState) -> Any:
            answer = model.bind_tools([pay]).invoke(state["messages"])
            return {"messages": [answer, *(pay.invoke(call) for call in answer.tool_calls)]}

        return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()

    async with stage(by_round(ToolCall("pay", {"amount": 3})), build) as here:
        turn = await here.ask("pay")
        assert turn.status == "waiting", turn.error
        turn = await here.answer(Approval(turn.actions[0].call_id, "approve"))
        assert turn.status == "completed", turn.error
        assert await here.outputs() == ["paid 3"]
        assert here.asked == 1


async def test_a_message_that_joins_the_turn_as_it_ends():
    """The graph has come to its end and the turn has not: it is run again, and hears the message."""
    heard: list[str] = []

    async def late(run: Any, turn: Any) -> None:
        await run(turn)
        if not heard:
            heard.append(turn.id)
            await here.world.say(here.ref, Message("two", on_busy="steer"))

    async with stage(
        lambda shown: f"to {shown.said}",
        lambda model: create_agent(model, [weather]),
        around=lambda run: partial(late, run),
    ) as here:
        turn = await here.ask("one")
        assert said(turn) == "to one to two", turn.error
        assert here.asked == 2
        assert len((await state_of(here.world, here.ref))["messages"]) == 4


async def test_more_waiting_nodes_than_threads():
    """Nodes, tools and a model that are not async, in more turns than there are threads: none waits for another."""

    def build(model: Any) -> Any:
        def node(state: MessagesState) -> Any:
            plain = GenericFakeChatModel(messages=iter([AIMessage("well")]))
            result = weather.invoke({"type": "tool_call", "id": "c1", "name": "weather", "args": {"city": "Rome"}})
            return {"messages": [AIMessage(f"{plain.invoke('?').text}, {result.text}")]}

        return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()

    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(2))
    try:
        async with stage(by_round("never"), build) as here:
            refs = [await here.world.session() for _ in range(6)]
            turns = await asyncio.gather(*(here.world.ask(ref, "go") for ref in refs))
            assert [said(turn) for turn in turns] == ["well well, sunny in Rome"] * 6, turns[0].error
    finally:
        loop.set_default_executor(ThreadPoolExecutor())


async def test_without_a_turn_nothing_is_changed():
    """The seam is there and lets everything through: a model streams its pieces, a tool is just run."""
    model = GenericFakeChatModel(messages=iter([AIMessage("one two"), AIMessage("three four")]))
    assert [chunk.text async for chunk in model.astream("?")][:3] == ["one", " ", "two"]
    assert [chunk.text for chunk in model.stream("?")][:3] == ["three", " ", "four"]
    assert await weather.ainvoke({"city": "Rome"}) == weather.invoke({"city": "Rome"}) == "sunny in Rome"
