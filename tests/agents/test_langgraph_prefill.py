"""A model of LangChain's that is given the beginning of its answer after a crash, and says the rest."""

import asyncio
import json
from collections.abc import Callable
from itertools import accumulate, count
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import SecretStr

import dalsegno
from dalsegno.agents.langgraph import LangGraphAgent
from dalsegno.agents.langgraph.messages import messages
from dalsegno.agents.langgraph.prefill import Prefill, Rest
from dalsegno.core.context import context
from dalsegno.core.item import text_of
from dalsegno.testing.model import ModelServer, Shown, Thought, To, ToolCall
from tests.agents.crashes import turn_is_over
from tests.agents.graphs import Wire, cut, model_of, state_of, told
from tests.runtime.fleet import Fleet, streamed
from tests.support import wait_until

VLLM: Prefill = {"extra_body": {"continue_final_message": True, "add_generation_prompt": False}}
PREFILLS: dict[Wire, Prefill] = {"chat": VLLM, "messages": {}, "responses": {}}
THOUGHT = ["Well", "."]
WORDS = ["The", " answer", ":", "\n forty", " two", ".", "\n\n"]
"""The deltas of the answer; its end are blanks."""


@tool
@dalsegno.tool(effect="read")
async def look(place: str) -> str:
    """Look."""
    return f"seen {place}"


def continued(begun: str) -> str:
    """The blanks at the end of what was said are said again by whoever was not given them."""
    return f"{begun.rstrip()}{WORDS[-1]}and more" if begun.rstrip().endswith(".") else f"{begun} and more"


def script(shown: Shown) -> Any:
    """Whoever is not given the beginning of the answer says it again, whoever is says something else than before."""
    if shown.results:
        return "Seen."
    calls = [ToolCall("look", {"place": "Rome"})] if shown.tools else []
    if shown.prefix:
        return [continued(shown.prefix), *calls]
    return [Thought("".join(THOUGHT)), "".join(WORDS), *calls]


def nodes(model: Any) -> Any:
    """Nodes that are not async, and models without tools."""

    def first(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    return StateGraph(MessagesState).add_node("first", first).add_edge(START, "first").compile()


def served(server: ModelServer, wire: Wire, make: Any, prefill: Any) -> Callable[[], LangGraphAgent]:
    return lambda: LangGraphAgent(make(model_of(server, wire)), prefill=prefill)


def agent_of(model: Any) -> Any:
    return create_agent(model, [look])


def has(text: str) -> Callable[[list[Any]], bool]:
    """Whether readers have that much of a message, and of no message if that is nothing."""

    def found(frames: list[Any]) -> bool:
        said = {name: told for name, told in streamed(frames).items() if name.startswith("msg")}
        return [*said.values()] == ([text] if text else [])

    return found


@pytest.mark.parametrize("make", [agent_of, nodes])
@pytest.mark.parametrize("wire", ["chat", "messages"])
async def test_an_answer_is_continued_from_every_delta(wire: Wire, make: Any):
    """Its model is given what readers have, and its answer is that and what it says then: on record, in the graph's
    messages, for readers, and in what models are shown next. Where nothing of it was shown it is asked as ever.
    """
    ends, found = ["", *accumulate(WORDS)], set[str]()
    async with ModelServer(script) as server:
        for at in count():
            server.log.clear()
            begun = ends[min(max(at - len(THOUGHT), 0), len(WORDS))]
            agent = served(server, wire, make, PREFILLS[wire])
            ref, log, frames, state = await cut(server, agent, at, until=has(begun))
            assert log[-1].type == "turn.completed", log[-1].data
            assert not server.log.refusals
            asked = server.log.shown
            assert asked[1].prefix == begun.rstrip()
            found.add(begun)
            whole = continued(begun) if begun else "".join(WORDS)
            done = [json.loads(event.data)["item"] for event in log if event.type == "item.done"]
            said = [item for item in done if item["type"] == "message"]
            assert [text_of(item) for item in said] == [whole, *(["Seen."] if make is agent_of else [])]
            assert not [item for item in done if item.get("status") == "incomplete"]
            heard = [text for text in streamed(frames).values() if "The" in text]
            assert heard == [whole] or not (heard or begun), "what is said in one breath is not streamed"
            items = context(log, session=ref.id).items
            assert told(state["messages"]) == told(messages(items, JsonPlusSerializer()))
            assert (state["messages"][1].text, len(asked)) == (whole, 2 + (make is agent_of))
            if make is agent_of:
                assert [told.text.strip() for told in asked[2].messages] == ["go", whole.strip(), "seen Rome"]
            if at > server.log.entries[0].deltas:
                break
    assert found == {*ends}


@pytest.mark.parametrize(("begun", "pieces", "whole"), [
    ("one", [" two"], "one two"),
    ("one ", ["", " ", "two"], "one two"),
    ("one\n", ["\n", "  two"], "one\n  two"),
    ("one\n\n", ["\n two"], "one\n\n two"),
    ("one \n", [" ", "two \n"], "one \ntwo \n"),
    ("", [" ", "two"], " two"),
    ("one ", [], "one "),
])  # fmt: skip
def test_blanks_that_the_model_was_not_given_are_not_said_twice(begun: str, pieces: list[str], whole: str):
    """However its answer comes in pieces; what readers are told and what the graph is given are the same."""
    rest = Rest(begun)
    assert begun + "".join(str(rest.hear(piece)) for piece in pieces) == whole
    said = "".join(pieces)
    for content in (said, [{"type": "text", "text": said, "index": 0}], [said]):
        assert rest.whole(AIMessage(content)).text == whole  # type: ignore[arg-type]
    call: list[Any] = [{"type": "tool_use", "id": "c", "name": "look", "input": {}}]
    assert rest.whole(AIMessage(call)).text == begun


def formatted(model: Any) -> Any:
    return nodes(model.bind(response_format={"type": "json_object"}))


def begins(model: Any) -> Any:
    """A graph that gives its model the beginning of an answer by itself."""

    async def node(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke([*state["messages"], AIMessage("First")])]}

    return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile()


