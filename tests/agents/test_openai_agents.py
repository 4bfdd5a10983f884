"""Agents of the OpenAI Agents SDK, unmodified, served with every promise."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    Handoff,
    ModelRetrySettings,
    ModelSettings,
    RunConfig,
    Runner,
    ToolGuardrailFunctionOutput,
    ToolOutputImage,
    ToolOutputText,
    function_tool,
    handoff,
    input_guardrail,
    output_guardrail,
    tool_input_guardrail,
    tool_output_guardrail,
)
from agents.extensions import handoff_filters
from agents.mcp import MCPServerStdio
from agents.tool_context import ToolContext
from pydantic import BaseModel

import dalsegno
from dalsegno.agents.openai_agents import OpenAIAgent
from dalsegno.agents.openai_agents.items import to_input
from dalsegno.core import codec
from dalsegno.core.context import context
from dalsegno.core.event import ItemDone
from dalsegno.core.input import Approval, Cancel, Message
from dalsegno.errors import ConfigError
from dalsegno.ports import Undo
from dalsegno.runtime.replica import Tuning
from dalsegno.testing.model import Die, ModelServer, Thought, To, ToolCall, by_round, by_words
from tests.agents.oai import SILENT, WIRES, Wire, conversation, intents, model_of, said, stage
from tests.runtime.fleet import Fleet, fleet
from tests.support import wait_until

WEATHER = by_round(
    [
        Thought("Two cities. "),
        "Let me look.",
        ToolCall("weather", {"city": "Bologna"}),
        ToolCall("weather", {"city": "Rome"}),
    ],
    lambda shown: f"It is {' and '.join(shown.results)}.",
)


@function_tool
async def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def weatherman(model: Any) -> Agent:
    return Agent("Weatherman", instructions="Be brief.", tools=[weather], model=model)


@pytest.mark.parametrize("wire", WIRES)
async def test_requests_are_what_the_sdk_itself_would_send(wire: Wire):
    """Turn after turn, the provider is sent byte for byte what `Runner.run` with the whole conversation sends."""
    async with stage(WEATHER, weatherman, wire=wire) as on:
        first, second = await on.ask("How is it?"), await on.ask("And now?")
        assert said(first) == said(second) == "Let me look. It is sunny in Bologna and sunny in Rome."
        ours = [conversation(request) for request in on.requests]
        tools = [request["tools"] for request in on.requests]
        on.server.log.clear()
        agent = weatherman(model_of(on.server, wire))
        result = await Runner.run(agent, "How is it?", run_config=SILENT)
        await Runner.run(agent, [*result.to_input_list(), {"role": "user", "content": "And now?"}], run_config=SILENT)
        assert ours == [conversation(request) for request in on.requests]
        assert tools == [request["tools"] for request in on.requests]


@pytest.mark.parametrize("wire", WIRES)
async def test_the_context_is_a_function_of_the_log(wire: Wire):
    """Law 13: what the model is shown follows from the log's items and nothing else; usage is on record."""
    async with stage(WEATHER, weatherman, wire=wire) as on:
        turn = await on.ask("How is it?")
        items = await on.items()
        await on.ask("And now?")
        if wire == "responses":
            asked = {"content": "And now?", "role": "user"}
            assert on.requests[2]["input"] == [*to_input(items), asked]
        entries = on.server.log.entries[:2]
        assert turn.usage["requests"] == 2
        assert turn.usage["total_tokens"] > 0
        assert all(entry.ended == "done" for entry in entries)


async def test_what_a_provider_wants_back_is_in_the_log():
    """Encrypted reasoning, the provider's ids and the speaking agent are kept beside the text, the text only once."""
    async with stage(WEATHER, weatherman) as on:
        await on.ask("How is it?")
        reasoning, message, call = [item for item in await on.items() if item.get("role") != "user"][:3]
        assert reasoning["details"]["openai_agents"]["item"]["encrypted_content"]
        assert message["details"]["openai_agents"]["item"]["content"][0]["text"] == len("Let me look.")
        assert call["details"]["openai_agents"]["item"]["id"].startswith("fc_")
        assert "Let me look." not in str(message["details"])


