"""An agent of the OpenAI Agents SDK whose replica dies: at every step of the turn and at every delta of the model.

0 model calls repeated after they were recorded, 0 effects doubled, 0 contexts that are not what the log says.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from agents import Agent, function_tool, input_guardrail
from agents.guardrail import GuardrailFunctionOutput

import dalsegno
from dalsegno.agents.openai_agents import OpenAIAgent
from dalsegno.agents.openai_agents.items import to_input
from dalsegno.core.context import context
from dalsegno.core.input import Approval
from dalsegno.core.item import text_of
from dalsegno.testing.model import ModelServer, Thought, ToolCall, at_pace, by_round
from tests.acceptance.sizes import size
from tests.agents.crashes import Crasher, at_every_step, cut_off, last_event, turn_is_over
from tests.agents.oai import WIRES, Wire, model_of
from tests.runtime.fleet import Fleet, streamed
from tests.support import wait_until

EFFECTS: ContextVar[Counter[str]] = ContextVar("effects")
"""What the tools of a play did: several are on at once."""


@function_tool
@dalsegno.tool(effect="keyed")
async def pay(amount: int) -> str:
    """Pay; the bank knows the key."""
    EFFECTS.get()[f"pay {dalsegno.current_call().key}"] = 1
    return f"paid {amount}"


@function_tool
async def post(text: str) -> str:
    """Post a letter: nobody can tell whether it was posted."""
    EFFECTS.get()[f"post {text}"] += 1
    return "posted"


@function_tool(needs_approval=True)
async def refund(amount: int) -> str:
    """Refund."""
    EFFECTS.get()["refund"] += 1
    return f"refunded {amount}"


@input_guardrail
async def polite(ctx: Any, agent: Any, shown: Any) -> GuardrailFunctionOutput:
    """Judges."""
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)


def desk(model: Any) -> Agent:
    """Everything at once: parallel tools, a handoff, an agent as a tool, an approval, a guardrail."""
    clerk = Agent("Clerk", instructions="clerk", tools=[post], model=model)
    cashier = Agent("Cashier", instructions="cashier", tools=[refund, clerk.as_tool("clerk", "Writes.")], model=model)
    return Agent(
        "Desk", instructions="desk", tools=[pay, post], handoffs=[cashier], model=model, input_guardrails=[polite]
    )


def script(shown: Any) -> Any:
    """What the model says at each place of the conversation."""
    calls: list[Any]
    if shown.instructions == "clerk":
        return by_round(ToolCall("post", {"text": "inner"}), "Letter is out.")(shown)
    if shown.instructions == "cashier":
        calls = [Thought("A refund. "), ToolCall("refund", {"amount": 5}), ToolCall("clerk", {"input": "write"})]
        return calls if len(shown.results) < 4 else f"All done: {len(shown.results)} results."
    calls = ["One moment. ", ToolCall("pay", {"amount": 3}), ToolCall("post", {"text": "outer"})]
    return by_round(calls, ToolCall("transfer_to_cashier"))(shown)


class Play:
    """One turn, with one crash."""

    def __init__(self, server: ModelServer, make: Callable[[Any], Agent], wire: Wire) -> None:
        self.server = server
        model = model_of(server, wire)
        self.world = Fleet(None)
        self.serve = lambda: OpenAIAgent(make(model)).run

    async def run(self, place: int) -> tuple[Crasher, Any]:
        """The crash at that step; and the session."""
        world = self.world
        for _ in range(2):
            world.agent = self.serve()
            await world.start()
        ref = await world.session()
        crasher = Crasher(world, place=place, stride=size(6, 1), noted=lambda: len(self.server.log.entries))
        crasher.watch(world.ones[0])
        saying = asyncio.ensure_future(world.say(ref, "go", key="k"))
        await wait_until(lambda: saying.done() or crasher.point, description="the message to be taken")
        if not saying.done():
            saying.cancel()
            await wait_until(lambda: len(world.ones) == 1, description="the replica to die")
            await world.say(ref, "go", key="k")
        decided = False
        while True:
            end = await turn_is_over(world, ref)
            if end != "turn.waiting":
                break
            assert not decided
            decided = True
            action = (await world.data(ref, "turn.waiting"))[-1].actions[0]
            deciding = asyncio.ensure_future(world.any.admit(ref, Approval(action.call_id, "approve"), key="a"))
            await deciding
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
    done = [json.loads(event.data) for event in log if event.type == "item.done"]
    adopted = [event.seq for event in log if event.type == "turn.started" and b'"attempt":1' not in event.data]
    entries = [entry for entry in play.server.log.entries if entry.request]
    steps = set[str]()
    for event in log:
        data = json.loads(event.data) if event.type == "item.done" else {}
        if data.get("step", "").startswith("model:") and adopted and event.seq < adopted[0]:
            later = [entry for entry in entries[crasher.before :] if entry.request.get("instructions") == "clerk"]
            place = int(data["step"].rpartition("#")[2]) - 1
            if any(entry.shown is not None and entry.shown.round == place for entry in later):
                found.append(f"{data['step']} was on record and the model was asked again")
        if not data.get("step", "").startswith("model#") or data["step"] in steps:
            continue
        steps.add(data["step"])
        asked = to_input(context(log[: data["through"]], session=ref.id).items)
        numbers = [number for number, entry in enumerate(entries, 1) if entry.request["input"] == asked]
        if not numbers:
            found.append(f"{data['step']} was shown something else than the log up to {data['through']}")
        if adopted and event.seq < adopted[0] and any(number > crasher.before for number in numbers):
            found.append(f"{data['step']} was on record and the model was asked again")
    counted = Counter(name.split()[0] for name, times in EFFECTS.get().items() for _ in range(times))
    unknown = sum("outcome of this call is unknown" in str(data) for data in done)
    for name, wanted in effects.items():
        if counted[name] > wanted or counted[name] + unknown < wanted:
            found.append(f"{name} happened {counted[name]} times instead of {wanted}, {unknown} unknown")
    return found


async def crash_at(place: int) -> tuple[str | None, list[str]]:
    """Where the replica died at its step of that number, and what came of it that must not be."""
    EFFECTS.set(Counter())
    paced = at_pace(script, delay=timedelta(milliseconds=3))  # what is said faster goes out in one piece
    async with ModelServer(paced) as server:
        play = Play(server, desk, "responses")
        crasher, ref = await play.run(place)
        found = await problems(play, crasher, ref, effects={"pay": 1, "post": 2, "refund": 1})
        await play.close()
    return crasher.point, [f"crash {place} at {crasher.point}: {text}" for text in found]


async def test_a_crash_at_every_step():
    """Wherever its replica dies, the turn completes on another one, and each effect happened once at most."""
    points = await at_every_step(crash_at)
    assert points["log.commit:before"] > 5
    assert points["hot.publish:after"] > 2


ANSWER: list[Any] = [Thought("Let me think about it. "), "The answer is forty two.", ToolCall("pay", {"amount": 3})]


def simple(model: Any) -> Agent:
    return Agent("Simple", instructions="simple", tools=[pay], model=model)


async def cut(
    server: ModelServer,
    wire: Wire,
    at: int,
    *,
    serve: Callable[[Agent], OpenAIAgent] = OpenAIAgent,
    until: Callable[[list[Any]], Any] = lambda frames: True,
) -> Any:
    """The replica dies when the model has said `at` deltas, and a reader on the other one, which follows from beginning
    to end, has of it what `until` says.
    """
    world, ref, frames = await cut_off(server, lambda: serve(simple(model_of(server, wire))).run, at, until=until)
    log = await world.log(ref)
    for one in world.ones:
        await one.replica.drain()
        await one.replica.stop()
    return ref, log, frames


def said(frames: list[Any]) -> str:
    """What a reader was shown of the answer. A replica may die before it has shown what the model sent it."""
    return "".join(streamed(frames).values())


@pytest.mark.parametrize("wire", WIRES)
async def test_a_crash_at_every_delta(wire: Wire):
    """The successor's answer repeats what readers have and goes on: every item whole, once, without a gap."""
    async with ModelServer(by_round(ANSWER, "Paid.")) as server:
        for at in count():
            EFFECTS.set(Counter())
            server.log.clear()
            _, log, frames = await cut(server, wire, at)
            done = [json.loads(event.data) for event in log if event.type == "item.done"]
            texts = {data["item"]["id"]: text_of(data["item"]) for data in done if data.get("streamed")}
            assert log[-1].type == "turn.completed"
            assert not [data for data in done if data["item"]["status"] == "incomplete"]
            assert streamed(frames) == {name: text for name, text in texts.items() if name in streamed(frames)}
            assert [text for text in texts.values() if "forty" in text] == ["The answer is forty two."]
            assert sum(EFFECTS.get().values()) == 1
            assert not server.log.refusals
            assert len(server.log.entries) == 3, "the open step is asked for again, and nothing else"
            if at > server.log.entries[0].deltas:
                break
        assert at > 10


