"""The log is the history of a Pydantic AI agent: what it is told meanwhile, what changes under it, what others said."""

import asyncio
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_ai import Agent, ModelRetry, RunContext, Tool, ToolOutput
from pydantic_ai.capabilities import ProcessEventStream
from pydantic_ai.messages import (
    BinaryContent,
    CompactionPart,
    FilePart,
    ModelMessage,
    ModelResponse,
    NativeToolCallPart,
    NativeToolReturnPart,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ToolCallPart,
    ToolCallPartDelta,
)
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.usage import UsageLimits

from dalsegno.agents.pydantic_ai import PydanticAgent, adapt
from dalsegno.agents.pydantic_ai.history import compose, messages, response_of
from dalsegno.agents.pydantic_ai.speech import Misheard, Speech, told
from dalsegno.core import item as items
from dalsegno.core.input import Message
from dalsegno.core.part import Arguments, Detail, Thought
from dalsegno.core.part import ToolCall as Called
from dalsegno.errors import ConfigError
from dalsegno.ops.load import recognise
from dalsegno.ports import Ref
from dalsegno.testing.model import Die, Fail, ModelServer, To, ToolCall, by_round, by_words
from tests.agents.pydantic_world import items_of, kept, shown, text_of, wire
from tests.runtime.fleet import Fleet, fleet
from tests.support import wait_until

CHAT = "openai-chat:gpt-5"


@st.composite
def conversation_items(draw: Any) -> Any:
    """An item of any kind, as strange as the log takes it."""
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    parts = st.one_of(
        st.builds(lambda said: {"type": "input_text", "text": said}, text),
        st.sampled_from(
            [
                {"type": "input_image", "image_url": "https://a/b.png"},
                {"type": "input_image", "image_url": "data:image/png;base64,aGk="},
                {"type": "input_file", "file_data": "aGk="},
                {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
                {"type": "refusal", "refusal": "no"},
            ]
        ),
    )
    call_id, status = draw(st.sampled_from(["a", "b"])), draw(st.sampled_from(["completed", "incomplete"]))
    role, content = draw(st.sampled_from(["system", "developer"])), draw(st.one_of(text, st.lists(parts, max_size=3)))
    return draw(
        st.sampled_from(
            [
                items.call(call_id, "look", draw(text), item_id="fc"),
                items.output(call_id, draw(text), item_id="fco", status=status),
                {"type": "function_call_output", "call_id": call_id, "output": [{"type": "input_text", "text": "x"}]},
                items.reasoning(draw(text), item_id="rs"),
                items.message(draw(text), item_id="msg"),
                {
                    "type": "message",
                    "id": "m",
                    "role": "user",
                    "content": content,
                },
                {"type": "message", "id": "m", "role": role, "content": "be"},
                {"type": "something", "id": "s"},
            ]
        )
    )


def served(agent: Agent[Any, Any], **more: Any) -> Any:
    return PydanticAgent(agent, **more).run


async def test_a_message_that_joins_the_turn_is_told_at_the_next_request(model: ModelServer) -> None:
    """While a tool runs: the model is shown it behind the tool's result, and later turns show it there."""
    model.script = by_words({"more": "both done", "go": by_round(ToolCall("work"), "done")})
    begun, go = asyncio.Event(), asyncio.Event()
    agent = Agent(CHAT)

    @agent.tool_plain
    async def work() -> str:
        begun.set()
        await go.wait()
        return "worked"

    async with fleet(served(agent)) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(begun.is_set, description="the tool to run")
        await world.say(ref, Message("and more", on_busy="steer"))
        go.set()
        turn = await world.end_of(ref, receipt)
        assert text_of(turn) == "both done"
        assert [said.text for said in model.log.shown[-1].messages] == ["go", "", "worked", "and more"]
        before = wire(model)[-1]["messages"]
        await world.ask(ref, "thanks")
        assert wire(model)[-1]["messages"][: len(before)] == before


async def test_a_message_that_joins_the_last_answer_is_answered_in_the_same_turn(model: ModelServer) -> None:
    """While the model gives its answer: the agent runs once more, on the same history, before and after a crash."""
    model.script = by_words({"more": "more it is", "go": "done"})
    agent = Agent(CHAT, instructions="Be brief.")
    async with fleet(served(agent), count=2) as world:
        ref = await world.session()
        first, second = model.hold(1, to=To(said="go")), model.hold(1, to=To(said="more"))
        receipt = await world.say(ref, "go")
        await first.reached()
        await world.say(ref, Message("and more", on_busy="steer"))
        first.release()
        await second.reached()
        await world.kill()
        second.release()
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.attempt) == ("completed", 2)
        assert text_of(turn) == "donemore it is"
        assert [len(shown.messages) for shown in model.log.shown] == [1, 3, 3]
        assert wire(model)[1] == wire(model)[2]


