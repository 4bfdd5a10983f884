"""The scripted model server speaks as the providers do: their own clients read it, and it reads them."""

import json
from typing import Any

import httpx2

from dalsegno.testing.model import (
    Answer,
    Asked,
    Message,
    ModelServer,
    Pace,
    Thought,
    ToolCall,
    Usage,
    by_round,
    by_turn,
    by_words,
)
from tests.testing.providers import CLAUDE, Provider, providers

PROTOCOLS = ("chat", "responses", "messages")
TEXT = "Grüß Gott, 世界! It's 21 °C —\n\n  indented, 🎼\u200d🎹."
HISTORY = (
    Message("system", "Be brief."),
    Message("user", "Where am I?"),
    Message("assistant", "In Bologna."),
    Message("user", "weather?"),
    Message("assistant", "Let me look.", calls=(Asked("call_1", "weather", '{"city":"Bologna"}'),)),
    Message("tool", "dry", call_id="call_1"),
)
ASKING = (Message("user", "hello"),)


async def test_text_arrives_whole_and_in_pieces(provider: Provider, model: ModelServer) -> None:
    """The same code points, streamed or not, one token a delta; and the log counts the deltas."""
    model.script = by_words({}, otherwise=TEXT)
    assert (await provider.ask(ASKING)).text == TEXT
    got = await provider.stream(ASKING)
    assert got.text == TEXT == "".join(got.pieces)
    assert len(got.pieces) > 10
    assert model.log.entries[-1].sent == model.log.entries[-1].deltas == len(got.pieces)
    assert [entry.ended for entry in model.log.entries] == ["done", "done"]


async def test_pace_decides_how_much_a_delta_holds(provider: Provider, model: ModelServer) -> None:
    """Three tokens a delta make a third of the deltas."""
    model.script = lambda shown: Answer(("one two three four five six seven",), pace=Pace(tokens=3))
    assert (await provider.stream(ASKING)).pieces == ["one two three", " four five six", " seven"]


async def test_calls_arrive_whole_and_in_pieces(provider: Provider, model: ModelServer) -> None:
    """Text and two calls beside each other, with the reason why the answer ended, streamed or not."""
    model.script = by_words(
        {}, otherwise=["I look.", ToolCall("weather", {"city": "Bologna"}), ToolCall("weather", {"city": "Łódź"}, "c2")]
    )
    whole, streamed = await provider.ask(ASKING), await provider.stream(ASKING)
    assert whole.calls == streamed.calls
    assert whole.text == streamed.text == "I look."
    assert [json.loads(call.arguments) for call in whole.calls] == [{"city": "Bologna"}, {"city": "Łódź"}]
    assert whole.calls[1].id == "c2"
    assert whole.finish == streamed.finish
    assert whole.finish in ("tool_calls", "completed", "tool_use")


async def test_the_same_conversation_looks_the_same_by_every_protocol(
    clients: dict[str, Provider], model: ModelServer
) -> None:
    """Instructions, messages, calls, results and tools have one neutral form; that is what a script is given."""
    for client in clients.values():
        await client.ask(HISTORY)
    first, *others = model.log.shown
    assert first.instructions == "Be brief."
    assert first.messages == HISTORY[1:]
    assert [tool.name for tool in first.tools] == ["weather"]
    assert (first.said, first.round, first.turn, first.results) == ("weather?", 1, 2, ("dry",))
    assert [shown.conversation for shown in others] == [first.conversation] * 2
    assert [shown.protocol for shown in model.log.shown] == [*PROTOCOLS]


async def test_a_script_goes_on_after_a_tool_has_answered(provider: Provider, model: ModelServer) -> None:
    """The round is counted from what is shown, not remembered: asked out of order, it answers the same."""
    model.script = by_round(ToolCall("weather", {"city": "Bologna"}), lambda shown: f"It is {shown.results[-1]}.")
    assert (await provider.ask(HISTORY)).text == "It is dry."
    assert (await provider.ask(HISTORY[:4])).calls[0].name == "weather"
    assert (await provider.ask(HISTORY)).text == "It is dry."


async def test_a_script_can_go_by_turns_and_by_words(provider: Provider, model: ModelServer) -> None:
    """What the user has said, and how often, decides."""
    model.script = by_words({"^wea": by_turn("first", "second")})
    assert (await provider.ask(HISTORY)).text == "second"
    assert (await provider.ask((Message("user", "weather?"),))).text == "first"
    assert (await provider.ask(ASKING)).text == "You said: hello"


async def test_the_same_context_gets_the_same_answer_and_ids(provider: Provider, model: ModelServer) -> None:
    """Also of another server: ids are made of what was shown."""
    model.script = by_words({}, otherwise=[ToolCall("weather", {"city": "Rome"})])
    one, two, other = await provider.ask(ASKING), await provider.stream(ASKING), await provider.ask(HISTORY)
    assert (one.id, one.calls) == (two.id, two.calls)
    assert other.calls[0].id != one.calls[0].id


async def test_ids_may_be_fresh() -> None:
    """With `ids="fresh"` the same question gets other ids each time, as with real providers."""
    script = by_words({}, otherwise=ToolCall("weather", "{}"))
    async with ModelServer(script, ids="fresh") as server, providers(server) as clients:
        one, two = await clients["chat"].ask(ASKING), await clients["chat"].ask(ASKING)
    assert one.calls[0].id != two.calls[0].id
    assert one.id != two.id


