"""Agent frameworks speak to the scripted model server through their own provider classes, and notice nothing."""

import asyncio
from typing import Any

import pytest

from dalsegno.testing.model import Answer, ModelServer, Thought, ToolCall, by_round, by_words
from tests.testing.providers import CLAUDE

ANSWER = "It is dry in Bologna."
QUESTION = "What is the weather in Bologna?"


@pytest.fixture(autouse=True)
def found(model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frameworks find the server as their users' clients find theirs: by the environment."""
    for name, value in model.environment.items():
        monkeypatch.setenv(name, value)
    asks = Answer((Thought("I must look."), "One moment.", ToolCall("weather", {"city": "Bologna"})))
    model.script = by_words({"weather": by_round(asks, lambda shown: f"It is {shown.results[-1]}.")})


def was_asked_twice(model: ModelServer, protocol: str) -> None:
    """First for the question, then with the call and its result; nothing was refused."""
    assert model.log.refusals == []
    first, second = model.log.shown
    assert (first.protocol, second.protocol) == (protocol, protocol)
    assert [tool.name for tool in first.tools] == ["weather"]
    assert (first.said, second.said) == (QUESTION, QUESTION)
    assert second.results == ("dry in Bologna",)
    assert second.since[0].calls[0].arguments.replace(" ", "") == '{"city":"Bologna"}'


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", ["openai-chat:gpt-5", "openai-responses:gpt-5", f"anthropic:{CLAUDE}"])
async def test_pydantic_ai(name: str, streamed: bool, model: ModelServer) -> None:
    """An agent with a tool comes to its answer through each of its model classes."""
    pydantic_ai = pytest.importorskip("pydantic_ai")
    agent = pydantic_ai.Agent(name)

    @agent.tool_plain
    def weather(city: str) -> str:
        return f"dry in {city}"

    events = list[Any]()

    async def keep(_: Any, stream: Any) -> None:
        events.extend([event async for event in stream])

    # in a task of its own: all tests share one, and the framework asks whether that was ever cancelled
    run = await asyncio.create_task(agent.run(QUESTION, event_stream_handler=keep if streamed else None))
    assert run.output == ANSWER
    assert len(events) > 12 or not streamed
    protocol = {"openai-chat": "chat", "openai-responses": "responses", "anthropic": "messages"}[name.partition(":")[0]]
    was_asked_twice(model, protocol)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("protocol", ["chat", "responses"])
async def test_openai_agents(protocol: str, streamed: bool, model: ModelServer) -> None:
    """An agent with a tool comes to its answer through both of its model classes."""
    agents = pytest.importorskip("agents")

    @agents.function_tool
    def weather(city: str) -> str:
        return f"dry in {city}"

    provider = agents.OpenAIProvider(use_responses=protocol == "responses")
    config = agents.RunConfig(model_provider=provider, tracing_disabled=True)
    agent = agents.Agent(name="teller", instructions="Be brief.", model="gpt-5", tools=[weather])
    if streamed:
        run = agents.Runner.run_streamed(agent, QUESTION, run_config=config)
        kinds = {event.type async for event in run.stream_events()}
        assert {"raw_response_event", "run_item_stream_event"} <= kinds
    else:
        run = await agents.Runner.run(agent, QUESTION, run_config=config)
    assert run.final_output == ANSWER
    was_asked_twice(model, protocol)
    assert model.log.shown[0].instructions == "Be brief."


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("protocol", ["chat", "responses", "messages"])
async def test_langchain(protocol: str, streamed: bool, model: ModelServer) -> None:
    """A chat model with a tool bound to it comes to its answer, each message made of the one before."""
    pytest.importorskip("langchain_openai")
    pytest.importorskip("langchain_anthropic")
    from langchain_anthropic import ChatAnthropic
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool
    def weather(city: str) -> str:
        """The weather."""
        return f"dry in {city}"

    plain: Any = (
        ChatAnthropic(model_name=CLAUDE, max_tokens=500)  # type: ignore[call-arg]
        if protocol == "messages"
        else ChatOpenAI(model="gpt-5", use_responses_api=protocol == "responses")
    )
    bound = plain.bind_tools([weather])

    async def said(messages: list[Any]) -> Any:
        if not streamed:
            return await bound.ainvoke(messages)
        chunks = [chunk async for chunk in bound.astream(messages)]
        assert len(chunks) > 3
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        return whole

    asked = await said([HumanMessage(QUESTION)])
    (call,) = asked.tool_calls
    result = ToolMessage(await weather.ainvoke(call["args"]), tool_call_id=call["id"])
    answer = await said([HumanMessage(QUESTION), asked, result])
    assert answer.text == ANSWER
    was_asked_twice(model, protocol)