async def test_what_is_not_fixed_is_recorded_with_the_answer(model: ModelServer) -> None:
    """System prompts are made once a conversation; instructions once a request, and the log says what they were."""
    agent = Agent(CHAT)
    numbers = count(1)

    @agent.system_prompt
    async def persona() -> str:
        return f"You are number {next(numbers)}."

    @agent.instructions
    def hint(ctx: RunContext[Any]) -> str:
        return f"Hint {next(numbers)}."

    async with fleet(served(agent), count=2) as world:
        ref = await world.session()
        await world.ask(ref, "one")
        await world.kill()
        await world.ask(ref, "two")
        first, second = (shown.instructions for shown in model.log.shown)
        assert (first, second) == ("You are number 1.\n\nHint 2.", "You are number 1.\n\nHint 3.") or first != second
        assert "number 1." in second
        notes = [item["details"]["pydantic_ai"] for item in await items_of(world, ref) if "details" in item]
        assert [note["instructions"] for note in notes] == ["Hint 2.", "Hint 3."]


async def test_a_successor_asks_with_the_words_of_the_log(model: ModelServer) -> None:
    """A replica dies in the second answer: the first was asked for under the conversation's system prompt, whatever the
    successor's functions would make of it.
    """
    model.script = by_round(ToolCall("work"), "done")
    numbers = count(1)
    agent = Agent(CHAT)

    @agent.system_prompt
    def persona() -> str:
        return f"You are number {next(numbers)}."

    @agent.tool_plain
    async def work() -> str:
        return "worked"

    async with fleet(served(agent), count=2) as world:
        ref = await world.session()
        hold = model.hold(0, to=To(round=1))
        receipt = await world.say(ref, "go")
        await hold.reached()
        await world.kill()
        hold.release()
        assert (await world.end_of(ref, receipt)).status == "completed"
        assert next(numbers) == 3
        assert [shown.instructions for shown in model.log.shown] == ["You are number 1."] * 3


async def test_system_prompts_that_change_are_in_the_log_as_they_were_shown(model: ModelServer) -> None:
    """Dynamic ones are made anew for each run; what they came to is recorded with the run's answer."""
    numbers = count(1)
    agent = Agent(CHAT)

    @agent.system_prompt(dynamic=True)
    def persona() -> str:
        return f"You are number {next(numbers)}."

    async with fleet(served(agent)) as world:
        ref = await world.session()
        for text in ("one", "two", "three"):
            await world.ask(ref, text)
        assert [shown.instructions[-2:] for shown in model.log.shown] == ["1.", "2.", "3."]
        (request, *_) = compose(await items_of(world, ref))
        assert "number 3" in str(request.parts[0]["content"])


async def test_large_outputs_are_shown_as_the_log_shows_them(model: ModelServer) -> None:
    """Of a text in the cold tier its beginning, at once and after a crash."""
    model.script = by_round(ToolCall("read"), "done")
    agent = Agent(CHAT)

    @agent.tool_plain
    async def read() -> str:
        return "long " * 20_000

    async with fleet(served(agent), count=2) as world:
        ref = await world.session()
        hold = model.hold(0, to=To(round=1))
        receipt = await world.say(ref, "go")
        await hold.reached()
        await world.kill()
        hold.release()
        assert (await world.end_of(ref, receipt)).status == "completed"
        await world.ask(ref, "thanks")
        assert len({shown.messages[2].text for shown in model.log.shown[1:]}) == 1
        assert len(model.log.shown[1].messages[2].text) < 50_000


