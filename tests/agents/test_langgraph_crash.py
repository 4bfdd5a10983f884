"""A graph of LangGraph whose replica dies: at every step of the turn and at every delta of the model.

0 model calls repeated after they were recorded, 0 effects doubled, 0 contexts that are not what the log says.
"""

import asyncio
import json
import operator
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from itertools import count
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send, interrupt

import dalsegno
from dalsegno.agents.langgraph import LangGraphAgent
from dalsegno.agents.langgraph.messages import messages
from dalsegno.core.context import context
from dalsegno.core.input import ToolResult
from dalsegno.core.item import text_of
from dalsegno.errors import LeaseLost
from dalsegno.testing.model import Answer, ModelServer, Pace, Thought, To, ToolCall, by_round
from tests.agents.crashes import Crasher, at_every_step, last_event, turn_is_over
from tests.agents.graphs import WIRES, Wire, cut, model_of, state_of, told
from tests.runtime.fleet import Fleet, streamed
from tests.support import wait_until

EFFECTS: ContextVar[Counter[str]] = ContextVar("effects")
"""What the tools of a play did: several are on at once."""


@tool
@dalsegno.tool(effect="keyed")
async def pay(amount: int) -> str:
    """Pay; the bank knows the key."""
    EFFECTS.get()[f"pay {dalsegno.current_call().key}"] = 1
    return f"paid {amount}"


@tool
def post(text: str) -> str:
    """Post a letter: nobody can tell whether it was posted."""
    EFFECTS.get()[f"post {text}"] += 1
    return f"posted {text}"


@tool
@dalsegno.tool(effect="read")
async def look(place: str) -> str:
    """Look."""
    return f"seen {place}"


class Desk(TypedDict):
    messages: Annotated[list[Any], add_messages]
    found: Annotated[list[str], operator.add]


def desk(model: Any) -> Any:
    """Everything at once: a node in a thread, a fan-out, an agent in a graph, an interrupt."""

    def open_up(state: Desk) -> Any:
        asked = [SystemMessage("opening"), HumanMessage("open")]
        answer = model.bind_tools([post]).invoke(asked)
        results = [post.invoke(call) for call in answer.tool_calls]
        return {"found": [result.text for result in results]}

    async def search(state: Any) -> Any:
        answer = await model.bind_tools([look]).ainvoke([SystemMessage("search"), HumanMessage(state["place"])])
        return {"found": [(await look.ainvoke(call)).text for call in answer.tool_calls]}

    async def ask(state: Desk) -> Any:
        return {"found": [str(interrupt("which?"))]}

    graph = StateGraph(Desk)
    graph.add_node("open_up", open_up).add_node("search", search).add_node("ask", ask)
    graph.add_node("clerk", create_agent(model, [pay, post], system_prompt="clerk"))
    graph.add_edge(START, "open_up").add_edge("search", "ask").add_edge("ask", "clerk")
    graph.add_conditional_edges("open_up", lambda state: [Send("search", {"place": p}) for p in ("Rome", "Oslo")])
    return graph.compile()


def script(shown: Any) -> Any:
    """What the model says at each place of the graph."""
    pace = Pace(delay=timedelta(milliseconds=3))  # what is said faster goes out in one piece
    if shown.instructions == "opening":
        return Answer(("Opening. One. Two. ", ToolCall("post", {"text": "first"})), pace=pace)
    if shown.instructions == "search":
        return ToolCall("look", {"place": shown.said})
    calls = ToolCall("pay", {"amount": 3}), ToolCall("post", {"text": "second"})
    slowly = Answer((Thought("Hm. "), "One moment, one moment. ", *calls), pace=pace)
    return by_round(slowly, lambda shown: f"All done: {len(shown.results)} results.")(shown)


class Death(Crasher):
    """Nothing more happens on a dead replica. Of its threads some find out late: they are told, so that they end."""

    async def _step(self, point: str) -> None:
        try:
            async with asyncio.timeout(0.3):
                await super()._step(point)
        except TimeoutError:
            raise LeaseLost from None


