"""What OpenAI's Responses API answers: the whole response, or the typed events that it is made of."""

from collections.abc import Iterator

from dalsegno.core.json import Json, JsonObject
from dalsegno.core.part import Thought, ToolCall
from dalsegno.testing.model.answer import Speech, arguments, sealed, spoken
from dalsegno.testing.model.wire import Frame

ECHOED = (
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "reasoning",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
)
ECHO: JsonObject = {"metadata": {}, "parallel_tool_calls": True, "store": True, "tool_choice": "auto", "tools": []}


def whole(speech: Speech) -> JsonObject:
    """The answer in one piece."""
    return _response(speech, _status(speech), [done for _, done in _items(speech)])


def stream(speech: Speech) -> Iterator[Frame]:
    """The answer as events."""
    for number, (name, data, deltas) in enumerate(_events(speech)):
        yield Frame({"type": name, "sequence_number": number, **data}, name=name, deltas=deltas)


def broken(speech: Speech, status: int, behind: int) -> Frame:
    """An error in the middle of a stream."""
    code = "rate_limit_exceeded" if status == 429 else "server_error"
    error: JsonObject = {"code": code, "message": "The server had an error while processing your request."}
    failed: JsonObject = {**_response(speech, "failed", []), "error": error, "usage": None}
    return Frame({"type": "response.failed", "sequence_number": behind, "response": failed}, name="response.failed")


def _events(speech: Speech) -> Iterator[tuple[str, JsonObject, int]]:
    begun = _response(speech, "in_progress", [])
    yield "response.created", {"response": begun}, 0
    yield "response.in_progress", {"response": begun}, 0
    items = _items(speech)
    for number, (part, done) in enumerate(items):
        yield "response.output_item.added", {"output_index": number, "item": _empty(done)}, 0
        at: JsonObject = {"item_id": done["id"], "output_index": number}
        match part:
            case str():
                yield from _text(speech, part, at)
            case Thought():
                if done["summary"]:
                    yield from _summary(speech, part, at)
            case ToolCall():
                for piece in speech.deltas(spoken(part)):
                    yield "response.function_call_arguments.delta", {**at, "delta": piece}, 1
                ended = {**at, "name": part.name, "arguments": arguments(part)}
                yield "response.function_call_arguments.done", ended, 0
        yield "response.output_item.done", {"output_index": number, "item": done}, 0
    status = _status(speech)
    yield f"response.{status}", {"response": _response(speech, status, [done for _, done in items])}, 0


def _text(speech: Speech, text: str, at: JsonObject) -> Iterator[tuple[str, JsonObject, int]]:
    at = {**at, "content_index": 0}
    yield "response.content_part.added", {**at, "part": _part("")}, 0
    for piece in speech.deltas(text):
        yield "response.output_text.delta", {**at, "delta": piece, "logprobs": []}, 1
    yield "response.output_text.done", {**at, "text": text, "logprobs": []}, 0
    yield "response.content_part.done", {**at, "part": _part(text)}, 0


def _summary(speech: Speech, thought: Thought, at: JsonObject) -> Iterator[tuple[str, JsonObject, int]]:
    at, name = {**at, "summary_index": 0}, "response.reasoning_summary_"
    yield f"{name}part.added", {**at, "part": {"type": "summary_text", "text": ""}}, 0
    for piece in speech.deltas(thought.text):
        yield f"{name}text.delta", {**at, "delta": piece}, 1
    yield f"{name}text.done", {**at, "text": thought.text}, 0
    yield f"{name}part.done", {**at, "part": {"type": "summary_text", "text": thought.text}}, 0


def _items(speech: Speech) -> list[tuple[str | Thought | ToolCall, JsonObject]]:
    return [(part, _item(speech, part, number)) for number, part in enumerate(speech.answer.parts)]


def _item(speech: Speech, part: str | Thought | ToolCall, number: int) -> JsonObject:
    """A finished item. A thought's summary is shown to those who asked for it; everybody is given the seal."""
    match part:
        case str():
            return {
                "id": speech.id("msg_", number),
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [_part(part)],
            }
        case Thought(text=text):
            asked = speech.shown.settings.get("reasoning")
            shown = isinstance(asked, dict) and bool(asked.get("summary"))
            summary: list[Json] = [{"type": "summary_text", "text": text}] if shown else []
            return {
                "id": speech.id("rs_", number),
                "type": "reasoning",
                "summary": summary,
                "encrypted_content": sealed(text),
            }
        case ToolCall():
            return {
                "id": speech.id("fc_", number),
                "type": "function_call",
                "status": "completed",
                "call_id": speech.call_id(part, "call_", number),
                "name": part.name,
                "arguments": arguments(part),
            }


def _empty(item: JsonObject) -> JsonObject:
    match item["type"]:
        case "message":
            return {**item, "status": "in_progress", "content": []}
        case "reasoning":
            return {**item, "summary": []}
        case _:
            return {**item, "status": "in_progress", "arguments": ""}


def _part(text: str) -> JsonObject:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _status(speech: Speech) -> str:
    return "incomplete" if speech.answer.cut_short else "completed"


def _response(speech: Speech, status: str, output: list[JsonObject]) -> JsonObject:
    settings = speech.shown.settings
    ended = status != "in_progress"
    return {
        **ECHO,
        **{name: settings[name] for name in ECHOED if settings.get(name) is not None},
        "id": speech.id("resp_"),
        "object": "response",
        "created_at": speech.created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": speech.shown.instructions or None,
        "model": speech.shown.model,
        "output": list(output),
        "previous_response_id": None,
        "truncation": "disabled",
        "usage": _usage(speech) if ended else None,
    }


def _usage(speech: Speech) -> JsonObject:
    shown, said = speech.count("input_tokens"), speech.count("output_tokens")
    return {
        "input_tokens": shown,
        "input_tokens_details": {"cached_tokens": speech.count("cached_tokens"), "cache_write_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": speech.count("reasoning_tokens")},
        "total_tokens": shown + said,
    }