async def test_whether_arguments_fit_is_decided_once(model: ModelServer) -> None:
    """A replica dies in the last answer; its successor's validator would have it the other way round."""
    model.script = by_round(ToolCall("work", {"n": 1}), ToolCall("work", {"n": 2}), "done")
    numbers = count(1)

    async def check(ctx: RunContext[Any], n: int) -> None:
        number = next(numbers)
        if number in (1, 3):
            raise ModelRetry(f"not in attempt {number}")

    async def work(n: int) -> int:
        return n

    agent = Agent(CHAT, tools=[Tool(work, args_validator=check)], retries=3)
    async with fleet(served(agent), count=2) as world:
        ref = await world.session()
        hold = model.hold(0, to=To(round=2))
        receipt = await world.say(ref, "go")
        await hold.reached()
        await world.kill()
        hold.release()
        turn = await world.end_of(ref, receipt)
        assert turn.status == "completed", turn.error
        assert len(model.log.entries) == 4
        assert wire(model)[-1] == wire(model)[-2]


async def test_a_refusal_that_a_crash_cut_off_is_no_unknown_outcome(model: ModelServer) -> None:
    """A replica dies while it looks whether the arguments fit: nothing was done, and the model is told why."""
    model.script = by_round(ToolCall("work", {"n": 1}), lambda shown: shown.results[0])
    begun = asyncio.Event()

    async def check(ctx: RunContext[Any], n: int) -> None:
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        raise ModelRetry("not that one")

    async def work(n: int) -> int:
        return n

    agent = Agent(CHAT, tools=[Tool(work, args_validator=check)], retries=3)
    async with fleet(served(agent), count=2) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(begun.is_set, description="the look")
        await world.kill()
        assert "not that one" in text_of(await world.end_of(ref, receipt))


async def test_what_a_validator_said_is_said_again_after_a_crash(model: ModelServer) -> None:
    """A replica dies in the answer to a validator's complaint: its successor's validators may say something else, but
    the model is shown what is on record.
    """
    model.script = by_words({"^go$": by_round("bad"), "complaint": by_round(ToolCall("work"), "good")})
    numbers = count(1)
    agent = Agent(CHAT, retries=3)

    @agent.tool_plain
    async def work() -> str:
        return "worked"

    @agent.output_validator
    async def check(output: str) -> str:
        number = next(numbers)
        if output == "bad" and number == 1:
            raise ModelRetry(f"complaint {number}")
        return output

    async with fleet(served(agent), count=2) as world:
        ref = await world.session()
        hold = model.hold(0, to=To(said="complaint", round=1))
        receipt = await world.say(ref, "go")
        await hold.reached()
        await world.kill()
        hold.release()
        turn = await world.end_of(ref, receipt)
        assert turn.status == "completed", turn.error
        assert wire(model)[-1] == wire(model)[-2]
        assert len(model.log.entries) == 4
        assert "complaint 1" in model.log.shown[-1].said


async def test_a_result_that_was_refused_stays_refused(model: ModelServer) -> None:
    """The same of a result by an output tool, whose refusal is its call's output."""
    model.script = by_round(ToolCall("final_result", {"response": 1}), ToolCall("final_result", {"response": 2}))
    numbers = count(1)
    agent = Agent(CHAT, output_type=ToolOutput(int), retries=3)

    @agent.output_validator
    async def check(output: int) -> int:
        if next(numbers) == 1:
            raise ModelRetry("another")
        return output

    async with fleet(served(agent), count=2) as world:
        ref = await world.session()
        hold = model.hold(0, to=To(round=1))
        receipt = await world.say(ref, "go")
        await hold.reached()
        await world.kill()
        hold.release()
        turn = await world.end_of(ref, receipt)
        assert (turn.status, text_of(turn)) == ("completed", "2")
        assert len(model.log.entries) == 3


