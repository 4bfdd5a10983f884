"""Anthropic Messages. Prefill: when the last message is the assistant's, the answer goes on from it."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from dalsegno.core.json import Json, JsonObject, dumps
from dalsegno.testing.model.answer import unsealed
from dalsegno.testing.model.messages_events import broken, problem, stream, whole
from dalsegno.testing.model.shown import Asked, Message, Offered, Shown, gathered
from dalsegno.testing.model.wire import Body, Refusal, Wire, rest_of, text_of

NO_PREFILL = re.compile(r"claude-(?:fable|mythos|(?:opus|sonnet|haiku)-(?:4-[6-9]|[5-9]))")
FIELDS = {
    "text": {"type", "text", "citations", "cache_control"},
    "thinking": {"type", "thinking", "signature"},
    "tool_use": {"type", "id", "name", "input", "caller", "toolset_name", "cache_control"},
    "tool_result": {"type", "tool_use_id", "content", "is_error", "cache_control"},
}
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


def read(body: Body) -> Shown:
    """The neutral form of a request."""
    for name in ("model", "max_tokens", "messages"):
        if body.get(name) is None:
            raise Refusal(f"{name}: Field required")
    given = body["messages"]
    if not isinstance(given, list) or not given:
        raise Refusal("messages: at least one message is required")
    checked = [_blocks(message, number, last=number == len(given) - 1) for number, message in enumerate(given)]
    if given[0]["role"] != "user":
        raise Refusal('messages: first message must use the "user" role')
    given, blocks = _combined(given, checked)
    _paired(given, blocks)
    _thinking(body, given, blocks)
    prefix = _prefix(body, blocks.pop()) if given[-1]["role"] == "assistant" else ""
    read = [
        message
        for number, (one, its) in enumerate(zip(given, blocks, strict=False))
        for message in _messages(one["role"], its, number)
    ]
    instructions = text_of(body.get("system"), "text")
    _, rest = gathered(read)
    settings = rest_of(body, "model", "messages", "system", "tools")
    tools = [_tool(tool, number) for number, tool in enumerate(body.get("tools") or ())]
    return Shown("messages", body["model"], instructions, rest, tuple(tools), prefix, settings)


def _blocks(message: Any, number: int, *, last: bool) -> list[JsonObject]:
    role = message.get("role") if isinstance(message, dict) else None
    if role == "system":
        raise Refusal(
            'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not "system" '
            "as an input message role."
        )
    if role not in ("user", "assistant"):
        raise Refusal(f"messages.{number}.role: Input should be 'user' or 'assistant'")
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise Refusal(f"messages.{number}.content: Input should be a valid list of blocks")
    if not content and not (last and role == "assistant"):
        raise Refusal(
            f"messages.{number}: all messages must have non-empty content except for the optional final assistant "
            "message"
        )
    for place, block in enumerate(content):
        _block(block, f"messages.{number}.content.{place}")
    return content


def _combined(given: Sequence[Body], blocks: Sequence[list[JsonObject]]) -> tuple[list[Body], list[list[JsonObject]]]:
    """Messages of one role in a row are one message."""
    messages, combined = list[Body](), list[list[JsonObject]]()
    for message, its in zip(given, blocks, strict=True):
        if messages and messages[-1]["role"] == message["role"]:
            combined[-1] += its
        else:
            messages.append(message)
            combined.append([*its])
    return messages, combined


def _block(block: JsonObject, place: str) -> None:
    kind = str(block.get("type"))
    for unknown in sorted(block.keys() - FIELDS.get(kind, block.keys())):
        raise Refusal(f"{place}.{kind}.{unknown}: Extra inputs are not permitted")
    if kind == "text" and not block.get("text"):
        raise Refusal("messages: text content blocks must be non-empty")
    if kind == "text" and not str(block["text"]).strip():
        raise Refusal("messages: text content blocks must contain non-whitespace text")


def _paired(given: Sequence[Body], blocks: Sequence[Sequence[JsonObject]]) -> None:
    """The next message begins with the answers to every call, once, and to nothing else."""
    seen = set[Json]()
    waiting = list[Json]()
    for number, its in enumerate(blocks):
        answered = _answered(its, number, waiting)
        _all_answered(number - 1, [name for name in waiting if name not in answered])
        waiting = _asked(its, number, seen) if given[number]["role"] == "assistant" else []
    _all_answered(len(blocks) - 1, waiting)


def _answered(its: Sequence[JsonObject], number: int, waiting: Sequence[Json]) -> list[Json]:
    names, rest = list[Json](), False
    for place, block in enumerate(its):
        if block.get("type") != "tool_result":
            rest = True
            continue
        name = block.get("tool_use_id")
        if rest and name in waiting:
            _all_answered(number - 1, [name])
        if name in names:
            raise Refusal(
                f"messages.{number}.content.{place}: each tool_use must have a single result. Found multiple "
                f"`tool_result` blocks with id: {name}"
            )
        if name not in waiting:
            raise Refusal(
                f"messages.{number}.content.{place}: unexpected `tool_use_id` found in `tool_result` blocks: {name}. "
                "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        names.append(name)
    return names


def _asked(its: Sequence[JsonObject], number: int, seen: set[Json]) -> list[Json]:
    names = list[Json]()
    for place, block in enumerate(its):
        if block.get("type") != "tool_use":
            continue
        name = block.get("id")
        if not isinstance(name, str) or not _ID.fullmatch(name):
            raise Refusal(
                f"messages.{number}.content.{place}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
            )
        if name in seen:
            raise Refusal(f"messages.{number}.content.{place}: `tool_use` ids must be unique")
        if not isinstance(block.get("input"), dict):
            raise Refusal(f"messages.{number}.content.{place}.tool_use.input: Input should be a valid dictionary")
        seen.add(name)
        names.append(name)
    return names


def _all_answered(number: int, left: Sequence[Json]) -> None:
    if left:
        raise Refusal(
            f"messages.{number}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(map(str, left))}. Each `tool_use` block must have a corresponding `tool_result` block in the "
            "next message."
        )


def _thinking(body: Body, given: Sequence[Body], blocks: Sequence[Sequence[JsonObject]]) -> None:
    """Thoughts are as we signed them; and with thinking switched on, what led to the last calls is not left out."""
    for number, its in enumerate(blocks):
        for place, block in enumerate(its):
            if block.get("type") != "thinking":
                continue
            if unsealed(str(block.get("signature"))) != block.get("thinking"):
                raise Refusal(f"messages.{number}.content.{place}: Invalid `signature` in `thinking` block")
    if (body.get("thinking") or {}).get("type") != "enabled" or not blocks[-1]:
        return
    last = max((n for n, message in enumerate(given) if message["role"] == "assistant"), default=None)
    if last is None or not any(block.get("type") == "tool_result" for block in blocks[-1]):
        return
    kind = blocks[last][0].get("type")
    if kind not in ("thinking", "redacted_thinking"):
        raise Refusal(
            f"messages.{last}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kind}`. When "
            "`thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding the "
            "lastmost set of `tool_use` and `tool_result` blocks). We recommend you include thinking blocks from "
            "previous turns. To avoid this requirement, disable `thinking`."
        )


def _prefix(body: Body, its: Sequence[JsonObject]) -> str:
    if NO_PREFILL.match(str(body["model"])):
        raise Refusal(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    text = text_of(list(its), "text")
    if text != text.rstrip():
        raise Refusal("messages: final assistant content cannot end with trailing whitespace")
    return text


def _messages(role: str, its: Sequence[JsonObject], number: int) -> Iterator[Message]:
    """A user's message may hold tool results, which are messages of their own here."""
    if role == "assistant":
        calls = tuple(
            Asked(str(block["id"]), str(block.get("name")), dumps(block["input"]).decode())
            for block in its
            if block.get("type") == "tool_use"
        )
        said = [block for block in its if block.get("type") not in ("tool_use", "thinking", "redacted_thinking")]
        thought = "".join(str(block["thinking"]) for block in its if block.get("type") == "thinking")
        yield Message("assistant", text_of(said, "text"), thought, calls)
        return
    for block in its:
        if block.get("type") == "tool_result":
            yield Message("tool", text_of(block.get("content"), "text"), call_id=str(block["tool_use_id"]))
    said = [block for block in its if block.get("type") != "tool_result"]
    if said:
        yield Message("user", text_of(said, "text"))


def _tool(tool: Any, number: int) -> Offered:
    name = tool.get("name") if isinstance(tool, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refusal(f"tools.{number}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    return Offered(name, tool.get("description") or "", tool.get("input_schema") or {})


MESSAGES = Wire("/v1/messages", read, whole, stream, problem, broken)
