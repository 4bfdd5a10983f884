"""The graph's messages and the log's items tell the same conversation: what either lacks of the other's. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.checkpoint.serde.base import SerializerProtocol

from dalsegno.agents.langgraph.messages import messages, tool_message
from dalsegno.core.context import ABANDONED
from dalsegno.core.item import MESSAGE, OUTPUT
from dalsegno.core.json import JsonObject


def missing(
    items: Sequence[JsonObject],
    known: Sequence[BaseMessage],
    last: str,
    serde: SerializerProtocol,
    *,
    seen: Literal["all", "part"],
) -> list[BaseMessage]:
    """The messages that the conversation has and the graph has not.

    `last` is the id of the last turn that the graph ran (empty: none). What it left out of that turn is its own affair
    if it has `seen` all of it; otherwise it is told what became of the rest. Calls that the graph still
    waits for get their results in any case.
    """
    own = [index for index, item in enumerate(items) if last and is_of(item, last)]
    later = items[own[-1] + 1 :] if own else items
    answered = {message.tool_call_id for message in known if isinstance(message, ToolMessage)}
    asked = [str(call["id"]) for message in known if isinstance(message, AIMessage) for call in message.tool_calls]
    new: list[BaseMessage] = [_result(call, items, serde) for call in asked if call not in answered]
    if seen == "part":
        ids = {message.id for message in known if message.id}
        new += [
            message
            for message in messages([items[index] for index in own], serde)
            if not _is_known(message, ids, {*asked, *answered})
        ]
    return new + messages(later, serde)


def joined(items: Sequence[JsonObject], opening: Sequence[JsonObject]) -> list[JsonObject]:
    """What users said after the turn had begun, and joined it."""
    return [item for item in items[len(opening) :] if item["type"] == MESSAGE and item.get("role") == "user"]


def unsaid(made: Sequence[BaseMessage], opening: Sequence[JsonObject], values: Any) -> list[str]:
    """What the graph says at the end of a turn and is not among the messages that the turn `made`: answers that a node
    wrote itself.
    """
    if isinstance(values, str):
        return [] if any(message.text == values for message in made) else [values]
    spoken = {message.id for message in made}
    before = {item.get("id") for item in opening}
    told = messages_of(values)
    begin = max((index for index, message in enumerate(told) if message.id in before), default=len(told) - 2)
    return [
        str(message.text)
        for message in told[begin + 1 :]
        if isinstance(message, AIMessage) and not message.tool_calls and message.text and message.id not in spoken
    ]


def messages_of(values: Any) -> list[BaseMessage]:
    """The messages in a graph's state, or in what a function of LangGraph's returned."""
    found = values.get("messages") if isinstance(values, dict) else values
    listed: Iterable[Any] = found if isinstance(found, list) else [found]
    return [message for message in listed if isinstance(message, BaseMessage)]


def is_of(item: JsonObject, turn: str) -> bool:
    """Whether that turn made the item, or it is its message."""
    return str(item.get("id", "")).partition("_")[2].startswith(f"{turn[:8]}{int(turn[28:], 16):x}_")


def _result(call: str, items: Sequence[JsonObject], serde: SerializerProtocol) -> ToolMessage:
    for item in items:
        if item["type"] == OUTPUT and item["call_id"] == call:
            return tool_message(item, serde)
    return ToolMessage(ABANDONED, tool_call_id=call, status="error")


def _is_known(message: BaseMessage, ids: set[str], calls: set[str]) -> bool:
    if isinstance(message, ToolMessage):
        return message.tool_call_id in calls
    if isinstance(message, AIMessage) and any(str(call["id"]) in calls for call in message.tool_calls):
        return True
    return message.id in ids