async def test_items_of_others_are_shown_plainly():
    """A conversation that a client or another adapter made goes on: each item in the plainest form there is."""
    async with stage(by_words({"": "Yes."}), weatherman) as on:
        past: list[Any] = [
            {"type": "message", "role": "user", "content": "Book it."},
            {"type": "function_call", "call_id": "c1", "name": "book", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "booked"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Done."}]},
            {
                "type": "function_call",
                "call_id": "a call with a name that is really too long",
                "name": "f",
                "arguments": "",
            },
            {"type": "function_call_output", "call_id": "a call with a name that is really too long", "output": "x"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": " "}]},
        ]
        turn = await on.world.end_of(on.ref, await on.world.say(on.ref, Message(items=past)))
        assert said(turn) == "Yes."
        odd = on.requests[0]["input"][4]["call_id"]
        assert len(odd) < 40
        assert on.requests[0]["input"] == [
            {"content": "Book it.", "role": "user"},
            {"type": "function_call", "call_id": "c1", "name": "book", "arguments": "{}"},
            {"call_id": "c1", "output": "booked", "type": "function_call_output"},
            {"content": "Done.", "role": "assistant"},
            {"type": "function_call", "call_id": odd, "name": "f", "arguments": ""},
            {"call_id": odd, "output": "x", "type": "function_call_output"},
            {"content": "[blank]", "role": "user"},
        ]


async def test_classes_of_effect():
    """`@dalsegno.tool` under `@function_tool`, or a mapping, says what a tool does; undeclared is `once`."""

    @function_tool
    @dalsegno.tool(effect="keyed")
    async def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount} with {dalsegno.current_call().key}"

    @function_tool
    async def look() -> str:
        """Look."""
        return "seen"

    def make(model: Any) -> OpenAIAgent:
        return OpenAIAgent(Agent("A", tools=[pay, look, weather], model=model), effects={"look": "read"})

    calls = [ToolCall("pay", {"amount": 3}), ToolCall("look"), ToolCall("weather", {"city": "Rome"})]
    async with stage(by_round(calls, "ok"), make) as on:
        await on.ask("go")
        decided = [event.data.decode() for event in await on.world.log(on.ref) if event.type == "tool.intent"]
        assert [text.split('"effect":"')[1].split('"')[0] for text in decided] == ["keyed", "read", "once"]
        key = decided[0].split('"key":"')[1].split('"')[0]
        assert (await on.outputs())[0] == f"paid 3 with {key}"


async def test_tools_run_side_by_side():
    """Parallel calls of one answer run at once; the model is shown their results in the order of the log."""
    other = asyncio.Event()

    @function_tool
    async def meet(who: str) -> str:
        """Meet."""
        if who == "b":
            other.set()
        async with asyncio.timeout(20):
            await other.wait()
            await asyncio.sleep(0.01 if who == "a" else 0)
        return who

    script = by_round([ToolCall("meet", {"who": "a"}), ToolCall("meet", {"who": "b"})], "met")
    async with stage(script, lambda model: Agent("A", tools=[meet], model=model)) as on:
        assert said(await on.ask("go")) == "met"
        assert await on.outputs() == ["b", "a"]
        assert on.requests[1]["input"] == to_input((await on.items())[:-1])


async def test_errors_of_tools():
    """A tool's error function tells the model; a tool without one ends the run, and the session goes on."""

    @function_tool
    def told() -> str:
        """Fails."""
        raise ValueError("no luck")

    @function_tool(failure_error_function=None)
    def fatal() -> str:
        """Fails."""
        raise ValueError("broken")

    script = by_words({"told": by_round(ToolCall("told"), "I see."), "fatal": by_round(ToolCall("fatal"), "never")})
    async with stage(script, lambda model: Agent("A", tools=[told, fatal], model=model)) as on:
        assert said(await on.ask("told")) == "I see."
        assert "An error occurred" in (await on.outputs())[0]
        assert (await on.items())[2]["status"] == "incomplete"
        turn = await on.ask("fatal")
        assert turn.status == "failed"
        assert "ValueError: broken" in turn.error.message
        assert said(await on.ask("told")) == "I see."


@pytest.mark.parametrize("dies", [False, True])
async def test_what_a_failed_turn_did_is_undone(dies: bool):
    """`compensate` under `@function_tool`: run when the turn fails, also by a replica that has never seen the turn."""
    undone, hang = list[str](), asyncio.Event()

    async def release(undo: Undo) -> str:
        undone.append(undo.call.key)
        if dies and len(undone) == 1:
            await hang.wait()
        return "released"

    @function_tool
    @dalsegno.tool("keyed", compensate=release)
    async def book(room: str) -> str:
        """Book."""
        return f"{room} is booked"

    script = by_round(ToolCall("book", {"room": "12"}), ToolCall("nothing"))
    async with stage(script, lambda model: Agent("A", tools=[book], model=model), count=2) as on:
        receipt = await on.world.say(on.ref, "go")
        if dies:
            await wait_until(lambda: undone, description="the undoing to begin")
            await on.world.kill(0)
        assert (await on.world.end_of(on.ref, receipt)).error.code == "ModelBehaviorError"
        (decided, _) = await on.world.data(on.ref, "tool.intent")
        assert undone == [decided.key] * (2 if dies else 1)
        assert len(on.requests) == 2


async def test_structured_outputs_survive():
    """Images and texts that a tool returns reach the model as they are, in this turn and in the next."""

    @function_tool
    def picture() -> list[Any]:
        """A picture."""
        return [ToolOutputText(text="look"), ToolOutputImage(image_url="data:image/png;base64,AAAA")]

    async with stage(by_round(ToolCall("picture"), "nice"), lambda m: Agent("A", tools=[picture], model=m)) as on:
        await on.ask("show")
        await on.ask("again")
        shown = [item for item in on.requests[-1]["input"] if item.get("type") == "function_call_output"]
        assert [part["type"] for part in shown[0]["output"]] == ["input_text", "input_image"]
        assert (await on.outputs())[0] == "look\n[input_image]"


@pytest.mark.parametrize("decision", ["approve", "deny"])
@pytest.mark.parametrize("needed", ["always", "asked"])
async def test_approvals_park_the_turn(decision: Any, needed: str):
    """`needs_approval` parks the turn, holding nothing; the human's decision goes on with it."""
    done = list[str]()

    async def large(context: Any, arguments: dict[str, Any], call_id: str) -> bool:
        return arguments["amount"] > 10

    @function_tool(needs_approval=True if needed == "always" else large)
    async def refund(amount: int) -> str:
        """Refund."""
        done.append(f"{amount}")
        return "refunded"

    script = by_round([ToolCall("refund", {"amount": 50}), ToolCall("weather", {"city": "Rome"})], "fine")
    async with stage(script, lambda model: Agent("A", tools=[refund, weather], model=model)) as on:
        turn = await on.ask("refund")
        assert turn.status == "waiting"
        assert [action.name for action in turn.actions] == ["refund"]
        assert not done
        await on.world.say(on.ref, Approval(turn.actions[0].call_id, decision))
        await wait_until(lambda: ended(on), description="the turn to end")
        assert done == (["50"] if decision == "approve" else [])
        assert len(on.requests) == 2
        outputs = await on.outputs()
        assert ("refunded" in outputs) == (decision == "approve")
        assert not on.server.log.refusals


async def ended(on: Any) -> bool:
    return (await on.world.types(on.ref))[-1] == "turn.completed"


def clinic(model: Any) -> Agent:
    """Two agents that hand over to each other."""
    billing = Agent("Billing", instructions="You bill.", model=model, handoff_description="Bills")
    triage = Agent("Triage", instructions="You sort.", model=model, handoffs=[billing])
    billing.handoffs.append(triage)
    return triage


CLINIC = by_words(
    {
        "bill": lambda shown: ToolCall("transfer_to_billing") if "sort" in shown.instructions else "Billing speaking.",
        "back": lambda shown: ToolCall("transfer_to_triage") if "bill" in shown.instructions else "Triage speaking.",
    },
    otherwise=lambda shown: f"still {shown.instructions}",
)


async def test_a_handoff_lasts():
    """The next turn goes on with the agent that the conversation was handed to; any replica reads that off the log."""
    async with stage(CLINIC, clinic, count=2) as on:
        assert said(await on.ask("my bill")) == "Billing speaking."
        await on.world.kill(0)
        assert said(await on.ask("hm")) == "still You bill."
        assert said(await on.ask("go back")) == "Triage speaking."
        assert said(await on.ask("hm")) == "still You sort."
        assert '{"assistant": "Billing"}' in await on.outputs()


async def test_handoffs_as_the_sdk_does_them():
    """Callbacks run, input filters filter, a second handoff in one answer is answered and on record."""
    called = list[str]()

    def make(model: Any) -> Agent:
        other = Agent("Other", instructions="other", model=model)
        return Agent(
            "Main",
            instructions="main",
            tools=[weather],
            model=model,
            handoffs=[
                handoff(
                    other, on_handoff=lambda ctx: called.append("on"), input_filter=handoff_filters.remove_all_tools
                ),
                handoff(Agent("Third", model=model)),
            ],
        )

    def script(shown: Any) -> Any:
        if shown.instructions == "other":
            return "Other speaking."
        if not shown.results:
            return ToolCall("weather", {"city": "Rome"})
        return [ToolCall("transfer_to_other"), ToolCall("transfer_to_third")]

    async with stage(script, make) as on:
        assert said(await on.ask("go")) == "Other speaking."
        assert called == ["on"]
        assert on.requests[-1]["input"] == [{"content": "go", "role": "user"}]
        outputs = await on.outputs()
        assert "Multiple handoffs detected, ignoring this one." in outputs
        assert said(await on.ask("more")) == "Other speaking."


async def test_guardrails():
    """A guardrail that trips ends the turn with an error that names it; the session goes on. Each judges once."""
    judged = list[str]()

    @function_tool(needs_approval=True)
    async def buy() -> str:
        """Buy."""
        return "bought"

    @input_guardrail
    async def no_homework(context: Any, agent: Any, shown: Any) -> GuardrailFunctionOutput:
        judged.append("in")
        last = shown[-1]["content"] if isinstance(shown, list) else shown
        return GuardrailFunctionOutput(output_info={"why": "homework"}, tripwire_triggered="homework" in last)

    @output_guardrail
    async def no_secrets(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        judged.append("out")
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered="secret" in output)

    def make(model: Any) -> OpenAIAgent:
        config = RunConfig(output_guardrails=[no_secrets])
        return OpenAIAgent(Agent("A", model=model, tools=[buy], input_guardrails=[no_homework]), run_config=config)

    async with stage(by_words({"tell": "a secret", "buy": by_round(ToolCall("buy"), "fine"), "": "fine"}), make) as on:
        turn = await on.ask("my homework")
        assert turn.status == "failed"
        assert turn.error.code == "InputGuardrailTripwireTriggered"
        turn = await on.ask("tell me")
        assert turn.error.code == "OutputGuardrailTripwireTriggered"
        assert said(await on.ask("hello")).endswith("fine")
        assert judged == ["in", "in", "out", "in", "out"]
        turn = await on.ask("buy")
        await on.world.say(on.ref, Approval(turn.actions[0].call_id, "approve"))
        await wait_until(lambda: ended(on), description="the turn to end")
        assert judged[5:] == ["in", "out"], "a run that begins again does not judge again"


async def test_guardrails_of_tools():
    """They belong to the call: what they reject is not done, or not shown, and what is on record is what is shown."""
    done = list[str]()

    @tool_input_guardrail
    def only_rome(data: Any) -> ToolGuardrailFunctionOutput:
        fits = "Rome" in data.context.tool_arguments
        return ToolGuardrailFunctionOutput.allow() if fits else ToolGuardrailFunctionOutput.reject_content("not there")

    @tool_output_guardrail
    def no_rain(data: Any) -> ToolGuardrailFunctionOutput:
        rain = "rain" in str(data.output)
        return ToolGuardrailFunctionOutput.reject_content("hidden") if rain else ToolGuardrailFunctionOutput.allow()

    @function_tool(tool_input_guardrails=[only_rome], tool_output_guardrails=[no_rain])
    def forecast(city: str) -> str:
        """Forecast."""
        done.append(city)
        return "rain"

    calls = [ToolCall("forecast", {"city": "Rome"}), ToolCall("forecast", {"city": "Oslo"})]
    async with stage(by_round(calls, "so"), lambda model: Agent("A", tools=[forecast], model=model)) as on:
        assert said(await on.ask("go")) == "so"
        assert done == ["Rome"]
        assert sorted(await on.outputs()) == ["hidden", "not there"]


async def test_agents_as_tools():
    """A run inside a call is recorded beside the conversation: side by side, its tools carried out once, not shown to
    the outer model.
    """
    done = list[str]()

    @function_tool
    async def search(query: str) -> str:
        """Search."""
        done.append(query)
        return f"found {query}"

    def make(model: Any) -> Agent:
        inner = Agent("Researcher", instructions="inner", tools=[search], model=model)
        return Agent("Editor", instructions="outer", tools=[inner.as_tool("research", "Finds out.")], model=model)

    def script(shown: Any) -> Any:
        if shown.instructions == "inner":
            return by_round(ToolCall("search", {"query": shown.said}), lambda s: f"inner {s.results[-1]}")(shown)
        calls = [ToolCall("research", {"input": "x"}), ToolCall("research", {"input": "y"})]
        return by_round(calls, lambda s: f"outer {s.results}")(shown)

    async with stage(script, make) as on:
        turn = await on.ask("go")
        assert said(turn) == "outer ('inner found x', 'inner found y')"
        assert sorted(done) == ["x", "y"]
        assert turn.usage["requests"] == 6
        kinds = [item["type"] for item in await on.items()]
        assert kinds.count("function_call") == kinds.count("function_call_output") == 2
        assert len(intents(await on.world.log(on.ref))) == 4
        assert all(key in str(on.requests[-1]["input"]) for key in ("inner found x", "inner found y"))
        assert "'search'" not in str(on.requests[-1]["input"])


async def test_an_approval_inside_an_agent_that_is_a_tool():
    """The turn waits for the human, whatever depth the tool is at, and goes on inside."""
    done = list[str]()

    @function_tool(needs_approval=True)
    async def buy(thing: str) -> str:
        """Buy."""
        done.append(thing)
        return f"bought {thing}"

    def make(model: Any) -> Agent:
        inner = Agent("Buyer", instructions="inner", tools=[buy], model=model)
        return Agent("Boss", instructions="outer", tools=[inner.as_tool("shop", "Shops.")], model=model)

    def script(shown: Any) -> Any:
        call = (
            ToolCall("buy", {"thing": "tea"}) if shown.instructions == "inner" else ToolCall("shop", {"input": "tea"})
        )
        return by_round(call, lambda s: s.results[-1])(shown)

    async with stage(script, make) as on:
        turn = await on.ask("tea")
        assert [action.name for action in turn.actions] == ["buy"]
        await on.world.say(on.ref, Approval(turn.actions[0].call_id, "approve"))
        await wait_until(lambda: ended(on), description="the turn to end")
        assert done == ["tea"]
        assert await on.outputs() == ["bought tea"]
        assert len(on.requests) == 4


async def test_a_handoff_inside_an_agent_that_is_a_tool():
    """A replica that has never seen the agent goes on inside the call, with whom was handed to there."""
    done = list[str]()

    @function_tool(needs_approval=True)
    async def buy() -> str:
        """Buy."""
        done.append("bought")
        return "bought"

    def make(model: Any) -> OpenAIAgent:
        buyer = Agent("Buyer", instructions="buyer", tools=[buy], model=model)
        clerk = Agent("Clerk", instructions="clerk", handoffs=[handoff(buyer)], model=model)
        return OpenAIAgent(Agent("Boss", instructions="boss", tools=[clerk.as_tool("shop", "Shops.")], model=model))

    def script(shown: Any) -> Any:
        call = {
            "boss": ToolCall("shop", {"input": "tea"}),
            "clerk": ToolCall("transfer_to_buyer"),
            "buyer": ToolCall("buy"),
        }
        return "well" if {"bought", "well"} & {*shown.results} else call[shown.instructions]

    async with ModelServer(script) as server:
        world = Fleet(None)
        for _ in range(2):
            world.agent = make(model_of(server)).run
            await world.start()
        ref = await world.session()
        turn = await world.ask(ref, "tea")
        assert [action.name for action in turn.actions] == ["buy"]
        await world.kill(0)
        await world.any.admit(ref, Approval(turn.actions[0].call_id, "approve"), key="a")
        await wait_until(lambda: over(world, ref), description="the turn to end")
        assert (await world.types(ref))[-1] == "turn.completed"
        assert done == ["bought"]
        assert len(server.log.entries) == 5
        for one in world.ones:
            await one.replica.drain()
            await one.replica.stop()


async def over(world: Fleet, ref: Any) -> bool:
    return (await world.types(ref))[-1] in ("turn.completed", "turn.failed")


async def test_what_else_an_agent_has():
    """Dynamic instructions, a context object for tools, an output type, tools whose output is the answer."""

    class Answer(BaseModel):
        city: str

    @function_tool
    async def whoami(context: ToolContext[Any]) -> str:
        """Who."""
        return f"you are {context.context['user']}"

    def make(model: Any) -> OpenAIAgent:
        agent = Agent(
            "A",
            instructions=lambda context, agent: f"for {context.context['user']}",
            tools=[whoami],
            model=model,
            output_type=Answer,
            tool_use_behavior="stop_on_first_tool",
        )
        return OpenAIAgent(agent, context=lambda turn: {"user": turn.session[:4]})

    script = by_words({"who": ToolCall("whoami"), "": '{"city": "Rome"}'})
    async with stage(script, make) as on:
        assert said(await on.ask("who am I?")) == f"you are {on.ref.id[:4]}"
        assert on.requests[0]["instructions"] == f"for {on.ref.id[:4]}"
        assert said(await on.ask("where?")) == '{"city": "Rome"}'


async def test_bad_agents_end_in_a_failed_turn():
    """A tool that does not exist, turns without end, an answer that does not fit: the turn fails and says why."""

    class Answer(BaseModel):
        city: str

    script = by_words({"unknown": ToolCall("nothing"), "loop": ToolCall("weather", {"city": "Rome"}), "": "no JSON"})

    def make(model: Any) -> OpenAIAgent:
        return OpenAIAgent(Agent("A", tools=[weather], model=model, output_type=Answer), max_turns=3)

    async with stage(script, make) as on:
        assert (await on.ask("unknown")).error.code == "ModelBehaviorError"
        assert (await on.ask("loop")).error.code == "MaxTurnsExceeded"
        assert (await on.ask("else")).error.code == "ModelBehaviorError"
        on.server.script = by_words({"": '{"city": "Rome"}'})
        assert (await on.ask("well")).status == "completed"


async def test_an_unknown_tool_may_be_answered():
    """With the SDK's own setting the model is told, and that is on record."""

    def make(model: Any) -> OpenAIAgent:
        config = RunConfig(tool_not_found_behavior="return_error_to_model")
        return OpenAIAgent(Agent("A", model=model), run_config=config)

    async with stage(by_round(ToolCall("nothing"), "sorry"), make) as on:
        assert said(await on.ask("go")) == "sorry"
        assert "nothing" in (await on.outputs())[0]
        await on.ask("go on")


async def test_steering_joins_the_run():
    """What is said to a turn at work is shown to the model at its next call, where the log has it."""
    begun, go = asyncio.Event(), asyncio.Event()

    @function_tool
    async def slow() -> str:
        """Slow."""
        begun.set()
        await go.wait()
        return "done"

    script = by_words({"rather": lambda shown: f"then {shown.said}", "": ToolCall("slow")})
    async with stage(script, lambda model: Agent("A", tools=[slow], model=model)) as on:
        receipt = await on.world.say(on.ref, "start")
        await begun.wait()
        await on.world.say(on.ref, Message("rather this", on_busy="steer"))
        go.set()
        assert said(await on.world.end_of(on.ref, receipt)) == "then rather this"
        assert [item.get("content") for item in on.requests[-1]["input"]][-1] == "rather this"
        assert on.requests[-1]["input"] == to_input((await on.items())[:-1])


async def test_a_message_that_comes_as_the_turn_ends():
    """It joins the turn all the same: the run goes on with everything that is on record."""
    async with stage(by_words({"more": "more it is", "": "first"}), lambda model: Agent("A", model=model)) as on:
        hold = on.server.hold(at=1, to=To("start"))
        receipt = await on.world.say(on.ref, "start")
        await hold.reached()
        await on.world.say(on.ref, Message("more", on_busy="steer"))
        hold.release()
        turn = await on.world.end_of(on.ref, receipt)
        assert said(turn) == "first more it is"
        assert len(on.requests) == 2
        assert on.requests[1]["input"] == to_input((await on.items())[:-1])


async def test_nothing_is_sent_to_anybody_else(monkeypatch: pytest.MonkeyPatch):
    """The SDK's traces stay here unless the run's configuration says how they are sent."""
    sent = list[Any]()
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    async def make_requests(on: Any) -> None:
        await on.ask("go")

    from agents.tracing import add_trace_processor
    from agents.tracing.processor_interface import TracingProcessor

    class Spy(TracingProcessor):
        def on_trace_start(self, trace: Any) -> None:
            sent.append(trace)

        def on_trace_end(self, trace: Any) -> None:
            sent.append(trace)

        def on_span_start(self, span: Any) -> None:
            sent.append(span)

        def on_span_end(self, span: Any) -> None:
            sent.append(span)

        def shutdown(self) -> None: ...

        def force_flush(self) -> None: ...

    add_trace_processor(Spy())
    async with stage(WEATHER, weatherman) as on:
        await make_requests(on)
    assert not sent
    settings = RunConfig(model_settings=ModelSettings(temperature=0.5))
    async with stage(WEATHER, lambda model: OpenAIAgent(weatherman(model), run_config=settings)) as on:
        await make_requests(on)
        assert on.requests[0]["temperature"] == 0.5
    assert not sent


def test_names_that_the_log_cannot_tell_apart_are_refused():
    """Two agents of one name, or two tools of one name with different effects, are an error when they are loaded."""

    @function_tool(name_override="look")
    @dalsegno.tool("read")
    async def read() -> str:
        """Reads."""
        return ""

    @function_tool(name_override="look")
    async def write() -> str:
        """Writes."""
        return ""

    with pytest.raises(ConfigError, match="two agents are named 'A'"):
        OpenAIAgent(Agent("A", handoffs=[Agent("A")]))
    with pytest.raises(ConfigError, match="two tools named 'look'"):
        OpenAIAgent(Agent("A", tools=[read], handoffs=[Agent("B", tools=[write])]))


def test_tools_that_leave_no_record_are_refused():
    """A tool that acts in this process and is no function is an error when the agent is loaded."""
    from agents import CustomTool

    async def act(context: Any, text: str) -> str:
        return text

    with pytest.raises(ConfigError, match="CustomTool"):
        OpenAIAgent(Agent("A", tools=[CustomTool(name="x", description="x", on_invoke_tool=act)]))


SHOP = """
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("shop")

@server.tool()
def order(what: str, context: Context) -> str:
    '''Order something.'''
    meta = context.request_context.meta
    return f"{what} under {meta['dalsegno.dev/idempotency-key']}"

server.run("stdio")
"""


async def test_mcp_servers(tmp_path: Path):
    """A local MCP server is connected when an agent first needs it, also one that is a tool; calls carry their key."""
    (tmp_path / "shop.py").write_text(SHOP)
    shop = MCPServerStdio({"command": sys.executable, "args": [str(tmp_path / "shop.py")]}, name="shop")

    def make(model: Any) -> OpenAIAgent:
        buyer = Agent("Buyer", instructions="buyer", mcp_servers=[shop], model=model)
        boss = Agent("Boss", instructions="boss", tools=[buyer.as_tool("buy", "Buys.")], model=model)
        return OpenAIAgent(boss, effects={"order": "keyed"})

    def script(shown: Any) -> Any:
        call = (
            ToolCall("order", {"what": "tea"}) if shown.instructions == "buyer" else ToolCall("buy", {"input": "tea"})
        )
        return by_round(call, lambda s: s.results[-1])(shown)

    async with stage(script, make) as on:
        answer = said(await on.ask("tea"))
        decided = (await on.world.data(on.ref, "tool.intent"))[-1]
        assert (decided.name, decided.effect) == ("order", "keyed")
        assert f"tea under {decided.key}" in answer
    await shop.cleanup()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("cached", [False, True])
async def test_an_mcp_server_that_dies(tmp_path: Path, cached: bool):
    """It is connected again, in the same replica, and no call is repeated. While it is away a turn that needs it fails,
    and says so.
    """
    program, away = tmp_path / "shop.py", tmp_path / "away.py"
    program.write_text("import os; from pathlib import Path; Path('pid').write_text(str(os.getpid()))\n" + SHOP)
    parameters: Any = {"command": sys.executable, "args": [str(program)], "cwd": str(tmp_path)}
    shop = MCPServerStdio(parameters, name="shop", cache_tools_list=cached)

    def make(model: Any) -> OpenAIAgent:
        return OpenAIAgent(Agent("Buyer", mcp_servers=[shop], model=model), effects={"order": "keyed"})

    async def dies() -> None:
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: not alive(pid), description="the process is gone")

    async with stage(by_round(ToolCall("order", {"what": "tea"}), lambda s: s.results[-1]), make) as on:
        assert said(await on.ask("one")).startswith("tea under")
        await dies()
        if cached:  # nobody notices before the call: the model is told
            assert said(await on.ask("two")).startswith("An error occurred")
        assert said(await on.ask("three")).startswith("tea under")
        await dies()
        program.rename(away)
        for _ in range(2):
            assert "MCP server 'shop' cannot be reached" in (await on.ask("four")).error.message
        away.rename(program)
        assert said(await on.ask("five")).startswith("tea under")
    await shop.cleanup()


