"""Items: what a step leaves in the conversation. Open Responses shapes, as plain JSON objects.

An item that we make has the fields that folds and providers need and nothing else; an item that a client gave keeps
every field it had. Types of our own carry the prefix `dalsegno:` and are not shown to a model.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, overload

import msgspec

from dalsegno.core.json import Json, JsonObject

MESSAGE: Final = "message"
CALL: Final = "function_call"
OUTPUT: Final = "function_call_output"
REASONING: Final = "reasoning"
STEP: Final = "dalsegno:step"
EVENT: Final = "dalsegno:event"
INSIDE: Final = "dalsegno:inside"
OWN_PREFIX: Final = "dalsegno:"

CONVERSATION = frozenset({MESSAGE, CALL, OUTPUT, REASONING})

FIELD_OF = {MESSAGE: "text", CALL: "arguments", REASONING: "text"}
"""Which field of an item its deltas fill."""


def user_message(text: str, *, item_id: str) -> JsonObject:
    """What a client said, in the shape that is shown to a model."""
    return {"type": MESSAGE, "id": item_id, "role": "user", "content": [{"type": "input_text", "text": text}]}


def message(text: str, *, item_id: str, status: str = "completed") -> JsonObject:
    """What the agent said."""
    content: Json = [{"type": "output_text", "text": text}] if text else []
    return {"type": MESSAGE, "id": item_id, "role": "assistant", "status": status, "content": content}


def reasoning(text: str, *, item_id: str, status: str = "completed") -> JsonObject:
    """What the model thought before it spoke."""
    content: Json = [{"type": "reasoning_text", "text": text}] if text else []
    return {"type": REASONING, "id": item_id, "status": status, "summary": [], "content": content}


def call(call_id: str, name: str, arguments: str, *, item_id: str, status: str = "completed") -> JsonObject:
    """What the model asked a tool to do; `arguments` is the JSON text as the model wrote it."""
    return {
        "type": CALL,
        "id": item_id,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def output(call_id: str, text: str, *, item_id: str, status: str = "completed") -> JsonObject:
    """What a tool answered. `status` is `completed`, or `incomplete` when the outcome is an error or unknown."""
    return {"type": OUTPUT, "id": item_id, "call_id": call_id, "output": text, "status": status}


def step(name: str, result: Json, *, item_id: str) -> JsonObject:
    """What a function that the agent named returned."""
    return {"type": STEP, "id": item_id, "name": name, "output": result}


def custom(name: str, data: Json, *, item_id: str) -> JsonObject:
    """Something the agent wants its audience to see, and no model."""
    return {"type": EVENT, "id": item_id, "name": name, "data": data}


def inside(call_id: str, item: JsonObject) -> JsonObject:
    """What was said or done inside a call, by an agent that is a tool: no part of the conversation."""
    return {"type": INSIDE, "id": item["id"], "call_id": call_id, "item": item}


def innermost(item: JsonObject) -> JsonObject:
    """The item itself, wherever it was said."""
    found = item.get("item") if item["type"] == INSIDE else None
    return found if isinstance(found, dict) else item


def text_of(item: JsonObject) -> str:
    """The text that this item's deltas add up to: a message's or reasoning's text, a call's arguments."""
    if item.get("type") == CALL:  # an item of a client's that says no type is a message
        return str(item.get("arguments", ""))
    content = item.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(
        str(part["text"]) for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
    )


def opened(item: JsonObject) -> JsonObject:
    """The item as it is announced before its first delta: same id, empty, in progress."""
    empty: JsonObject = {**item, "status": "in_progress"}
    if item["type"] == CALL:
        empty["arguments"] = ""
    else:
        empty["content"] = []
    return empty


def closed(item: JsonObject, text: str, *, status: str) -> JsonObject:
    """The opened item with its text in place."""
    item_id = str(item["id"])
    match item["type"]:
        case "function_call":
            return call(str(item["call_id"]), str(item["name"]), text, item_id=item_id, status=status)
        case "reasoning":
            return reasoning(text, item_id=item_id, status=status)
        case _:
            return message(text, item_id=item_id, status=status)


def detailed(item: JsonObject, details: JsonObject) -> JsonObject:
    """The item with what somebody wants to be given back with it."""
    return {**item, "details": details} if details else item


def units_of(item: JsonObject) -> int:
    """How much of a cursor's offset the streamed item takes: one for opening it, one for each code point."""
    return 1 + len(text_of(item))


_object = msgspec.json.Decoder(dict).decode


class Items(Sequence[JsonObject]):
    """Items as the log has them. Each look gives a fresh object, so that nobody can change what the next one sees."""

    def __init__(self, encoded: Iterable[bytes]) -> None:
        self._encoded = tuple(encoded)

    @overload
    def __getitem__(self, index: int) -> JsonObject: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[JsonObject]: ...
    def __getitem__(self, index: int | slice) -> JsonObject | Sequence[JsonObject]:
        if isinstance(index, slice):
            return [_object(item) for item in self._encoded[index]]
        return _object(self._encoded[index])

    def __len__(self) -> int:
        return len(self._encoded)

    def __iter__(self) -> Iterator[JsonObject]:
        return map(_object, self._encoded)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Items) and self._encoded == other._encoded

    def __hash__(self) -> int:
        return hash(self._encoded)

    def __repr__(self) -> str:
        return f"Items({list(self)})"
