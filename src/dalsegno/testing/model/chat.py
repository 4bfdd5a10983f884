"""OpenAI Chat Completions, and what servers compatible with it add: thoughts as `reasoning_content`, and prefill.

Prefill is asked for with `prefix: true` on the last message, or with `continue_final_message` (vLLM).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from dalsegno.core.json import JsonObject
from dalsegno.core.part import Thought, ToolCall
from dalsegno.testing.model.answer import Speech, arguments, spoken
from dalsegno.testing.model.openai import filled, named, offered, problem, required, short
from dalsegno.testing.model.shown import Asked, Message, Shown, gathered
from dalsegno.testing.model.wire import Body, Frame, Refusal, Wire, rest_of, text_of

ROLES = ("system", "developer", "user", "assistant", "tool")
CALL_ID_CHARS_MAX = 40


def read(body: Body) -> Shown:
    """The neutral form of a request."""
    model = required(body.get("model"), "model", str)
    messages = required(body.get("messages"), "messages", list)
    if not messages:
        raise Refusal(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param="messages",
            code="empty_array",
        )
    read = [_message(message, number) for number, message in enumerate(messages)]
    _paired(read)
    prefix = ""
    if _continues(body, messages[-1]):
        prefix = read.pop().text
    instructions, rest = gathered(read)
    tools = [(f"tools[{n}].function.name", tool.get("function", {})) for n, tool in enumerate(body.get("tools") or ())]
    settings = rest_of(body, "model", "messages", "tools")
    return Shown("chat", model, instructions, rest, offered(tools), prefix, settings)


def _continues(body: Body, last: Body) -> bool:
    asked = bool(body.get("continue_final_message"))
    if asked and body.get("add_generation_prompt", True):
        raise Refusal("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    return last["role"] == "assistant" and (asked or bool(last.get("prefix"))) and not last.get("tool_calls")


def _message(message: Any, number: int) -> Message:
    place = f"messages.[{number}]"
    role = required(message, place, dict).get("role")
    if role not in ROLES:
        listed = ", ".join(f"'{role}'" for role in ROLES)
        raise Refusal(
            f"Invalid value: '{role}'. Supported values are: {listed}.", param=f"{place}.role", code="invalid_value"
        )
    text = text_of(message.get("content"), "text", "refusal")
    match role:
        case "tool":
            short(message.get("tool_call_id") or "", f"messages[{number}].tool_call_id", CALL_ID_CHARS_MAX)
            return Message("tool", text, call_id=message["tool_call_id"])
        case "assistant":
            return _assistant(message, text, number)
        case "user":
            filled(text, f"messages[{number}].content")
            return Message("user", text)
        case _:
            return Message("system", text)


def _assistant(message: Body, text: str, number: int) -> Message:
    calls = tuple(
        _call(call, f"messages[{number}].tool_calls[{n}]") for n, call in enumerate(message.get("tool_calls") or ())
    )
    thought = message.get("reasoning_content") or message.get("reasoning") or ""
    if not text and not calls:
        raise Refusal("Invalid value for 'content': expected a string, got null.", param=f"messages.[{number}].content")
    return Message("assistant", text, thought, calls)


def _call(call: Any, place: str) -> Asked:
    short(call.get("id") or "", f"{place}.id", CALL_ID_CHARS_MAX)
    function = required(call.get("function"), f"{place}.function", dict)
    named(function.get("name"), f"{place}.function.name")
    return Asked(call["id"], function["name"], required(function.get("arguments"), f"{place}.function.arguments", str))


def _paired(messages: Sequence[Message]) -> None:
    """Every call is answered right behind it, once, and nothing else is."""
    asked = dict[str, int]()
    current = dict[str, int | None]()  # the calls of the message before, and who answered each
    for number, message in enumerate(messages):
        if message.role == "tool":
            _result(message, number, current)
            continue
        _answered(current, f"messages.[{number}].role")
        current = {}
        for call in message.calls:
            if call.id in asked:
                _duplicate(call.id, asked[call.id], number)
            asked[call.id], current[call.id] = number, None
    _answered(current, "messages")


def _answered(calls: dict[str, int | None], place: str) -> None:
    waiting = [call for call, answer in calls.items() if answer is None]
    if waiting:
        raise Refusal(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'. The following tool_call_ids did not have response messages: " + ", ".join(waiting),
            param=place,
        )


def _result(message: Message, number: int, calls: dict[str, int | None]) -> None:
    if not calls:
        raise Refusal(
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
            "'tool_calls'.",
            param=f"messages.[{number}].role",
        )
    if message.call_id not in calls:
        raise Refusal(
            f"Invalid parameter: 'tool_call_id' of '{message.call_id}' not found in 'tool_calls' of previous message.",
            param=f"messages.[{number}].tool_call_id",
        )
    before = calls[message.call_id]
    if before is not None:
        _duplicate(message.call_id, before, number)
    calls[message.call_id] = number


def _duplicate(call_id: str, first: int, second: int) -> None:
    raise Refusal(
        f"Invalid parameter: Duplicate value for 'tool_call_id' of '{call_id}', in messages[{first}] and "
        f"messages[{second}].",
        param=f"messages.[{second}].tool_call_id",
    )


def whole(speech: Speech) -> JsonObject:
    """The answer in one piece."""
    thought = "".join(part.text for part in speech.answer.parts if isinstance(part, Thought))
    calls = [
        {**_opened(speech, call, number), "function": {"name": call.name, "arguments": arguments(call)}}
        for number, call in enumerate(speech.answer.calls)
    ]
    said: JsonObject = {"role": "assistant", "content": speech.answer.text or None, "refusal": None}
    if thought:
        said["reasoning_content"] = thought
    if calls:
        said["tool_calls"] = calls  # type: ignore[assignment]
    choice: JsonObject = {"index": 0, "message": said, "logprobs": None, "finish_reason": _finish(speech)}
    return {**_head(speech, "chat.completion"), "choices": [choice], "usage": _usage(speech)}


def stream(speech: Speech) -> Iterator[Frame]:
    """The answer as chunks."""
    options: Any = speech.shown.settings.get("stream_options") or {}
    head = _head(speech, "chat.completion.chunk")
    if options.get("include_usage"):
        head["usage"] = None

    def chunk(delta: JsonObject, finish: str | None = None, deltas: int = 0) -> Frame:
        choice: JsonObject = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return Frame({**head, "choices": [choice]}, deltas=deltas)

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    number = -1
    for part in speech.answer.parts:
        if isinstance(part, ToolCall):
            number += 1
            opened = {**_opened(speech, part, number), "index": number}
            yield chunk({"tool_calls": [{**opened, "function": {"name": part.name, "arguments": ""}}]})
        for piece in speech.deltas(spoken(part)):
            match part:
                case str():
                    yield chunk({"content": piece}, deltas=1)
                case Thought():
                    yield chunk({"reasoning_content": piece}, deltas=1)
                case ToolCall():
                    yield chunk({"tool_calls": [{"index": number, "function": {"arguments": piece}}]}, deltas=1)
    yield chunk({}, _finish(speech))
    if options.get("include_usage"):
        yield Frame({**head, "choices": [], "usage": _usage(speech)})
    yield Frame("[DONE]")


def broken(_speech: Speech, status: int, _behind: int) -> Frame:
    """An error in the middle of a stream."""
    return Frame(problem(status, None))


def _head(speech: Speech, kind: str) -> JsonObject:
    return {
        "id": speech.id("chatcmpl-"),
        "object": kind,
        "created": speech.created,
        "model": speech.shown.model,
        "service_tier": "default",
        "system_fingerprint": None,
    }


def _opened(speech: Speech, call: ToolCall, number: int) -> JsonObject:
    return {"id": speech.call_id(call, "call_", number), "type": "function"}


def _finish(speech: Speech) -> str:
    if speech.answer.cut_short:
        return "length"
    return "tool_calls" if speech.answer.calls else "stop"


def _usage(speech: Speech) -> JsonObject:
    shown, said = speech.count("input_tokens"), speech.count("output_tokens")
    return {
        "prompt_tokens": shown,
        "completion_tokens": said,
        "total_tokens": shown + said,
        "prompt_tokens_details": {"cached_tokens": speech.count("cached_tokens"), "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": speech.count("reasoning_tokens"), "audio_tokens": 0},
    }


CHAT = Wire("/v1/chat/completions", read, whole, stream, problem, broken)
