"""What Anthropic's Messages API answers: the whole message, the events that it is made of, and errors."""

from collections.abc import Iterator

import msgspec

from dalsegno.core.json import Json, JsonObject
from dalsegno.core.part import Thought, ToolCall
from dalsegno.testing.model.answer import Part, Speech, arguments, sealed, spoken
from dalsegno.testing.model.wire import Frame, Refusal

_PROBLEMS = {
    400: ("invalid_request_error", "Bad request"),
    401: ("authentication_error", "invalid x-api-key"),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "Not found"),
    429: ("rate_limit_error", "This request would exceed the rate limit for your organization."),
    529: ("overloaded_error", "Overloaded"),
}


def problem(status: int, refusal: Refusal | None) -> JsonObject:
    """The body of an error."""
    kind, message = _PROBLEMS.get(status, ("api_error", "Internal server error"))
    return {"type": "error", "error": {"type": kind, "message": refusal.message if refusal else message}}


def broken(_speech: Speech, status: int, _behind: int) -> Frame:
    """An error in the middle of a stream."""
    return Frame(problem(status, None), name="error")


def whole(speech: Speech) -> JsonObject:
    """The answer in one piece. Arguments that are no JSON object cannot be said here; they are left empty."""
    content: list[Json] = [_block(speech, part, number) for number, part in enumerate(speech.answer.parts)]
    usage = {**_usage(speech), "output_tokens": speech.count("output_tokens")}
    return {**_message(speech), "content": content, "stop_reason": _stop(speech), "usage": usage}


def stream(speech: Speech) -> Iterator[Frame]:
    """The answer as events."""
    for data, deltas in _events(speech):
        yield Frame(data, name=str(data["type"]), deltas=deltas)


def _events(speech: Speech) -> Iterator[tuple[JsonObject, int]]:
    usage = {**_usage(speech), "output_tokens": 1}
    yield {"type": "message_start", "message": {**_message(speech), "usage": usage}}, 0
    for number, part in enumerate(speech.answer.parts):
        at: JsonObject = {"index": number}
        yield {"type": "content_block_start", **at, "content_block": _empty(_block(speech, part, number))}, 0
        if number == 0:
            yield {"type": "ping"}, 0
        for piece in speech.deltas(spoken(part)):
            yield {"type": "content_block_delta", **at, "delta": _delta(part, piece)}, 1
        if isinstance(part, Thought):
            signed: JsonObject = {"type": "signature_delta", "signature": sealed(part.text)}
            yield {"type": "content_block_delta", **at, "delta": signed}, 0
        yield {"type": "content_block_stop", **at}, 0
    ended: JsonObject = {"stop_reason": _stop(speech), "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": speech.count("output_tokens")}}, 0
    yield {"type": "message_stop"}, 0


def _delta(part: Part, piece: str) -> JsonObject:
    match part:
        case str():
            return {"type": "text_delta", "text": piece}
        case Thought():
            return {"type": "thinking_delta", "thinking": piece}
        case ToolCall():
            return {"type": "input_json_delta", "partial_json": piece}


def _block(speech: Speech, part: Part, number: int) -> JsonObject:
    match part:
        case str():
            return {"type": "text", "text": part}
        case Thought(text=text):
            return {"type": "thinking", "thinking": text, "signature": sealed(text)}
        case ToolCall(name=name):
            name_of_call = speech.call_id(part, "toolu_", number)
            return {"type": "tool_use", "id": name_of_call, "name": name, "input": _input(part)}


def _input(call: ToolCall) -> Json:
    try:
        parsed: Json = msgspec.json.decode(arguments(call))
    except msgspec.DecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _empty(block: JsonObject) -> JsonObject:
    match block["type"]:
        case "text":
            return {**block, "text": ""}
        case "thinking":
            return {**block, "thinking": "", "signature": ""}
        case _:
            return {**block, "input": {}}


def _message(speech: Speech) -> JsonObject:
    return {
        "id": speech.id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": speech.shown.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _stop(speech: Speech) -> str:
    if speech.answer.cut_short:
        return "max_tokens"
    return "tool_use" if speech.answer.calls else "end_turn"


def _usage(speech: Speech) -> JsonObject:
    return {
        "input_tokens": speech.count("input_tokens"),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": speech.count("cached_tokens"),
        "service_tier": "standard",
    }