async def test_agents_that_raise():
    """Instructions, the context's factory, what a tool returns: whatever is wrong fails a turn and nothing else."""
    wrong = {"instructions", "context"}

    def instructions(context: Any, agent: Any) -> str:
        if "instructions" in wrong:
            raise ValueError("no instructions")
        return "well"

    def made(turn: Any) -> None:
        if "context" in wrong:
            raise ValueError("no context")

    @function_tool
    async def odd() -> object:
        """Returns what JSON cannot say."""
        return {1, 2}

    def make(model: Any) -> OpenAIAgent:
        return OpenAIAgent(Agent("A", instructions=instructions, tools=[odd], model=model), context=made)

    async with stage(by_round(ToolCall("odd"), "well"), make) as on:
        assert (await on.ask("one")).error.message == "no context"
        wrong.discard("context")
        assert (await on.ask("two")).error.message == "no instructions"
        wrong.discard("instructions")
        assert said(await on.ask("three")) == "well"
        assert await on.outputs() == ["{1, 2}"]


@pytest.mark.parametrize("where", ["model", "tool"])
async def test_a_cancel(where: str):
    """A client stops the turn wherever it is: a tool that has begun is seen through, and the session goes on."""
    begun, go = asyncio.Event(), asyncio.Event()

    @function_tool
    async def slow() -> str:
        """Slow."""
        begun.set()
        await go.wait()
        return "done"

    script = by_words({"start": by_round("first " * 20 if where == "model" else ToolCall("slow"), "never"), "": "fine"})
    async with stage(script, lambda model: Agent("A", tools=[slow], model=model)) as on:
        hold = on.server.hold(at=5, to=To("start"))
        receipt = await on.world.say(on.ref, "start")
        if where == "model":
            await hold.reached()
        else:
            hold.release()
            await begun.wait()
        await on.world.say(on.ref, Cancel())
        go.set()
        assert (await on.world.end_of(on.ref, receipt)).status == "cancelled"
        hold.release()
        assert said(await on.ask("go on")) == "fine"
        assert await on.outputs() == ([] if where == "model" else ["done"])