@pytest.mark.parametrize(("wire", "make", "prefill"), [
    ("chat", nodes, None),
    ("messages", nodes, None),
    ("responses", nodes, {}),
    ("chat", formatted, VLLM),
    ("chat", begins, {}),
    ("chat", nodes, lambda model: VLLM if isinstance(model, ChatAnthropic) else None),
])  # fmt: skip
async def test_who_cannot_go_on_says_it_again(wire: Wire, make: Any, prefill: Any):
    """Unless the user says so, and where it cannot be had, the model is asked as it was before."""
    answer = '{"verdict": "guilty of everything"}'
    async with ModelServer(lambda shown: answer) as server:
        _, log, frames, _ = await cut(server, served(server, wire, make, prefill), 4, until=streamed)
        assert log[-1].type == "turn.completed", log[-1].data
        one, two = (entry.request for entry in server.log.entries)
        assert one == two
        assert answer in streamed(frames).values()
        assert not [event for event in log if b'"incomplete"' in event.data]


async def test_a_function_says_which_model_can():
    """And with which options; an object among them is added to what the model says itself."""
    given: list[str] = []

    def prefill(model: Any) -> Any:
        given.append(model.model_name)
        return VLLM

    async with ModelServer(lambda shown: "one two three four") as server:

        def agent() -> LangGraphAgent:
            model = ChatOpenAI(
                model="gpt-test", base_url=f"{server.url}/v1", api_key=SecretStr("none"), extra_body={"top_k": 3}
            )
            return LangGraphAgent(nodes(model), prefill=prefill)

        *_, state = await cut(server, agent, 2, until=has("one two"))
        assert (given, server.log.shown[-1].prefix) == (["gpt-test"], "one two")
        assert state["messages"][-1].text == "one two three four"
        last = server.log.entries[-1].request
        assert (last["top_k"], last["continue_final_message"]) == (3, True)


async def test_a_model_that_refuses_is_asked_from_the_beginning():
    """That it cannot be given the beginning does not fail the turn."""
    async with ModelServer(lambda shown: "one two three four") as server:

        def agent() -> LangGraphAgent:
            model = ChatAnthropic(
                model_name="claude-opus-4-6", base_url=server.url, api_key=SecretStr("none"), timeout=None, stop=None
            )
            return LangGraphAgent(nodes(model), prefill={})

        _, log, frames, state = await cut(server, agent, 2, until=has("one two"))
        assert log[-1].type == "turn.completed", log[-1].data
        assert ["prefill" in why for why in server.log.refusals] == [True]
        assert [*streamed(frames).values()] == ["one two three four"] == [state["messages"][-1].text]


async def test_the_beginning_is_for_the_task_that_it_belongs_to():
    """Two tasks side by side: the successor's asks the other model first, and it is not given the words of this one."""
    world, again = Fleet(None), asyncio.Event()

    def build(model: Any) -> Any:
        async def early(state: MessagesState) -> Any:
            if again.is_set():
                await wait_until(lambda: "late" in asked(), description="the other task to ask first")
            return {"messages": [await model.ainvoke("early")]}

        async def late(state: MessagesState) -> Any:
            await again.wait()
            return {"messages": [await model.ainvoke("late")]}

        graph = StateGraph(MessagesState).add_node("early", early).add_node("late", late)
        return graph.add_edge(START, "early").add_edge(START, "late").compile()

    def asked() -> list[str]:
        return [shown.said for shown in server.log.shown]

    async with ModelServer(lambda shown: f"{shown.said} words of it") as server:
        for _ in range(2):
            world.agent = LangGraphAgent(build(model_of(server)), prefill=VLLM).run
            await world.start()
        ref = await world.session()
        hold = server.hold(at=2, to=To("early"))
        await world.say(ref, "go")
        await hold.reached()
        await world.kill(0)
        again.set()
        hold.release()
        assert await turn_is_over(world, ref) == "turn.completed"
        assert [shown.prefix for shown in server.log.shown if shown.said == "late"] == [""]
        found = (await state_of(world, ref))["messages"]
        assert [message.text for message in found[1:]] == ["early words of it", "late words of it"]
        for one in world.ones:
            await one.replica.drain()
            await one.replica.stop()
