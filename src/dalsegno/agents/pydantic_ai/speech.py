"""What a model says, as parts of ours: live while it speaks, and what is kept with the answer once it is whole.

The framework's events come part after part. Should a provider go back to a part that others have followed, what was
shown cannot be mended: `Misheard` is raised, and the answer, which is whole by then, is said again from its beginning.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)

from dalsegno.agents.pydantic_ai.history import NOTE
from dalsegno.core.json import Json, JsonObject
from dalsegno.core.part import Arguments, Detail, Part, Thought, ToolCall, Usage

COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
KEPT_IN_ITEM = {"content", "args", "tool_name", "tool_call_id"}
OF_THE_RUN = {"parts", "kind", "run_id", "conversation_id", "workspace_ref", "provider_url"}


class Misheard(Exception):
    """The answer is not what was understood of it while it was given: say it again, as a whole."""


class Speech:
    """One answer, told to readers as it comes. `begun` is the text of it that they were shown by somebody else."""

    def __init__(self, begun: str = "") -> None:
        self._begun = begun
        self._spoken: dict[int, str] = {}
        self._last = -1
        self._kind = "text" if begun else ""

    def hear(self, event: object) -> Iterator[Part]:
        """What can be told now."""
        match event:
            case PartStartEvent(index=index, part=TextPart(content=text)):
                yield from self._add(index, "text", text)
            case PartStartEvent(index=index, part=ThinkingPart(content=text)):
                yield from self._add(index, "thinking", text)
            case PartStartEvent(index=index, part=ToolCallPart() as part):
                yield from self._call(index, part)
            case PartDeltaEvent(index=index, delta=TextPartDelta(content_delta=text)):
                yield from self._add(index, "text", text)
            case PartDeltaEvent(index=index, delta=ThinkingPartDelta(content_delta=str(text))):
                yield from self._add(index, "thinking", text)
            case PartDeltaEvent(index=index, delta=ToolCallPartDelta(args_delta=str(text))):
                yield from self._more(index, text)

    def finish(self, answer: ModelResponse) -> Iterator[Part]:
        """The rest of the answer. Raises `Misheard` if what was told is not its beginning."""
        for index, part in enumerate(answer.parts):
            whole, told = _text(part), self._spoken.get(index, "")
            if whole is None:
                if index in self._spoken:
                    raise Misheard
                continue
            if not whole.startswith(told) or (len(whole) > len(told) and index < self._last):
                raise Misheard
            if isinstance(part, ToolCallPart):
                if index not in self._spoken:
                    yield from self._call(index, part)
                yield from self._more(index, whole[len(self._spoken[index]) :])
            else:
                yield from self._add(index, part.part_kind, whole[len(told) :])
        if any(index >= len(answer.parts) for index in self._spoken):
            raise Misheard
        if not self._spoken and not self._begun:
            yield ""  # an answer without words is an item, too: its details are in the log and in the context

    def _add(self, index: int, kind: str, text: str) -> Iterator[Part]:
        if index < self._last or not text:
            return
        if index > self._last:
            if kind == self._kind and not (self._begun and not self._spoken):
                yield Detail({})
            self._last, self._kind = index, kind
        self._spoken[index] = self._spoken.get(index, "") + text
        yield text if kind == "text" else Thought(text)

    def _call(self, index: int, part: ToolCallPart) -> Iterator[Part]:
        if index <= self._last or not part.tool_name:
            return
        self._last, self._kind = index, part.part_kind
        self._spoken[index] = _text(part) or ""
        yield ToolCall(part.tool_name, self._spoken[index], part.tool_call_id)

    def _more(self, index: int, text: str) -> Iterator[Part]:
        if index == self._last and text:
            self._spoken[index] = self._spoken.get(index, "") + text
            yield Arguments(text)


def told(answer: ModelResponse, asked: JsonObject, *, begun: str = "") -> Iterator[Part]:
    """What is kept with an answer, once all of it was said; `asked` is what is kept about the request."""
    yield Detail({NOTE: {**describe(answer, begun=begun), **asked}})
    usage = answer.usage
    yield Usage({name: count for name in COUNTS if (count := getattr(usage, name, 0)) or name in COUNTS[:2]})


def describe(answer: ModelResponse, *, begun: str = "") -> JsonObject:
    """What items cannot say about an answer."""
    dumped = dump([answer])[0]
    parts: list[Json] = []
    for part, fields in zip(answer.parts, _objects(dumped["parts"]), strict=True):
        if not _item(part):
            parts.append(fields)
            continue
        rest = {name: value for name, value in fields.items() if name not in KEPT_IN_ITEM}
        parts.append({"item": True, **rest})
    if begun and not (answer.parts and isinstance(answer.parts[0], TextPart)):
        parts.insert(0, {"item": True, "part_kind": "text"})
    if not begun and not any(map(_item, answer.parts)):
        parts.append({"item": True, "part_kind": "text", "void": True})
    response = {name: value for name, value in dumped.items() if name not in OF_THE_RUN and value != "complete"}
    usage = response.pop("usage", None)
    if isinstance(usage, dict):
        response["usage"] = {name: count for name, count in usage.items() if count}
    return {"parts": parts, "response": response}


def dump(messages: Sequence[ModelMessage]) -> list[JsonObject]:
    """Messages as JSON, without what is not set, and without the time at which a request's parts were made."""
    encoded: list[JsonObject] = msgspec.json.decode(ModelMessagesTypeAdapter.dump_json(list(messages)))
    return [_lean(message) for message in encoded]


def dump_parts(parts: Sequence[Any]) -> list[JsonObject]:
    """A request's parts as JSON."""
    return _objects(dump([ModelRequest(parts=list(parts))])[0]["parts"])


def _lean(message: JsonObject) -> JsonObject:
    found: JsonObject = {name: value for name, value in message.items() if value is not None}
    drop = "timestamp" if found["kind"] == "request" else ""
    found["parts"] = [
        {name: value for name, value in part.items() if value is not None and name != drop}
        for part in _objects(found["parts"])
    ]
    return found


def _objects(value: Json) -> list[JsonObject]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _item(part: object) -> bool:
    """Whether the part is an item; one without words is not, but for a call."""
    return bool(_text(part)) or isinstance(part, ToolCallPart)


def _text(part: object) -> str | None:
    """The text that the part's item holds; None for one that is no item's."""
    match part:
        case TextPart(content=text) | ThinkingPart(content=text):
            return text
        case ToolCallPart(args=dict()):
            return part.args_as_json_str()
        case ToolCallPart(args=args):
            return str(args or "")
        case _:
            return None
