"""A Pydantic AI agent, served as it is: the model is sent what the framework alone would send it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    BinaryContent,
    ModelRetry,
    NativeOutput,
    PromptedOutput,
    TextOutput,
    Tool,
    ToolOutput,
    ToolReturn,
)
from pydantic_ai.capabilities import ProcessHistory

from dalsegno.agents.pydantic_ai import PydanticAgent
from dalsegno.agents.pydantic_ai.history import compose, messages
from dalsegno.testing.model import Answer, ModelServer, Thought, ToolCall, by_round, by_words, echo
from tests.agents.pydantic_world import by_itself, in_fleet, items_of, kept, text_of
from tests.runtime.fleet import fleet

CHAT, RESPONSES, CLAUDE = MODELS = ["openai-chat:gpt-5", "openai-responses:gpt-5", "anthropic:claude-haiku-4-5"]


class Visit(BaseModel):
    """A visit to a city."""

    city: str
    days: int


@pytest.mark.parametrize("name", MODELS)
async def test_a_conversation_is_what_the_framework_makes_of_it(name: str, model: ModelServer) -> None:
    """Three turns with thoughts, tools side by side, system prompt and instructions: byte for byte the same requests,
    though each turn begins with nothing but the log.
    """
    calls = (ToolCall("weather", {"city": "Bologna"}), ToolCall("weather", {"city": "Parma"}))
    model.script = by_words(
        {
            "weather": by_round(
                Answer((Thought("Two places."), "Let me see.", *calls)), lambda shown: f"It is {shown.results[-1]}."
            )
        }
    )

    def make() -> Agent[Any, Any]:
        agent = Agent(name, system_prompt="Be kind.", instructions="Be brief.")

        @agent.tool_plain
        def weather(city: str) -> dict[str, Any]:
            """The weather in a city."""
            return {"city": city, "sky": "dry", "degrees": 21.5}

        return agent

    said = ["hello", "the weather, please", "thanks"]
    alone, outputs = await by_itself(make(), model, said)
    async with fleet(PydanticAgent(make()).run) as world:
        served, turns = await in_fleet(world, model, said)
    assert [text_of(turn) for turn in turns] == [outputs[0], f"Let me see.{outputs[1]}", outputs[2]]
    assert len(served) == len(alone) == 4
    assert served == alone
    assert turns[1].usage["output_tokens"] > 0
    assert not model.log.refusals


@pytest.mark.parametrize("name", MODELS)
async def test_the_history_is_the_framework_s(name: str, model: ModelServer) -> None:
    """Made of the log, it has all that the framework's own has: ids, signatures, why the model stopped."""
    model.script = by_round(Answer((Thought("Hm."), "Wait.", ToolCall("look", {"at": "it"}))), "Here.")

    async def look(at: str) -> list[str]:
        return [at]

    agent = Agent(name, tools=[look], system_prompt="Be kind.")
    result = await asyncio.create_task(agent.run("go"))
    async with fleet(PydanticAgent(agent).run) as world:
        ref = await world.session()
        await world.ask(ref, "go")
        assert kept(messages(compose(await items_of(world, ref)))) == kept(result.all_messages())


def retried() -> Agent[Any, Any]:
    """A tool that refuses, arguments that do not fit, a tool that is not there."""
    agent = Agent(instructions="Try.", retries=3)

    @agent.tool_plain
    async def book(city: str) -> str:
        if city == "Atlantis":
            raise ModelRetry("no such place")
        return f"booked {city}"

    return agent


RETRIED = by_round(
    [ToolCall("book", {"city": "Atlantis"}), ToolCall("book", {"town": "Parma"}), ToolCall("fly", {})],
    ToolCall("book", {"city": "Parma"}),
    "There you go.",
)


def files() -> Agent[Any, Any]:
    """Tools that return more than a text."""

    def photo(city: str) -> ToolReturn[Any]:
        picture = BinaryContent(b"\x89PNG...", media_type="image/png")
        return ToolReturn(f"of {city}", content=["Here:", picture], metadata=object())

    async def picture() -> list[Any]:
        return ["a map", BinaryContent(b"\x89PNG!", media_type="image/png")]

    def nothing() -> None:
        return None

    return Agent(tools=[photo, picture, Tool(nothing, sequential=True)])


