"""Items of the log and items of the SDK, both ways. Pure.

What a provider's item has beside its text is kept under `details`, the text itself only once: in its place the details
hold its length. So the next request can be made of the log alone, byte for byte what the SDK would have sent.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, cast

import msgspec
from agents import ModelResponse, TResponseInputItem, Usage
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputItem,
    ResponseOutputMessage,
    ResponseReasoningItem,
)
from pydantic import BaseModel, TypeAdapter, ValidationError

from dalsegno.core import json
from dalsegno.core.ids import short_hash
from dalsegno.core.item import CALL, MESSAGE, OUTPUT, REASONING, text_of

Raw = dict[str, Any]
"""An item as JSON, of either side."""
KEY = "openai_agents"
"""Under which of an item's `details` all of this is."""
Shown = list[TResponseInputItem]
TEXTS = ("text", "refusal")
BLANK = "[blank]"
_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
_PARTS = {MESSAGE: ("content",), REASONING: ("summary", "content")}
_KNOWN: dict[str, type[BaseModel]] = {
    MESSAGE: ResponseOutputMessage,
    CALL: ResponseFunctionToolCall,
    REASONING: ResponseReasoningItem,
}
_STRUCTURED = {"input_text": "text", "input_image": "image", "input_file": "file"}


def plain(item: object) -> Raw:
    """An item of the SDK as JSON, with the fields that were set and no others."""
    if isinstance(item, BaseModel):
        return item.model_dump(mode="json", exclude_unset=True, warnings=False)
    return cast(Raw, msgspec.to_builtins(item))


def texts_of(raw: Raw) -> list[str]:
    """The texts of a provider's item, in the order in which they make up the text of ours."""
    if raw.get("type") == CALL:
        return [str(raw.get("arguments") or "")]
    return [str(part[name]) for part in _parts(raw) for name in TEXTS if isinstance(part.get(name), str)]


def stripped(raw: Raw) -> Raw:
    """The provider's item with each text's length in the text's place; a call without what the log says of it."""
    if raw.get("type") == CALL:
        return {name: value for name, value in raw.items() if name not in ("arguments", "call_id", "name")}
    return _with_parts(raw, _cut)


def own(item: Raw) -> Raw:
    """What this adapter keeps with an item; empty for items that it did not make."""
    details = item.get("details")
    found = details.get(KEY) if isinstance(details, dict) else None
    return found if isinstance(found, dict) else {}


def originals(item: Raw) -> list[Raw]:
    """The provider's items that an item of the log stands for: those before it that have no shape of ours, its own,
    and those behind it.
    """
    kept = own(item)
    raw = kept.get("item")
    mine = [] if raw is None else _whole(dict(raw), item)
    return [*kept.get("before", []), *mine, *kept.get("after", [])]


def response(items: Sequence[Raw]) -> ModelResponse:
    """A model's answer, as the SDK is given it: made from the record whether it has just been recorded or long ago."""
    output = [_typed(raw) for item in items for raw in originals(item)]
    last = own(items[-1]) if items else {}
    counts = last.get("usage")
    usage = Usage(**counts) if isinstance(counts, dict) else Usage()
    return ModelResponse(output=output, usage=usage, response_id=last.get("response"))


def to_input(items: Iterable[Raw]) -> Shown:
    """The conversation as the next request shows it: a function of the items and of nothing else.

    Items that others made (clients, other adapters, plain functions) are shown in the plainest form there is, and under
    call ids that every provider takes.
    """
    shown: Shown = []
    names: dict[str, str] = {}
    for item in items:
        kind, mine = item.get("type", MESSAGE), own(item)
        if kind == CALL:
            name = str(item["call_id"])
            names[name] = name if mine else _fresh(name, set(names.values()))
        if kind in (CALL, OUTPUT) and names.get(str(item["call_id"]), item["call_id"]) != item["call_id"]:
            item = {**item, "call_id": names[str(item["call_id"])]}
        shown += shown_as(item)
    return shown


def shown_as(item: Raw) -> Shown:
    """What one item is shown as."""
    kept = own(item)
    if "raw" in kept:
        return [kept["raw"]]
    if "item" in kept or "after" in kept:
        return cast(Shown, [_sent(raw) for raw in originals(item)])
    return cast(Shown, list(_plainly(item)))


def kept_as(raw: Raw, *, fits: object = True) -> Raw:
    """An item of the SDK as the log holds it: in a shape of ours where there is one, and so that it is shown as it was.

    `fits=False`: it cannot stand where it is to stand, and is kept aside.
    """
    item = _shaped(raw) if fits else None
    if item is None:
        return {"type": MESSAGE, "role": "assistant", "content": [], "details": {KEY: {"after": [raw]}}}
    return item if shown_as(item) == [raw] else {**item, "details": {KEY: {"raw": raw}}}