async def test_a_replica_that_leaves():
    """A replica that drains hands the turn over between two steps, in the middle of the SDK's loop."""
    begun, go, ran = asyncio.Event(), asyncio.Event(), list[str]()

    @function_tool
    async def slow(name: str) -> str:
        """Slow."""
        ran.append(name)
        begun.set()
        await go.wait()
        return "done"

    calls = [ToolCall("slow", {"name": "a"}), ToolCall("slow", {"name": "b"})]
    async with stage(by_round(calls, "well"), lambda model: Agent("A", tools=[slow], model=model), count=2) as on:
        receipt = await on.world.say(on.ref, "start")
        await begun.wait()
        one = on.world.ones.pop(0)
        leaving = asyncio.ensure_future(one.replica.drain())
        await asyncio.sleep(0)
        go.set()
        await leaving
        await one.replica.stop()
        assert said(await on.world.end_of(on.ref, receipt)) == "well"
        assert sorted(ran) == ["a", "b"]
        assert len(on.requests) == 2


async def test_an_agent_that_is_a_tool_and_is_watched():
    """`on_stream` of `as_tool` hears of the run inside, and the run is recorded all the same."""
    heard = list[Any]()

    def make(model: Any) -> Agent:
        inner = Agent("Inner", instructions="inner", model=model)
        watched = inner.as_tool("inner", "Inner.", on_stream=lambda event: heard.append(event["event"].type))
        return Agent("Outer", instructions="outer", tools=[watched], model=model)

    def script(shown: Any) -> Any:
        return "deep" if shown.instructions == "inner" else by_round(ToolCall("inner", {"input": "x"}), "well")(shown)

    async with stage(script, make) as on:
        assert said(await on.ask("go")) == "well"
        assert await on.outputs() == ["deep"]
        assert "raw_response_event" in heard


