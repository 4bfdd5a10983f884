"""Messages of a LangGraph thread as items of a log, so that `messages` gives them back as they were. Pure."""

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from dalsegno.agents.langgraph.messages import messages, packed, rest_of
from dalsegno.core.item import CALL, MESSAGE, OUTPUT
from dalsegno.core.json import Json, JsonObject, dumps

ROLES = ("user", "system", "developer")


def items_of(message: BaseMessage, serde: JsonPlusSerializer) -> list[JsonObject]:
    """The items that a message is. Raises `ValueError` for a kind that no item is like."""
    match message:
        case AIMessage():
            return _answer(message, serde)
        case ToolMessage():
            return [_result(message, serde)]
        case HumanMessage():
            return [_said(message, "user", serde)]
        case SystemMessage():
            return [_said(message, "system", serde)]
        case ChatMessage(role=role) if role in ROLES:
            return [_said(message, role, serde)]
        case _:
            raise ValueError(f"a {type(message).__name__} is like no item")


def _said(message: BaseMessage, role: str, serde: JsonPlusSerializer) -> JsonObject:
    content: Json = message.content if isinstance(message.content, str) else [_part(one) for one in message.content]
    item: JsonObject = {"type": MESSAGE, **_named(message), "role": role, "content": content}
    return item if messages([item], serde) == [message] else {**item, "details": packed(message, serde)}


def _part(block: Any) -> Json:
    if isinstance(block, str):
        return {"type": "input_text", "text": block}
    if block.get("type") == "text" and isinstance(block.get("text"), str):
        return {**block, "type": "input_text"}
    if block.get("type") == "image_url":
        image = block.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        detail = {"detail": image["detail"]} if isinstance(image, dict) and "detail" in image else {}
        return {"type": "input_image", "image_url": url, **detail}
    return dict(block)


def _answer(message: AIMessage, serde: JsonPlusSerializer) -> list[JsonObject]:
    """Its text, then its calls; the last of them has the rest of the message with it."""
    text = str(message.text)
    spoken: Json = [{"type": "output_text", "text": text}] if text else []
    items: list[JsonObject] = []
    if text or not (message.tool_calls or message.invalid_tool_calls):
        items.append({"type": MESSAGE, "role": "assistant", "content": spoken})
    for asked in message.tool_calls:
        items.append(_call(asked["id"], asked["name"], dumps(asked["args"]).decode()))
    for wrong in message.invalid_tool_calls:
        items.append(_call(wrong["id"], wrong["name"], wrong["args"] or ""))
    items[0] = {"type": items[0]["type"], **_named(message), **items[0]}
    items[-1] = {**items[-1], "details": packed(rest_of(message), serde)}
    return items


def _call(call_id: str | None, name: str | None, arguments: str) -> JsonObject:
    return {"type": CALL, "call_id": call_id, "name": name, "arguments": arguments}


def _result(message: ToolMessage, serde: JsonPlusSerializer) -> JsonObject:
    status = "incomplete" if message.status == "error" else "completed"
    item: JsonObject = {
        "type": OUTPUT,
        **_named(message),
        "call_id": message.tool_call_id,
        "output": str(message.text),
        "status": status,
    }
    # the text is not kept twice
    rest = message.model_copy(update={"content": ""}) if isinstance(message.content, str) else message
    return {**item, "details": packed(rest, serde)}


def _named(message: BaseMessage) -> JsonObject:
    return {"id": message.id} if message.id else {}