class Play:
    """One turn, with one crash."""

    def __init__(self, server: ModelServer, make: Any, wire: Wire = "chat") -> None:
        self.server = server
        self.world = Fleet(None)
        self.make = lambda: LangGraphAgent(make(model_of(server, wire))).run

    async def run(self, place: int) -> tuple[Crasher, Any]:
        """The crash at that step; and the session."""
        world = self.world
        for _ in range(2):
            world.agent = self.make()
            await world.start()
        ref = await world.session()
        crasher = Death(world, place=place, noted=lambda: len(self.server.log.entries))
        crasher.watch(world.ones[0])
        saying = asyncio.ensure_future(world.say(ref, "go", key="k"))
        await wait_until(lambda: saying.done() or crasher.point, description="the message to be taken")
        if not saying.done():
            saying.cancel()
            await wait_until(lambda: len(world.ones) == 1, description="the replica to die")
            await world.say(ref, "go", key="k")
        while await turn_is_over(world, ref) == "turn.waiting":
            (action,) = (await world.data(ref, "turn.waiting"))[-1].actions
            await world.any.admit(ref, ToolResult(action.call_id, output="this"), key=action.call_id)
            await wait_until(lambda: goes_on(world, ref), description="the turn to go on")
        await crasher.over()
        return crasher, ref

    async def close(self) -> None:
        """Let go."""
        for one in self.world.ones:
            await one.replica.drain()
            await one.replica.stop()


async def goes_on(world: Fleet, ref: Any) -> bool:
    return await last_event(world, ref) != "turn.waiting"


async def problems(play: Play, crasher: Crasher, ref: Any, *, effects: dict[str, int]) -> list[str]:
    """What must not be: by the log, by the provider's own log, by the effects."""
    found, log = list[str](), await play.world.log(ref)
    if log[-1].type != "turn.completed":
        found.append(f"ended as {log[-1].type}: {log[-1].data!r}")
    found += [f"refused: {why}" for why in play.server.log.refusals]
    adopted = [event.seq for event in log if event.type == "turn.started" and b'"attempt":1' not in event.data]
    done = [(event.seq, json.loads(event.data)) for event in log if event.type == "item.done"]
    before = [data for seq, data in done if adopted and seq < adopted[0] and "model@" in data.get("step", "")]
    recorded = {(item["type"], text_of(item)) for item in (data["item"] for data in before)}
    for entry in play.server.log.entries[crasher.before :] if adopted else ():
        assert entry.answer is not None
        said = {("message", entry.answer.text.strip())} if entry.answer.text else set()
        said |= {("function_call", json.dumps(call.arguments, separators=(",", ":"))) for call in entry.answer.calls}
        again = said & {(kind, text.strip()) for kind, text in recorded}
        found += [f"{text} was on record, and the model was asked again" for text in again]
    counted = Counter(name.split()[0] for name, times in EFFECTS.get().items() for _ in range(times))
    unknown = sum("outcome of this call is unknown" in str(data) for _, data in done)
    for name, wanted in effects.items():
        if counted[name] > wanted or counted[name] + unknown < wanted:
            found.append(f"{name} happened {counted[name]} times instead of {wanted}, {unknown} unknown")
    state = await state_of(play.world, ref)
    if not str(state["messages"][-1].text).startswith("All done"):
        found.append(f"the graph ended as {state}")
    if sorted(state["found"]) != sorted({*state["found"]}) or len(state["found"]) != 4:
        found.append(f"a node's writes are doubled or lost: {state['found']}")
    return found


async def crash_at(place: int) -> tuple[str | None, list[str]]:
    """Where the replica died at its step of that number, and what came of it that must not be."""
    EFFECTS.set(Counter())
    async with ModelServer(script) as server:
        play = Play(server, desk)
        crasher, ref = await play.run(place)
        found = await problems(play, crasher, ref, effects={"pay": 1, "post": 2})
        await play.close()
    return crasher.point, [f"crash {place} at {crasher.point}: {text}" for text in found]


async def test_a_crash_at_every_step():
    """Wherever its replica dies, the turn completes on another one, and each effect happened once at most."""
    points = await at_every_step(crash_at)
    assert points["log.commit:before"] > 5
    assert points["hot.publish:after"] > 2, points


ANSWER: list[str | Thought | ToolCall] = [
    Thought("Let me think about it. "),
    "The answer is forty two.",
    ToolCall("pay", {"amount": 3}),
]


