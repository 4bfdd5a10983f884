"""A context in the words of three providers' wire formats, for agents that use a provider's own client. Pure.

Whatever a client or another agent has brought into the conversation, what comes out is taken by the provider: calls
have names that it allows and no two the same, and what is empty or has no shape there is a short note. Thoughts are
left out: a provider reads its own only, and only where an adapter keeps what it sealed them with.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from dalsegno.core.ids import short_hash
from dalsegno.core.item import CALL, MESSAGE, OUTPUT, REASONING
from dalsegno.core.json import Json, JsonObject

BLANK = "[blank]"
BEGUN = "[The conversation begins.]"
CALL_ID_CHARS_MAX = 40
_ID = re.compile(rf"[a-zA-Z0-9_-]{{1,{CALL_ID_CHARS_MAX}}}")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def for_responses(items: Iterable[JsonObject]) -> list[JsonObject]:
    """`input` of OpenAI's Responses API: the items, without our ids and details."""
    return list(_readable(items))


def for_chat(items: Iterable[JsonObject]) -> list[JsonObject]:
    """`messages` of OpenAI's Chat Completions and of servers compatible with it."""
    shown = list[JsonObject]()
    for item in _readable(items):
        match item["type"]:
            case "function_call":
                if not shown or shown[-1]["role"] != "assistant":
                    shown.append({"role": "assistant", "content": None})
                function: JsonObject = {"name": item["name"], "arguments": item["arguments"]}
                asked: Json = {"id": item["call_id"], "type": "function", "function": function}
                calls = shown[-1].setdefault("tool_calls", [])
                assert isinstance(calls, list)
                calls.append(asked)
            case "function_call_output":
                text = "".join(_texts(item["output"]))
                shown.append({"role": "tool", "tool_call_id": item["call_id"], "content": text})
            case _:
                parts: list[Json] = [_chat_part(part) for part in _parts(item["content"])]
                plain = "".join(_texts(item["content"])) if item["role"] != "user" else parts
                shown.append({"role": item["role"], "content": plain})
    return shown


def for_anthropic(items: Iterable[JsonObject]) -> list[JsonObject]:
    """`messages` of Anthropic's API. What a developer or the system says in the middle is said by the user here."""
    shown = list[tuple[str, list[Json]]]()
    for item in _readable(items):
        role, blocks = _anthropic(item)
        if not shown and role == "assistant":
            shown.append(("user", [{"type": "text", "text": BEGUN}]))
        if not shown or shown[-1][0] != role:
            shown.append((role, []))
        shown[-1][1].extend(blocks)
    return [{"role": role, "content": blocks} for role, blocks in shown]


def _anthropic(item: JsonObject) -> tuple[str, list[Json]]:
    match item["type"]:
        case "function_call":
            use: JsonObject = {"type": "tool_use", "id": item["call_id"], "name": item["name"]}
            return "assistant", [{**use, "input": _object(str(item["arguments"]))}]
        case "function_call_output":
            said: list[Json] = [_anthropic_part(part) for part in _spoken(item["output"])]
            return "user", [{"type": "tool_result", "tool_use_id": item["call_id"], "content": said}]
        case _:
            role = "assistant" if item["role"] == "assistant" else "user"
            return role, [_anthropic_part(part) for part in _parts(item["content"])]


def _readable(items: Iterable[JsonObject]) -> Iterator[JsonObject]:
    """What a model can be shown; messages that say nothing are left out where nobody waits for them."""
    names, taken = dict[str, str](), set[str]()
    for item in items:
        kind = item.get("type", MESSAGE)
        if kind == REASONING:
            continue
        if kind == CALL:
            name = str(item["call_id"])
            names[name] = _fresh(name, taken)
            tool = str(item["name"])
            tool = tool if _NAME.fullmatch(tool) else f"tool_{short_hash(tool)}"
            yield {"type": CALL, "call_id": names[name], "name": tool, "arguments": item["arguments"]}
        elif kind == OUTPUT:
            name = str(item["call_id"])
            yield {"type": OUTPUT, "call_id": names.get(name, name), "output": item["output"]}
        elif kind != MESSAGE:
            yield {"type": MESSAGE, "role": "user", "content": [{"type": "input_text", "text": f"[{kind}]"}]}
        elif item["role"] != "assistant" or any(text.strip() for text in _texts(item["content"])):
            yield {"type": MESSAGE, "role": item["role"], "content": _filled(item["role"], item["content"])}


def _fresh(name: str, taken: set[str]) -> str:
    """The call's name, or one in its place that every provider takes and that no other call has."""
    number, fresh = 1, name if _ID.fullmatch(name) else f"call_{short_hash(name)}"
    while fresh in taken:
        number += 1
        fresh = f"call_{short_hash(name, str(number))}"
    taken.add(fresh)
    return fresh


def _spoken(content: Json) -> list[JsonObject]:
    """The parts that say something."""
    return [part for part in _parts(content) if "text" not in part or str(part["text"]).strip()]


def _filled(role: Json, content: Json) -> Json:
    """Texts as that role speaks them, and other parts as they are; a note if all is blank."""
    kind = "output_text" if role == "assistant" else "input_text"
    parts: list[Json] = [{"type": kind, "text": part["text"]} if "text" in part else part for part in _spoken(content)]
    return parts or [{"type": kind, "text": BLANK}]


def _parts(content: Json) -> Sequence[JsonObject]:
    if isinstance(content, list):
        return [part for part in content if isinstance(part, dict)]
    return [{"type": "input_text", "text": content}]


def _texts(content: Json) -> Iterator[str]:
    for part in _parts(content):
        yield str(part["text"]) if "text" in part else f"[{part.get('type')}]"


def _chat_part(part: JsonObject) -> JsonObject:
    if part.get("type") == "input_image" and isinstance(part.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    return {"type": "text", "text": next(_texts([part]))}


def _anthropic_part(part: JsonObject) -> JsonObject:
    url = part.get("image_url")
    if part.get("type") != "input_image" or not isinstance(url, str):
        return {"type": "text", "text": next(_texts([part]))}
    media, _, data = url.removeprefix("data:").partition(";base64,")
    if url.startswith("data:"):
        return {"type": "image", "source": {"type": "base64", "media_type": media, "data": data}}
    return {"type": "image", "source": {"type": "url", "url": url}}


def _object(text: str) -> JsonObject:
    """A call's arguments as an object; those that a model wrote wrongly are shown as what they are."""
    try:
        value: Json = msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = None
    return value if isinstance(value, dict) else {"arguments": text}