async def test_a_guardrail_that_is_an_agent():
    """A guardrail may run an agent of its own: that is a part of its judgement, made once."""

    def make(model: Any) -> Agent:
        judge = Agent("Judge", instructions="judge", model=model)

        @input_guardrail
        async def judged(context: Any, agent: Any, shown: Any) -> GuardrailFunctionOutput:
            result = await Runner.run(judge, shown, context=context.context)
            return GuardrailFunctionOutput(output_info=result.final_output, tripwire_triggered=False)

        @function_tool(needs_approval=True)
        async def buy() -> str:
            """Buy."""
            return "bought"

        return Agent("A", instructions="a", tools=[buy], model=model, input_guardrails=[judged])

    def script(shown: Any) -> Any:
        return "harmless" if shown.instructions == "judge" else by_round(ToolCall("buy"), "well")(shown)

    async with stage(script, make) as on:
        turn = await on.ask("buy")
        await on.world.say(on.ref, Approval(turn.actions[0].call_id, "approve"))
        await wait_until(lambda: ended(on), description="the turn to end")
        assert sorted(request["instructions"] for request in on.requests) == ["a", "a", "judge"]
        assert "harmless" not in str(await on.items())


async def test_a_model_that_breaks_off_is_asked_again():
    """With the SDK's own retries: the same step, and readers see the answer go on where it was."""
    retry = ModelRetrySettings(max_retries=2, policy=lambda context: True)

    def make(model: Any) -> Agent:
        return Agent("A", model=model, model_settings=ModelSettings(retry=retry))

    async with stage(by_words({"": "one two three four five"}), make, wire="chat") as on:
        on.server.plan(Die(at=3))
        receipt = await on.world.say(on.ref, "go")
        assert said(await on.world.end_of(on.ref, receipt)) == "one two three four five"
        assert [entry.ended for entry in on.server.log.entries] == ["cut", "done"]
        assert (await on.world.types(on.ref)).count("item.done") == 1
        on.server.plan(Die(at=2), Die(at=2), Die(at=2))
        turn = await on.ask("again")
        assert turn.status == "failed"
        assert said(await on.ask("and again")).endswith("five")