async def test_conversations_that_others_began(model: ModelServer) -> None:
    """A session of a plain function goes on with a Pydantic AI agent: thoughts of others are left out, calls and
    results are not, and the agent's own system prompt comes first, once.
    """
    model.script = by_words({"hello": by_round(ToolCall("nothing"), "hi")})
    agent = Agent(CHAT)
    numbers = count(1)
    agent.system_prompt(lambda: f"You are number {next(numbers)}.")
    serve = PydanticAgent(agent)

    async def either(turn: Any) -> None:
        if turn.text != "plain":
            await serve.run(turn)
            return

        async def say(context: Any) -> Any:
            yield Thought("hm")
            yield "Wait."
            yield Called("look", {"at": 1})

        await turn.perform(await turn.generate(say))
        await turn.say("There.")

    async with fleet(either) as world:
        ref = await world.session()
        for text in ("plain", "hello", "again"):
            assert (await world.ask(ref, text)).status == "completed"
        assert not model.log.refusals
        first, *_, last = model.log.shown
        assert {shown.instructions for shown in model.log.shown} == {"You are number 1."}
        assert [said.role for said in first.messages] == ["user", "assistant", "tool", "assistant", "user"]
        assert last.messages[: len(first.messages)] == first.messages


def test_results_stand_in_the_order_of_their_calls() -> None:
    """Whichever came first."""
    calls = [items.call(name, "look", "{}", item_id=f"fc_{name}") for name in ("a", "b")]
    outputs = [items.output(name, f"of {name}", item_id=f"fco_{name}") for name in ("b", "a")]
    _, request = compose([*calls, *outputs])
    assert [part["content"] for part in request.parts] == ["of a", "of b"]


def test_thoughts_of_others_are_not_shown() -> None:
    """They mean nothing to another provider; what was said does."""
    (answer,) = compose([items.reasoning("hm", item_id="rs_1"), items.message("yes", item_id="msg_1")])
    assert [part["content"] for part in answer.parts] == ["yes"]


@given(st.lists(conversation_items(), max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_conversation_has_a_history(context: list[Any]) -> None:
    """Whatever clients and agents of other frameworks have left in a log, the framework reads it."""
    assert all(messages([entry]) for entry in compose(context))


async def test_an_agent_of_any_model_class_is_served() -> None:
    """Models that cannot stream are asked for the whole answer; those who listen inside the run hear it."""
    heard: list[Any] = []

    async def listen(ctx: RunContext[Any], events: Any) -> None:
        heard.extend([event async for event in events])

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart(f"{len(messages)} messages")])

    async with fleet(served(Agent(FunctionModel(answer), capabilities=[ProcessEventStream(listen)]))) as world:
        ref = await world.session()
        assert text_of(await world.ask(ref, "one")) == "1 messages"
        assert text_of(await world.ask(ref, "two")) == "3 messages"
        assert any(isinstance(event, PartStartEvent) for event in heard)


@pytest.mark.parametrize("fault", [Die(at=3), Fail(status=529, at=3)], ids=["cut", "overloaded"])
async def test_an_answer_that_breaks_off_is_asked_for_again(fault: Any, model: ModelServer) -> None:
    """Readers see it go on."""
    model.script = by_words({"go": "one two three four five"})
    async with fleet(served(Agent("anthropic:claude-haiku-4-5"))) as world:
        model.plan(fault)
        turn = await world.ask(await world.session(), "go")
        assert [item["status"] for item in turn.output] == ["completed"]
        assert len(model.log.entries) == 2


async def test_an_answer_that_breaks_off_each_time_fails_its_turn(model: ModelServer) -> None:
    """With the framework's error; the session goes on."""
    model.script = by_words({"go": "one two three four five"})
    async with fleet(served(Agent(CHAT))) as world:
        ref = await world.session()
        model.plan(Die(at=3), Die(at=2), Die(at=1))
        turn = await world.ask(ref, "go")
        assert (turn.status, turn.error.code) == ("failed", "ModelConnectionError")
        assert len(model.log.entries) == 3
        assert (await world.ask(ref, "go")).status == "completed"


