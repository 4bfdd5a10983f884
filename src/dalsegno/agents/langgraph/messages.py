"""Messages of LangChain and items of our log: the same conversation, in either's words. Pure.

What a LangChain message holds beyond an item's own fields goes with the item, under `details`, as LangGraph's
serialiser writes it; so a message comes back as it was.
"""

import base64
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde.base import SerializerProtocol

from dalsegno.core.item import CALL, MESSAGE, OUTPUT, text_of
from dalsegno.core.json import Json, JsonObject
from dalsegno.errors import Unreadable

DETAIL: Final = "langchain"


def packed(value: Any, serde: SerializerProtocol) -> JsonObject:
    """A value of LangChain's as details of an item. Raises what the serialiser raises for one that cannot be kept, or
    cannot be read again.
    """
    kind, data = serde.dumps_typed(value)
    serde.loads_typed((kind, data))
    return {DETAIL: [kind, base64.b64encode(data).decode()]}


def unpacked(item: JsonObject, serde: SerializerProtocol) -> Any:
    """The value in an item's details; None if there is none."""
    details = item.get("details")
    found = details.get(DETAIL) if isinstance(details, dict) else None
    if not isinstance(found, list):
        return None
    return serde.loads_typed((str(found[0]), base64.b64decode(str(found[1]))))


def rest_of(message: AIMessage) -> AIMessage:
    """What is left of an answer when its text and its calls are items of their own."""
    content = "" if isinstance(message.content, str) else message.content
    return message.model_copy(update={"content": content, "tool_calls": []})


def answer(items: Iterable[JsonObject], serde: SerializerProtocol) -> AIMessage:
    """The answer that these items of one step are on record as."""
    text, calls, rest, name = "", [], None, ""
    for item in items:
        name = name or str(item.get("id", ""))
        found = _told(item, serde)
        rest = found if isinstance(found, AIMessage) else rest
        if item["type"] == MESSAGE:
            text += text_of(item)
        elif item["type"] == CALL:
            calls.append(item)
    if rest is None:
        rest = AIMessage("", id=name)
    wrong = {str(call.get("id")) for call in rest.invalid_tool_calls}
    asked = [_asked(call) for call in calls if str(call["call_id"]) not in wrong]
    content = text if isinstance(rest.content, str) else rest.content
    return rest.model_copy(update={"content": content, "tool_calls": asked})


def messages(items: Sequence[JsonObject], serde: SerializerProtocol) -> list[BaseMessage]:
    """The conversation that items tell, whoever made them."""
    found: list[BaseMessage] = []
    step: list[JsonObject] = []
    for item in items:
        kind = item["type"]
        spoken = kind == CALL or (kind == MESSAGE and item.get("role") == "assistant")
        if spoken:
            step.append(item)
            if _told(item, serde) is None:
                continue
        if step:
            found.append(answer(step, serde))
            step = []
        if kind == OUTPUT:
            found.append(tool_message(item, serde))
        elif kind == MESSAGE and not spoken:
            found.append(_heard(item, serde))
    return [*found, answer(step, serde)] if step else found


def tool_message(item: JsonObject, serde: SerializerProtocol, *, name: str = "") -> ToolMessage:
    """What a tool answered."""
    found = _told(item, serde)
    if isinstance(found, ToolMessage):
        return found if found.content else found.model_copy(update={"content": str(item["output"])})
    status = "error" if item.get("status") == "incomplete" else "success"
    called = name or None
    return ToolMessage(str(item["output"]), tool_call_id=str(item["call_id"]), name=called, status=status)


def parse_arguments(item: JsonObject) -> dict[str, Any]:
    """The arguments of a call; none where the model did not write an object."""
    try:
        return msgspec.json.decode(str(item.get("arguments") or "{}"), type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return {}


def _told(item: JsonObject, serde: SerializerProtocol) -> Any:
    """The same, or None if it cannot be read: clients bring in items, too, and may say anything in them."""
    try:
        found = unpacked(item, serde)
    except (Unreadable, ValueError, LookupError, TypeError):
        return None
    return found[0] if isinstance(found, list) and found else found


def _asked(item: JsonObject) -> dict[str, Any]:
    return {"name": item["name"], "args": parse_arguments(item), "id": item["call_id"], "type": "tool_call"}


def _heard(item: JsonObject, serde: SerializerProtocol) -> BaseMessage:
    found = unpacked(item, serde)
    if isinstance(found, BaseMessage):
        return found
    content = _content(item.get("content"))
    kind = HumanMessage if item.get("role", "user") == "user" else SystemMessage
    return kind(content=content, id=str(item.get("id") or "") or None)


def _content(content: Json) -> Any:
    if not isinstance(content, list):
        return str(content or "")
    if all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        return "".join(str(part["text"]) for part in content if isinstance(part, dict))
    return [_block(part) for part in content if isinstance(part, dict)]


def _block(part: JsonObject) -> dict[str, Any]:
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": part.get("text", "")}
        case "input_image":
            return {"type": "image_url", "image_url": {"url": part.get("image_url", "")}}
        case _:
            return dict(part)
