"""Conversations as providers see them: whether they would accept one, and in a form that no protocol shows through."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from dalsegno.core.item import text_of
from dalsegno.testing.model.shown import Asked, Message, gathered

Json = dict[str, Any]


class NotATranscript(Exception):
    """No provider would accept this conversation."""


def check(items: Sequence[Json]) -> None:
    """Raises `NotATranscript` unless every call is followed by its one result before anybody speaks again, nothing is
    answered that was not asked, ids are unique, and it is the model's turn to speak.
    """
    asked: set[str] = set()
    unanswered: set[str] = set()
    for item in items:
        match item["type"], item.get("call_id"):
            case "function_call", str(call) if call not in asked:
                asked.add(call)
                unanswered.add(call)
            case "function_call_output", str(call) if call in unanswered:
                unanswered.remove(call)
            case "message", None if not unanswered:
                pass
            case misplaced:
                raise NotATranscript(f"{misplaced} cannot follow {sorted(asked)}, of which {sorted(unanswered)} wait")
    if unanswered or not items or not _by_user(items[0]):
        raise NotATranscript(f"{len(items)} items, calls {unanswered} without a result")
    if len({item["id"] for item in items}) != len(items):
        raise NotATranscript("two items have one id")
    if items[-1].get("role") == "assistant" and items[-1].get("status") == "completed":
        raise NotATranscript("the model has just spoken")


def messages_of(items: Sequence[Json]) -> tuple[Message, ...]:
    """A context's items as the scripted model server tells of what it was shown."""
    return gathered(_message(item) for item in items)[1]


def plain(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The same without what frameworks write in their own way: the spaces in a call's arguments, which some parse and
    write again, and the object `{"error": …}` that some put around what went wrong.
    """
    return tuple(map(_plain, messages))


def _plain(message: Message) -> Message:
    calls = tuple(replace(call, arguments=json.dumps(json.loads(call.arguments))) for call in message.calls)
    text = message.text
    if message.role == "tool" and text.startswith('{"error":'):
        text = json.loads(text)["error"]
    return replace(message, calls=calls, text=text)


def _message(item: Json) -> Message:
    match item["type"]:
        case "function_call":
            return Message("assistant", calls=(Asked(item["call_id"], item["name"], item["arguments"]),))
        case "function_call_output":
            return Message("tool", item["output"], call_id=item["call_id"])
        case _:
            return Message(item["role"], text_of(item))


def _by_user(item: Json) -> bool:
    return item["type"] == "message" and item["role"] == "user"