@pytest.mark.parametrize("at", [2, 8])
async def test_an_answer_that_diverges_is_closed(at: int):
    """A model that says something else after the crash: what was shown is closed as incomplete, the new begins anew."""
    answers = iter(["one two three four five six seven eight nine", "Something else entirely."])
    async with ModelServer(lambda shown: next(answers)) as server:
        _, log, frames = await cut(server, "chat", at, until=said)
        done = [json.loads(event.data)["item"] for event in log if event.type == "item.done"]
        assert [item["status"] for item in done] == ["incomplete", "completed"]
        assert text_of(done[1]) == "Something else entirely."
        assert list(streamed(frames).values()) == [text_of(item) for item in done]


async def test_prefill():
    """A provider that goes on from the beginning of its answer is given it: nothing is said twice."""
    words = "one two three four five six seven eight nine"

    def script(shown: Any) -> str:
        return words[len(shown.prefix) :]

    async with ModelServer(script) as server:
        _, log, frames = await cut(
            server,
            "chat",
            4,
            serve=lambda agent: OpenAIAgent(agent, prefill="continue_final_message"),
            until=said,
        )
        done = [json.loads(event.data)["item"] for event in log if event.type == "item.done"]
        assert [text_of(item) for item in done] == [words]
        assert words.startswith(server.log.shown[-1].prefix) and server.log.shown[-1].prefix
        assert list(streamed(frames).values()) == [words]
        (again,) = [json.loads(json.dumps(item)) for item in to_input(done)]
        assert again["content"][0]["text"] == words