async def test_usage_is_the_scripts_or_counted(provider: Provider, model: ModelServer) -> None:
    """Numbers arrive as they are given; without them a longer context counts more."""
    model.script = by_words({}, otherwise=["hi", Usage({"input_tokens": 7, "output_tokens": 3})])
    assert (await provider.ask(ASKING)).usage == (await provider.stream(ASKING)).usage == (7, 3)
    model.script = by_words({}, otherwise="one two three")
    short, long = await provider.ask(ASKING), await provider.stream(HISTORY)
    assert 0 < short.usage[0] < long.usage[0]
    assert short.usage[1] == long.usage[1] == 3


async def test_an_answer_may_run_out_of_tokens(provider: Provider, model: ModelServer) -> None:
    """The client is told that the answer was cut short."""
    model.script = lambda shown: Answer(("half an ans",), cut_short=True)
    finishes = {(await provider.ask(ASKING)).finish, (await provider.stream(ASKING)).finish}
    assert finishes in ({"length"}, {"incomplete"}, {"max_tokens"})


async def test_thoughts_arrive_beside_the_text(provider: Provider, model: ModelServer) -> None:
    """Whole and in pieces; where the protocol seals them, with the same seal."""
    model.script = by_words({}, otherwise=[Thought("Let me see: 6 × 7."), "42"])
    whole, streamed = await provider.ask(ASKING), await provider.stream(ASKING)
    assert (whole.thought, whole.text) == (streamed.thought, streamed.text) == ("Let me see: 6 × 7.", "42")
    assert whole.seal == streamed.seal


async def test_the_responses_protocol_numbers_its_events_and_brackets_them(
    clients: dict[str, Provider], model: ModelServer
) -> None:
    """Items open and close around their parts, parts around their deltas, and no number is missing."""
    model.script = by_words({}, otherwise=[Thought("hm"), "yes", ToolCall("weather", "{}")])
    stream = await clients["responses"].raw("hello", stream=True, reasoning={"summary": "auto"})
    events: list[Any] = [event async for event in stream]
    assert [event.type.removeprefix("response.") for event in events] == [
        *("created", "in_progress"),
        *("output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.done"),
        *("content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
        "completed",
    ]
    assert [event.sequence_number for event in events] == [*range(len(events))]
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert done == events[-1].response.output


async def test_a_summary_of_thoughts_is_shown_to_those_who_ask(
    clients: dict[str, Provider], model: ModelServer
) -> None:
    """As with the real thing: without `reasoning.summary` a reasoning item has its encrypted content only."""
    model.script = by_words({}, otherwise=[Thought("secret"), "yes"])
    response = await clients["responses"].raw("hello")
    assert response.output[0].summary == []
    assert response.output[0].encrypted_content


async def test_thoughts_are_taken_back_as_they_were_sealed(clients: dict[str, Provider], model: ModelServer) -> None:
    """The model sees its own thought again, and whoever changed it is refused."""
    model.script = by_words({}, otherwise=[Thought("I thought this"), ToolCall("weather", {"city": "Rome"}, "call_9")])
    said = (await clients["responses"].raw("hello")).output
    items = [item.model_dump(exclude_none=True) for item in said]
    output = {"type": "function_call_output", "call_id": "call_9", "output": "dry"}
    await clients["responses"].raw([{"role": "user", "content": "hello"}, *items, output])
    blocks = (await clients["messages"].raw([{"role": "user", "content": "hello"}])).content
    result = {"type": "tool_result", "tool_use_id": "call_9", "content": "dry"}
    history = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in blocks]},
        {"role": "user", "content": [result]},
    ]
    await clients["messages"].raw(history)
    assert [shown.messages[1].thought for shown in model.log.shown if shown.round] == ["I thought this"] * 2


async def test_a_model_can_be_given_the_beginning_of_its_answer(
    clients: dict[str, Provider], model: ModelServer
) -> None:
    """Prefill: what comes back is the rest, by Anthropic's rule and by both rules of compatible servers."""
    model.script = by_words({}, otherwise=[Thought("not again"), "You said hello, and I say goodbye."])
    begun = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "You said hello,"}]
    vllm = {"continue_final_message": True, "add_generation_prompt": False}
    rest = (await clients["messages"].raw(begun)).content[0].text
    one = await clients["chat"].raw([begun[0], {**begun[1], "prefix": True}])
    two = await clients["chat"].raw(begun, extra_body=vllm)
    fresh = await clients["chat"].raw(begun)
    assert rest == one.choices[0].message.content == two.choices[0].message.content == " and I say goodbye."
    assert fresh.choices[0].message.content == "You said hello, and I say goodbye."
    assert [shown.prefix for shown in model.log.shown] == ["You said hello,"] * 3 + [""]
    assert [len(shown.messages) for shown in model.log.shown] == [1, 1, 1, 2]
    assert model.log.shown[0].model == CLAUDE


async def test_a_connection_is_for_one_answer(model: ModelServer) -> None:
    """So no client leaves one open behind its test, whichever framework holds it."""
    async with httpx2.AsyncClient(base_url=model.url) as client:
        said = {"role": "user", "content": "hi"}
        answer = await client.post("/v1/chat/completions", json={"model": "m", "messages": [said]})
    assert answer.headers["connection"] == "close"