async def test_an_answer_that_comes_out_of_order_is_said_again(model: ModelServer) -> None:
    """A provider that goes on with a call after it began the next: readers are shown what it came to in the end."""

    async def mixed(messages: list[ModelMessage], info: AgentInfo) -> Any:
        if len(messages) > 1:
            yield "done"
            return
        yield {0: DeltaToolCall(name="add", json_args='{"n"', tool_call_id="a")}
        yield {1: DeltaToolCall(name="add", json_args='{"n":2}', tool_call_id="b")}
        yield {0: DeltaToolCall(json_args=":1}")}

    added: list[int] = []
    agent = Agent(FunctionModel(stream_function=mixed))

    @agent.tool_plain
    async def add(n: int) -> int:
        added.append(n)
        return n

    async with fleet(served(agent)) as world:
        ref = await world.session()
        turn = await world.ask(ref, "go")
        assert turn.status == "completed", turn.error
        calls = [item for item in turn.output if item["type"] == "function_call" and item["status"] == "completed"]
        assert [call["arguments"] for call in calls] == ['{"n":1}', '{"n":2}']
        assert sorted(added) == [1, 2]


def test_arguments_are_told_as_they_come() -> None:
    """Text, then a call piece by piece."""
    speech = Speech()
    told = [
        *speech.hear(PartStartEvent(index=0, part=TextPart("I "))),
        *speech.hear(PartDeltaEvent(index=0, delta=TextPartDelta("add"))),
        *speech.hear(PartStartEvent(index=1, part=ToolCallPart("add", "", "a"))),
        *speech.hear(PartDeltaEvent(index=1, delta=ToolCallPartDelta(args_delta='{"n"'))),
        *speech.hear(PartDeltaEvent(index=1, delta=ToolCallPartDelta(args_delta=":1}"))),
    ]
    assert told == ["I ", "add", Called("add", "", "a"), Arguments('{"n"'), Arguments(":1}")]
    assert not [*speech.finish(ModelResponse([TextPart("I add"), ToolCallPart("add", '{"n":1}', "a")]))]
    with pytest.raises(Misheard):
        [*speech.finish(ModelResponse([TextPart("I add"), ToolCallPart("add", '{"n":2}', "a")]))]


def test_parts_of_one_kind_are_items_of_their_own() -> None:
    """Two messages in one answer stay two."""
    speech = Speech()
    answer = ModelResponse([TextPart("one"), TextPart("two")])
    assert [*speech.finish(answer)] == ["one", Detail({}), "two"]


def recorded(answer: ModelResponse) -> list[Any]:
    """The items that an answer leaves, as the runtime makes them."""
    made: list[Any] = []
    last = ""
    for part in (*Speech().finish(answer), *told(answer, {})):
        match part:
            case str() | Thought():
                kind, said = ("message", part) if isinstance(part, str) else ("reasoning", part.text)
                if kind != last:
                    make = items.message if kind == "message" else items.reasoning
                    made.append(make("", item_id=f"{kind}_{len(made)}"))
                made[-1]["content"] = [{"type": "text", "text": items.text_of(made[-1]) + said}] if said else []
                last = kind
            case Called():
                made.append(items.call(part.id, part.name, str(part.arguments), item_id=f"fc_{len(made)}"))
                last = "call"
            case Arguments():
                made[-1]["arguments"] += part.text
            case Detail():
                made[-1]["details"] = {**made[-1].get("details", {}), **part.data}
                last = ""
    return made


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [TextPart("")],
        [TextPart("a", id="m1"), TextPart("b", id="m2", provider_details={"x": 1})],
        [ThinkingPart("", signature="sealed", provider_name="openai"), ToolCallPart("add", {"n": 1}, "a")],
        [ToolCallPart("ping", None, "a"), ToolCallPart("add", {"n": 1}, "b"), ToolCallPart("add", {"n": 2}, "c")],
        [ThinkingPart("hm", signature="s"), TextPart("one"), ToolCallPart("add", '{"n"', "a"), TextPart("two")],
        [
            NativeToolCallPart("web_search", {"q": "x"}, "s1", provider_name="openai"),
            NativeToolReturnPart("web_search", {"found": [1]}, "s1", provider_name="openai"),
            TextPart("found"),
            FilePart(BinaryContent(b"\x89PNG", media_type="image/png")),
        ],
        [FilePart(BinaryContent(b"\x89PNG", media_type="image/png"))],
        [CompactionPart("so far", provider_name="anthropic")],
    ],
)
def test_an_answer_of_any_parts_is_the_same_from_the_log(parts: list[Any]) -> None:
    """Provider-executed tools, sealed thoughts, files, an answer without words: all that the provider wants back."""
    as_texts = [
        replace(part, args=part.args_as_json_str() if isinstance(part.args, dict) else part.args or "")
        if isinstance(part, ToolCallPart)
        else part
        for part in parts
    ]
    answer = ModelResponse(as_texts, provider_name="p", provider_response_id="r1", provider_details={"a": [1]})
    made = recorded(replace(answer, parts=parts))
    assert made
    live = Speech()
    for place, part in enumerate(parts):
        [*live.hear(PartStartEvent(index=place, part=part))]
    assert not [part for part in live.finish(replace(answer, parts=parts)) if part]  # nothing was left to be told
    assert kept(messages([response_of(made)])) == kept([answer])
    # in the context, what was said behind the calls stands behind their results
    end = max((place + 1 for place, item in enumerate(made) if item["type"] == "function_call"), default=len(made))
    results = [items.output(item["call_id"], "ok", item_id="o") for item in made if item["type"] == "function_call"]
    assert kept(messages(compose([*made[:end], *results, *made[end:]])))[0] == kept([answer])[0]


