"""Contexts that no provider takes are not taken by the scripted model server either: 400, in the provider's words."""

from typing import Any

import anthropic
import openai
import pytest

from dalsegno.testing.model import ModelServer
from tests.testing.providers import Provider

USER = {"role": "user", "content": "weather?"}
LONG = "call_" + "x" * 60


def call(name: str = "c1") -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": "weather", "arguments": "{}"}}


def asks(*names: str) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [call(name) for name in names]}


def tells(name: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": "dry"}


CHAT: dict[str, tuple[list[Any], str]] = {
    "nothing": ([], "Invalid 'messages': empty array."),
    "a call without an answer": (
        [USER, asks("c1", "c2"), tells("c1")],
        "The following tool_call_ids did not have response messages: c2",
    ),
    "an answer that comes too late": (
        [USER, asks("c1"), USER, tells("c1")],
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'.",
    ),
    "an answer without a call": (
        [USER, tells("c1")],
        "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
    ),
    "an answer to another call": (
        [USER, asks("c1"), tells("c2")],
        "'tool_call_id' of 'c2' not found in 'tool_calls' of previous message.",
    ),
    "two answers": (
        [USER, asks("c1"), tells("c1"), tells("c1")],
        "Duplicate value for 'tool_call_id' of 'c1', in messages[2] and messages[3].",
    ),
    "two calls of one name": ([USER, asks("c1", "c1"), tells("c1")], "Duplicate value for 'tool_call_id' of 'c1'"),
    "a call's name once more": (
        [USER, asks("c1"), tells("c1"), asks("c1"), tells("c1")],
        "Duplicate value for 'tool_call_id' of 'c1', in messages[1] and messages[3].",
    ),
    "an empty user message": ([{"role": "user", "content": ""}], "Invalid 'messages[0].content': empty string."),
    "an empty assistant message": (
        [USER, {"role": "assistant", "content": ""}, USER],
        "Invalid value for 'content': expected a string, got null.",
    ),
    "an unknown role": ([{"role": "robot", "content": "hi"}], "Invalid value: 'robot'. Supported values are:"),
    "a long call id": (
        [USER, asks(LONG), tells(LONG)],
        "Invalid 'messages[1].tool_calls[0].id': string too long. Expected a string with maximum length 40",
    ),
    "arguments that are no text": (
        [USER, {"role": "assistant", "tool_calls": [{**call(), "function": {"name": "f", "arguments": {}}}]}],
        "Invalid type for 'messages[1].tool_calls[0].function.arguments'.",
    ),
}


def asked(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": name, "name": "weather", "arguments": "{}", **more}


def told(name: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": name, "output": "dry"}


def thought(**more: Any) -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs_1", "summary": [], **more}


GENUINE = "d5n9WviZ_ZbuKo9VaG1tLCBsZXQgbWUgc2Vl"

RESPONSES: dict[str, tuple[list[Any], str]] = {
    "nothing": ([], "Input cannot be empty."),
    "a call without an answer": ([USER, asked("c1"), USER], "No tool output found for function call c1."),
    "an answer without a call": (
        [USER, told("c1")],
        "No tool call found for function call output with call_id c1.",
    ),
    "an answer before its call": (
        [USER, told("c1"), asked("c1")],
        "No tool call found for function call output with call_id c1.",
    ),
    "two answers": ([USER, asked("c1"), told("c1"), told("c1")], "Duplicate 'call_id': c1"),
    "two calls of one name": ([USER, asked("c1"), asked("c1"), told("c1")], "Duplicate 'call_id': c1"),
    "one item twice": (
        [USER, asked("c1", id="fc_1"), told("c1"), asked("c2", id="fc_1"), told("c2")],
        "Duplicate item found with id fc_1. Remove duplicate items from your input and try again.",
    ),
    "an empty message": ([{"role": "user", "content": ""}], "Invalid 'input[0].content': empty string."),
    "somebody else's item id": (
        [USER, asked("c1", id="item_1"), told("c1")],
        "Invalid 'input[1].id': 'item_1'. Expected an ID that begins with 'fc'.",
    ),
    "a long call id": ([USER, asked(LONG), told(LONG)], "Invalid 'input[1].call_id': string too long."),
    "a user's text as output": (
        [{"role": "user", "content": [{"type": "output_text", "text": "hi"}]}],
        "Invalid value: 'output_text'. Supported values are: 'input_text'.",
    ),
    "a field of one's own": (
        [{**USER, "details": {}}],
        "Unknown parameter: 'input[0].details'.",
    ),
    "an unknown role": ([{"role": "robot", "content": "hi"}], "Invalid value: 'robot'. Supported values are:"),
    "a call without arguments": (
        [USER, {"type": "function_call", "call_id": "c1", "name": "weather"}, told("c1")],
        "Missing required parameter: 'input[1].arguments'.",
    ),
    "an unknown item": ([{"type": "step", "name": "x"}], "Invalid value: 'step'. Supported values are:"),
    "a thought that would have to be stored": ([USER, thought()], "Item with id 'rs_1' not found."),
    "a forged thought": ([USER, thought(encrypted_content="gAAAAA==")], "could not be verified."),
    "a thought that led to nothing": (
        [USER, thought(encrypted_content=GENUINE), USER],
        "Item 'rs_1' of type 'reasoning' was provided without its required following item.",
    ),
    "a reference": ([{"type": "item_reference", "id": "msg_1"}], "Item with id 'msg_1' not found."),
}


def uses(*names: str) -> dict[str, Any]:
    blocks = [{"type": "tool_use", "id": name, "name": "weather", "input": {}} for name in names]
    return {"role": "assistant", "content": blocks}


def results(*names: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": n, "content": "dry"} for n in names]}


def says(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


MESSAGES: dict[str, tuple[list[Any], str]] = {
    "nothing": ([], "messages: at least one message is required"),
    "a call without an answer": (
        [USER, uses("t1", "t2"), results("t1")],
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: t2.",
    ),
    "a call at the end": ([USER, uses("t1")], "messages.1: `tool_use` ids were found without `tool_result` blocks"),
    "an answer that comes too late": (
        [USER, uses("t1"), USER, says("Hm."), results("t1")],
        "messages.1: `tool_use` ids were found",
    ),
    "an answer behind a text": (
        [USER, uses("t1"), USER, results("t1")],
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: t1.",
    ),
    "an answer without a call": (
        [results("t1")],
        "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: t1.",
    ),
    "two answers": (
        [USER, uses("t1"), results("t1", "t1")],
        "messages.2.content.1: each tool_use must have a single result.",
    ),
    "two calls of one name": ([USER, uses("t1", "t1"), results("t1")], "messages.1.content.1: `tool_use` ids must be"),
    "a call's name once more": (
        [USER, uses("t1"), results("t1"), uses("t1"), results("t1")],
        "messages.3.content.0: `tool_use` ids must be unique",
    ),
    "an empty message": ([{"role": "user", "content": ""}], "messages.0: all messages must have non-empty content"),
    "an empty text": ([USER, says(""), USER], "messages: text content blocks must be non-empty"),
    "a blank text": ([USER, says(" \n"), USER], "messages: text content blocks must contain non-whitespace text"),
    "a field of one's own": (
        [{"role": "user", "content": [{"type": "text", "text": "hi", "details": {}}]}],
        "messages.0.content.0.text.details: Extra inputs are not permitted",
    ),
    "a strange call id": ([USER, uses("t:1"), results("t:1")], "tool_use.id: String should match pattern"),
    "a forged thought": (
        [USER, {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": "y"}]}, USER],
        "messages.1.content.0: Invalid `signature` in `thinking` block",
    ),
    "the model begins": ([says("hi"), USER], 'messages: first message must use the "user" role'),
    "a system message among them": ([USER, {"role": "system", "content": "x"}], 'messages: Unexpected role "system".'),
    "an unknown role": ([{"role": "robot", "content": "hi"}], "messages.0.role: Input should be 'user' or 'assistant'"),
    "a content of nothing known": (
        [{"role": "user", "content": 7}],
        "messages.0.content: Input should be a valid list",
    ),
    "arguments that are no object": (
        [USER, {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": "{"}]}, USER],
        "messages.1.content.0.tool_use.input: Input should be a valid dictionary",
    ),
    "a prefix that ends in a blank": (
        [USER, says("It is ")],
        "messages: final assistant content cannot end with trailing whitespace",
    ),
}
CASES = [
    pytest.param(name, messages, text, id=f"{name}: {what}")
    for name, cases in (("chat", CHAT), ("responses", RESPONSES), ("messages", MESSAGES))
    for what, (messages, text) in cases.items()
]


@pytest.mark.parametrize(("name", "messages", "text"), CASES)
async def test_a_context_that_no_provider_takes_is_refused(
    name: str, messages: list[Any], text: str, clients: dict[str, Provider], model: ModelServer
) -> None:
    """With status 400 and the provider's reason; the script is not asked, and the log says why."""
    model.script = lambda shown: pytest.fail("the script was asked")
    for streamed in (False, True):
        with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)) as raised:
            await clients[name].raw(messages, stream=streamed)
        assert text in str(raised.value)
    assert [text in refusal for refusal in model.log.refusals] == [True, True]
    assert model.log.shown == []


async def test_some_models_cannot_be_given_the_beginning_of_their_answer(
    clients: dict[str, Provider], model: ModelServer
) -> None:
    """Those of Anthropic that really cannot."""
    for name in ("claude-opus-4-6", "claude-sonnet-5", "claude-fable-5"):
        with pytest.raises(anthropic.BadRequestError, match="does not support assistant message prefill"):
            await clients["messages"].raw([USER, says("It")], model=name)
    await clients["messages"].raw([USER, says("It")], model="claude-opus-4-5")
    assert len(model.log.shown) == 1


async def test_messages_of_one_role_in_a_row_are_one(clients: dict[str, Provider], model: ModelServer) -> None:
    """So two calls may stand in two messages, and so may their answers."""
    await clients["messages"].raw([USER, USER, uses("t1"), uses("t2"), results("t1"), results("t2"), USER])
    assert [message.role for message in model.log.shown[0].messages] == ["user", "assistant", "tool", "tool", "user"]


async def test_thinking_wants_the_thought_that_led_to_the_last_calls(
    clients: dict[str, Provider], model: ModelServer
) -> None:
    """With extended thinking switched on, a tool's answer is refused without it."""
    thinking = {"type": "enabled", "budget_tokens": 1024}
    with pytest.raises(anthropic.BadRequestError, match="Expected `thinking` or `redacted_thinking`, but found"):
        await clients["messages"].raw([USER, uses("t1"), results("t1")], thinking=thinking, max_tokens=2000)
    await clients["messages"].raw([USER, says("dry"), USER], thinking=thinking, max_tokens=2000)


async def test_what_is_needed_is_asked_for(clients: dict[str, Provider], model: ModelServer) -> None:
    """Parameters that are missing, tools that cannot be named so, a response that was never stored."""
    tool = {"type": "function", "name": "not a name", "parameters": {}}
    with pytest.raises(openai.BadRequestError, match=r"Invalid 'tools\[0\].name': string does not match pattern"):
        await clients["responses"].raw([USER], tools=[tool])
    with pytest.raises(openai.BadRequestError, match=r"Invalid 'tools\[0\].function.name'"):
        await clients["chat"].raw([USER], tools=[{"type": "function", "function": tool}])
    with pytest.raises(anthropic.BadRequestError, match=r"tools.0.custom.name"):
        await clients["messages"].raw([USER], tools=[{"name": "not a name", "input_schema": {}}])
    with pytest.raises(anthropic.BadRequestError, match="max_tokens: Field required"):
        await clients["messages"].raw([USER], max_tokens=None, stream=True)
    with pytest.raises(openai.BadRequestError, match="Previous response with id 'resp_1' not found"):
        await clients["responses"].raw([USER], previous_response_id="resp_1")
    with pytest.raises(openai.BadRequestError, match="Cannot set both `continue_final_message`"):
        await clients["chat"].raw([USER], extra_body={"continue_final_message": True})