async def test_a_long_conversation_is_shortened():
    """When the context outgrows its limit, the model is shown the note and what follows, from that very turn on."""
    async with ModelServer(by_words({"": "word " * 60})) as server:
        served = OpenAIAgent(Agent("A", model=model_of(server)))
        async with fleet(served.run, tuning=Tuning(context_limit_bytes=2_500)) as world:
            ref = await world.session()
            for n in range(6):
                assert (await world.ask(ref, f"{n}")).status == "completed"
            shown = [entry.request["input"] for entry in server.log.entries]
            shortened = [request for request in shown if "is not shown" in str(request[0])]
            assert shortened and all(len(str(request)) < 4_000 for request in shown)
            log = await world.log(ref)
            done = [codec.decode(event) for event in log if event.type == "item.done"]
            for data, request in zip(done, shown, strict=True):
                assert isinstance(data, ItemDone) and data.through is not None
                assert request == to_input(context(log[: data.through], session=ref.id).items)


async def test_an_agent_that_a_handoff_makes_is_refused():
    """Nobody else is answered by it, and nothing of it stays in the process: no other replica could find it."""

    async def make_one(context: Any, arguments: str) -> Agent:
        return Agent("Account", instructions="The secret of the first who came.")

    shape: dict[str, Any] = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    made = Handoff("transfer_to_account", "", shape, make_one, "Account")

    def script(shown: Any) -> Any:
        return ToolCall("transfer_to_account") if shown.instructions == "main" else shown.instructions

    async with stage(script, lambda model: Agent("Main", instructions="main", model=model, handoffs=[made])) as on:
        for _ in range(2):
            turn = await on.ask("go")
            assert turn.status == "failed" and "made that agent in its call" in str(turn.error)
        assert "secret" not in str(await on.items())