def simple(model: Any) -> Any:
    return create_agent(model, [pay], system_prompt="simple")


def agent(server: ModelServer, wire: Wire) -> Callable[[], LangGraphAgent]:
    return lambda: LangGraphAgent(simple(model_of(server, wire)))


@pytest.mark.parametrize("wire", WIRES)
async def test_a_crash_at_every_delta(wire: Wire):
    """The successor's answer repeats what readers have and goes on: every item whole, once, without a gap. The graph's
    messages, the log's items and what the model was shown are the same conversation.
    """
    async with ModelServer(by_round(ANSWER, "Paid.")) as server:
        for at in count():
            EFFECTS.set(Counter())
            server.log.clear()
            ref, log, frames, state = await cut(server, agent(server, wire), at)
            done = [json.loads(event.data) for event in log if event.type == "item.done"]
            texts = {data["item"]["id"]: text_of(data["item"]) for data in done if data.get("streamed")}
            assert log[-1].type == "turn.completed", log[-1].data
            assert not [data for data in done if data["item"].get("status") == "incomplete"]
            assert streamed(frames) == {name: text for name, text in texts.items() if name in streamed(frames)}
            assert [text for text in texts.values() if "forty" in text] == ["The answer is forty two."]
            assert sum(EFFECTS.get().values()) == 1
            assert not server.log.refusals
            assert len(server.log.entries) == 3, "the open step is asked for again, and nothing else"
            serde = JsonPlusSerializer()
            assert told(state["messages"]) == told(messages(context(log, session=ref.id).items, serde))
            shown = server.log.shown[-1]
            through = [data["through"] for data in done if "model@" in data.get("step", "") and "through" in data][-1]
            by_log = messages(context(log[:through], session=ref.id).items, serde)
            assert [m.text.strip() for m in shown.messages] == [str(m.text).strip() for m in by_log]
            if at > server.log.entries[0].deltas:
                break
        assert at > 10


@pytest.mark.parametrize("at", [2, 8])
async def test_an_answer_that_diverges_is_closed(at: int):
    """A model that says something else after the crash: what was shown is closed as incomplete, the new begins anew."""
    answers = iter(["one two three four five six seven eight nine", "Something else entirely."])
    async with ModelServer(lambda shown: next(answers)) as server:
        _, log, frames, state = await cut(server, agent(server, "chat"), at, until=streamed)
        done = [json.loads(event.data)["item"] for event in log if event.type == "item.done"]
        said = [item for item in done if item["type"] == "message"]
        assert [item["status"] for item in said] == ["incomplete", "completed"]
        assert text_of(said[1]) == "Something else entirely." == state["messages"][-1].text
        shown = list(streamed(frames).values())
        assert shown in ([text_of(item) for item in said], [text_of(said[0])]), (
            "what is said in one breath is not streamed"
        )


async def test_a_large_output_after_a_crash():
    """What the graph was given of it is what the log shows, before the crash and after it."""
    large = "x" * 100_000

    @tool
    @dalsegno.tool("read")
    def fetch(page: str) -> str:
        """Fetch."""
        return large

    def build(model: Any) -> Any:
        def node(state: Any) -> Any:
            answer = model.bind_tools([fetch]).invoke(state["messages"])
            results = [fetch.invoke(call) for call in answer.tool_calls]
            return {"messages": [answer, *results, model.invoke([*state["messages"], answer, *results])]}

        return StateGraph(Desk).add_node("node", node).add_edge(START, "node").compile()

    async with ModelServer(by_round(ToolCall("fetch", {"page": "1"}), "Read.")) as server:
        play = Play(server, build)
        world, hold = play.world, server.hold(0, to=To(round=1))
        for _ in range(2):
            world.agent = play.make()
            await world.start()
        ref = await world.session()
        await world.say(ref, "go")
        await hold.reached()
        await world.kill(0)
        hold.release()
        assert await turn_is_over(world, ref) == "turn.completed"
        texts = [[message.text for message in shown.messages] for shown in server.log.shown]
        assert texts[1] == texts[2]
        assert 100 < len(texts[1][-1]) < 10_000
        found = (await state_of(world, ref))["messages"]
        assert str(found[2].text) == texts[1][-1]
        await play.close()