def _shaped(raw: Raw) -> Raw | None:
    kind, kept = raw.get("type", MESSAGE), {"details": {KEY: {"item": stripped(raw)}}}
    text = "".join(texts_of(raw)) if kind in _PARTS and not isinstance(raw.get("content"), str) else ""
    if kind == MESSAGE and raw.get("role") == "assistant" and isinstance(raw.get("content"), list):
        content = [{"type": "output_text", "text": text}] if text else []
        return {"type": MESSAGE, "role": "assistant", "content": content, **kept}
    if kind == MESSAGE and raw.get("content"):
        return {"type": MESSAGE, "role": raw.get("role"), "content": raw["content"]}
    if kind == REASONING:
        return {"type": REASONING, "content": [{"type": "reasoning_text", "text": text}] if text else [], **kept}
    if kind == CALL:
        return {**{name: raw.get(name) for name in ("type", "call_id", "name", "arguments")}, **kept}
    if kind == OUTPUT and isinstance(raw.get("output"), list):
        parts = {"details": {KEY: {"output": raw["output"]}}}
        return {"type": OUTPUT, "call_id": raw["call_id"], "output": text_of_parts(raw["output"]), **parts}
    if kind == OUTPUT:
        return {"type": OUTPUT, "call_id": raw.get("call_id"), "output": raw.get("output")}
    return None


def value_of(output: Raw) -> Any:
    """What the SDK is told that a tool returned, from the output on record."""
    parts = own(output).get("output")
    if not isinstance(parts, list):
        return str(output["output"])
    return [{**part, "type": _STRUCTURED.get(str(part["type"]), part["type"])} for part in parts]


def text_of_parts(parts: Any) -> str:
    """The text of a structured output, for readers that know only texts; what has none is named by its type."""
    found = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "\n".join(str(part.get("text") or f"[{part.get('type')}]") for part in found)


def _sent(raw: Raw) -> Raw:
    """As the SDK sends it back: without what only outputs may say."""
    return {name: value for name, value in raw.items() if name != "created_by"}


def _plainly(item: Raw) -> Iterable[Raw]:
    kind = item.get("type", MESSAGE)
    if kind == CALL:
        yield {"type": CALL, "call_id": item["call_id"], "name": item["name"], "arguments": item["arguments"]}
    elif kind == OUTPUT:
        yield {
            "call_id": item["call_id"],
            "output": own(item).get("output", item["output"]),
            "type": OUTPUT,
        }
    elif kind == MESSAGE:
        role, content, text = item.get("role", "user"), item.get("content"), text_of(item)
        only_text = isinstance(content, str) or all(
            isinstance(part, dict) and isinstance(part.get("text"), str) for part in content or ()
        )
        if role == "assistant" and not text:
            return
        said = (text if text.strip() else BLANK) if only_text or role == "assistant" else content
        yield {"content": said, "role": role}


def _fresh(name: str, taken: set[str]) -> str:
    """The id itself, or one in its place that providers take and no other call has."""
    fresh, number = name if _ID.fullmatch(name) else f"call_{short_hash(name)}", 1
    while fresh in taken:
        number += 1
        fresh = f"call_{short_hash(name, str(number))}"
    return fresh


def _whole(raw: Raw, item: Raw) -> list[Raw]:
    """The provider's item with its text back. A text that is not as long as it was (the context shows only the
    beginning of very large ones) goes into the first place; reasoning cannot be given back in pieces.
    """
    if raw.get("type") == CALL:
        return [{**raw, "call_id": item["call_id"], "name": item["name"], "arguments": item["arguments"]}]
    text = text_of(item)
    lengths = [part[name] for part in _parts(raw) for name in TEXTS if isinstance(part.get(name), int)]
    if not lengths:
        return [raw]
    if sum(lengths) != len(text):
        if raw.get("type") == REASONING:
            return []
        lengths = [len(text)] + [0] * (len(lengths) - 1)
    left = iter(lengths)
    place = 0

    def fill(part: Raw) -> Raw:
        nonlocal place
        filled = dict(part)
        for name in TEXTS:
            if isinstance(part.get(name), int):
                length = next(left)
                filled[name] = text[place : place + length]
                place += length
        return filled

    return [_with_parts(raw, fill)]


def _cut(part: Raw) -> Raw:
    return {name: len(value) if name in TEXTS and isinstance(value, str) else value for name, value in part.items()}


def _parts(raw: Raw) -> list[Raw]:
    fields = _PARTS.get(str(raw.get("type")), ())
    return [part for field in fields for part in raw.get(field) or () if isinstance(part, dict)]


def _with_parts(raw: Raw, change: Any) -> Raw:
    changed = dict(raw)
    for field in _PARTS.get(str(raw.get("type")), ()):
        if isinstance(raw.get(field), list):
            changed[field] = [change(part) if isinstance(part, dict) else part for part in raw[field]]
    return changed


def _typed(raw: Raw) -> Any:
    """The item as the SDK expects it. Lenient, as its own client is: servers that speak nearly the protocol count."""
    known = _KNOWN.get(str(raw.get("type")))
    try:
        return _any_item().validate_python(raw) if known is None else known.model_validate(raw)
    except ValidationError:
        return raw if known is None else known.construct(**raw)


@cache
def _any_item() -> TypeAdapter[Any]:
    """Dear to make, and rarely wanted."""
    return TypeAdapter(ResponseOutputItem)


def same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether these are the same items, in whatever order."""
    return sorted(map(_canonical, one)) == sorted(map(_canonical, other))


def _canonical(item: Mapping[str, Any]) -> bytes:
    return json.dumps_sorted(msgspec.to_builtins(item, enc_hook=str))