async def test_a_handoff_outlives_its_record():
    """Who speaks is known when the handoff itself is no longer shown, by what was said since."""
    script = by_words({"bill": lambda s: ToolCall("transfer_to_billing") if "sort" in s.instructions else "yes"})
    async with ModelServer(by_words({"bill": script, "": "word " * 60})) as server:
        served = OpenAIAgent(clinic(model_of(server)))
        async with fleet(served.run, tuning=Tuning(context_limit_bytes=5_000)) as world:
            ref = await world.session()
            for text in ("my bill", *"abcdef"):
                assert (await world.ask(ref, text)).status == "completed"
            assert "transfer" not in str(server.log.entries[-1].request["input"])
            assert server.log.entries[-1].request["instructions"] == "You bill."


async def test_a_handoff_s_callback_runs_once():
    """The replica dies in the middle of the callback: it is not run again, and the handoff goes on."""
    called = list[str]()

    async def note(context: Any) -> None:
        called.append("called")
        await asyncio.Event().wait()

    def make(model: Any) -> Agent:
        other = Agent("Other", instructions="other", model=model)
        return Agent("Main", instructions="main", model=model, handoffs=[handoff(other, on_handoff=note)])

    def script(shown: Any) -> Any:
        return ToolCall("transfer_to_other") if shown.instructions == "main" else "Other speaking."

    async with stage(script, make, count=2) as on:
        receipt = await on.world.say(on.ref, "go")
        await wait_until(lambda: called, description="the callback to run")
        await on.world.kill(0)
        assert said(await on.world.end_of(on.ref, receipt)) == "Other speaking."
        assert called == ["called"]
        assert await on.outputs() == ['{"assistant": "Other"}']