async def cut_behind(model: ModelServer, world: Fleet, text: str) -> tuple[Ref, Any]:
    """A turn whose replica dies when readers have that text, before its third delta is followed by more."""
    ref, hold = await world.session(), model.hold(3)
    receipt = await world.say(ref, "go")
    await hold.reached()
    await shown(world, ref, receipt, text)
    await world.kill()
    model.calm()
    return ref, await world.end_of(ref, receipt)


async def test_a_provider_that_can_is_given_the_beginning_of_its_answer(model: ModelServer) -> None:
    """With `prefill` the successor's model says only the rest; readers and the log have one answer."""
    model.script = by_words({"go": "one two three four"})
    async with fleet(served(Agent("anthropic:claude-haiku-4-5"), prefill={}), count=2) as world:
        ref, turn = await cut_behind(model, world, "one")
        assert text_of(turn) == "one two three four"
        assert model.log.shown[-1].prefix.startswith("one")
        await world.ask(ref, "thanks")
        assert [said.text for said in model.log.shown[-1].messages] == ["go", "one two three four", "thanks"]


async def test_a_beginning_that_ends_with_blanks_is_asked_for_again(model: ModelServer) -> None:
    """Anthropic's API takes none that does: the answer is asked for from its beginning, and what readers have of it is
    not said twice.
    """
    model.script = by_words({"go": "one two\n\n"})
    async with fleet(served(Agent("anthropic:claude-haiku-4-5"), prefill={}), count=2) as world:
        _, turn = await cut_behind(model, world, "one two\n\n")
        assert (turn.status, text_of(turn)) == ("completed", "one two\n\n")
        assert model.log.shown[-1].prefix == ""


async def test_deps_are_made_from_the_turn(model: ModelServer) -> None:
    """By a function, async or not; limits end the turn with the framework's own error."""
    agent = Agent(CHAT, deps_type=dict)

    @agent.instructions
    def who(ctx: RunContext[dict[str, Any]]) -> str:
        return f"You talk to {ctx.deps['user']}."

    async def deps(turn: Any) -> dict[str, Any]:
        return {"user": turn.session[:4]}

    async with fleet(served(agent, deps=deps, usage_limits=UsageLimits(request_limit=0))) as world:
        ref = await world.session()
        turn = await world.ask(ref, "hello")
        assert (turn.status, turn.error.code) == ("failed", "UsageLimitExceeded")
    async with fleet(served(agent, deps=deps)) as world:
        ref = await world.session()
        await world.ask(ref, "hello")
        assert model.log.shown[-1].instructions == f"You talk to {ref.id[:4]}."


async def test_an_agent_is_recognised(model: ModelServer) -> None:
    """A bare agent and a wrapped one; other things of the framework are refused by name."""
    agent = Agent(CHAT)
    found = recognise(agent, target="a:agent", name="shop")
    assert (found.name, adapt(PydanticAgent(agent, prefill={}), name="other").name) == ("shop", "other")
    with pytest.raises(ConfigError, match="no agent"):
        recognise(FunctionModel(lambda messages, info: ModelResponse([])), target="a:model", name="shop")