FILES = by_round([ToolCall("photo", {"city": "Parma"}), ToolCall("picture", {}), ToolCall("nothing", {})], "Nice.")


def structured() -> Agent[Any, Any]:
    """An output tool whose first arguments do not fit, and a validator that refuses the second."""
    agent = Agent(output_type=[Visit, str], retries=3)

    @agent.output_validator
    async def validate(output: Any) -> Any:
        if isinstance(output, Visit) and output.days > 9:
            raise ModelRetry("too long")
        return output

    return agent


def final(**arguments: Any) -> ToolCall:
    return ToolCall("final_result", arguments)


STRUCTURED = by_words(
    {"visit": by_round(final(city="Parma"), final(city="Parma", days=20), final(city="Parma", days=2))}
)


def native() -> Agent[Any, Any]:
    return Agent(output_type=NativeOutput(Visit), retries=2)


def prompted() -> Agent[Any, Any]:
    return Agent(output_type=PromptedOutput(Visit), retries=2)


JSON_TEXT = by_words({"^go$": "no json"}, otherwise='{"city":"Parma","days":2}')


def functions() -> Agent[Any, Any]:
    """Functions that are the output."""

    async def visit(city: str) -> Visit:
        if city == "Atlantis":
            raise ModelRetry("no such place")
        return Visit(city=city, days=3)

    def louder(text: str) -> str:
        return text.upper()

    outputs: Any = [ToolOutput[Any](visit, name="visit"), TextOutput(louder)]
    return Agent(output_type=outputs, retries=2)


FUNCTIONS = by_words({"visit": by_round(ToolCall("visit", {"city": "Atlantis"}), ToolCall("visit", {"city": "Parma"}))})


def refused() -> Agent[Any, Any]:
    """Text that a validator refuses."""
    agent = Agent(retries=2)

    @agent.output_validator
    def validate(output: str) -> str:
        if "hello" in output:
            raise ModelRetry("do not repeat me")
        return output

    return agent


def trimmed() -> Agent[Any, Any]:
    """Only the last messages are shown, whatever the history is."""

    def latest(messages: list[Any]) -> list[Any]:
        return messages[-3:]

    return Agent(capabilities=[ProcessHistory(latest)], system_prompt="You are Ada.")


REFUSED = by_words({"hello": by_round("You said: hello", "Good day.")})


@pytest.mark.parametrize("name", [CHAT, CLAUDE])
@pytest.mark.parametrize(
    ("make", "script", "said"),
    [
        (retried, by_words({"book": RETRIED}), ["book it", "thanks"]),
        (files, by_words({"show": FILES}), ["show me", "thanks"]),
        (structured, STRUCTURED, ["a visit", "thanks", "a visit"]),
        (native, JSON_TEXT, ["go", "go"]),
        (prompted, JSON_TEXT, ["go", "go"]),
        (functions, FUNCTIONS, ["a visit", "thanks"]),
        (refused, REFUSED, ["hello", "thanks"]),
        (trimmed, echo, ["one", "two", "three", "four"]),
    ],
    ids=["retried", "files", "structured", "native", "prompted", "functions", "refused", "trimmed"],
)
async def test_all_that_the_framework_adds_is_in_the_log(
    name: str, make: Callable[[], Agent[Any, Any]], script: Any, said: list[str], model: ModelServer
) -> None:
    """Retries, validators, structured results and files: the later turns, which know nothing but the log, send what the
    framework sends that kept its history. A structured result is said to the user as JSON.
    """
    model.script = script
    agent = make()
    agent.model = name
    alone, outputs = await by_itself(agent, model, said)
    async with fleet(PydanticAgent(agent).run) as world:
        served, turns = await in_fleet(world, model, said)
    assert [turn.status for turn in turns] == ["completed"] * len(said), [turn.error for turn in turns]
    assert served == alone
    for turn, output in zip(turns, outputs, strict=True):
        if isinstance(output, Visit):
            assert text_of(turn).endswith(output.model_dump_json())
    assert not model.log.refusals