async def test_two_kinds_of_agents_in_one_session():
    """A plain function and an agent of the SDK take turns in one conversation; each is shown what the other did."""

    @dalsegno.tool("read")
    async def look() -> str:
        """Look."""
        return "seen"

    async def plain(turn: Any) -> None:
        async def model(shown: Any) -> Any:
            if shown.items[-1]["type"] == "function_call_output":
                yield dalsegno.Thought("so")
                yield f"plain: {shown.items[-1]['output']}, of {len(shown.items)}"
            else:
                yield dalsegno.ToolCall("look")

        while (reply := await turn.generate(model, tools=[look])).calls:
            await turn.perform(reply)

    async with ModelServer(WEATHER) as server:
        served = OpenAIAgent(weatherman(model_of(server)))

        async def either(turn: Any) -> None:
            await (plain(turn) if turn.text == "plain" else served.run(turn))

        async with fleet(either) as world:
            ref = await world.session()
            assert said(await world.ask(ref, "plain")) == "plain: seen, of 3"
            assert said(await world.ask(ref, "sdk")).endswith("It is sunny in Bologna and sunny in Rome.")
            assert said(await world.ask(ref, "plain")).startswith("plain: seen, of ")
            assert said(await world.ask(ref, "sdk")).endswith("Rome.")
        assert not server.log.refusals
        kinds = [item.get("type", item.get("role")) for item in server.log.entries[0].request["input"]]
        assert kinds == ["user", "function_call", "function_call_output", "assistant", "user"]
