"""Items that somebody outside puts into a conversation: Open Responses items, as far as a transcript depends on them.

Fields that we do not know are kept. What would make every later model call fail is refused: a call without its result.
"""

from collections.abc import Sequence

from dalsegno.core.item import CALL, EVENT, MESSAGE, OUTPUT, OWN_PREFIX, STEP
from dalsegno.core.json import Json, JsonObject
from dalsegno.errors import Refused

ROLES = ("user", "system", "developer")
NAME_MAX = 256


def check_items(items: Sequence[JsonObject]) -> None:
    """Refuse what is no input item, and calls and results that do not belong together."""
    waiting: set[str] = set()
    seen: set[str] = set()
    for index, item in enumerate(items):
        where = f"items[{index}]"
        kind = check_item(item, where=where)
        if kind == CALL:
            call_id = str(item["call_id"])
            if call_id in seen:
                raise Refused("invalid_request", f"{where} repeats the call_id of another call")
            seen.add(call_id)
            waiting.add(call_id)
        elif kind == OUTPUT:
            call_id = str(item["call_id"])
            if call_id not in waiting:
                raise Refused(
                    "invalid_request", f"{where} answers no call before it; answer a waiting call with tool_result"
                )
            waiting.discard(call_id)
        elif kind == MESSAGE and waiting:
            raise Refused("invalid_request", f"{where} stands between a call and its result")
    if waiting:
        raise Refused("invalid_request", "`items` holds a function_call without its function_call_output")


def check_item(item: JsonObject, *, where: str) -> str:
    """The item's type. An item without one is a message, and has a role that a client may speak in."""
    kind = item.get("type", MESSAGE)
    _text(kind, f"{where}.type")
    if "id" in item:
        _text(item["id"], f"{where}.id")
    match kind:
        case "message":
            roles = (*ROLES, "assistant") if "type" in item else ROLES
            if item.get("role") not in roles:
                raise Refused("invalid_request", f"{where}.role is one of {', '.join(roles)}")
            _content(item.get("content"), f"{where}.content")
        case "function_call":
            _text(item.get("call_id"), f"{where}.call_id")
            _text(item.get("name"), f"{where}.name")
            if not isinstance(item.get("arguments"), str):
                raise Refused("invalid_request", f"{where}.arguments is JSON as a string")
        case "function_call_output":
            _text(item.get("call_id"), f"{where}.call_id")
            if not isinstance(item.get("output"), str):
                _content(item.get("output"), f"{where}.output")
        case str() if kind.startswith(OWN_PREFIX):
            raise Refused("invalid_request", f"{where}.type: the prefix {OWN_PREFIX} is not a client's")
        case _:
            pass
    return str(kind)


def check_made(item: JsonObject, *, where: str) -> None:
    """The same of an item that an agent or a tool made: it may say nothing, and be a record that no model is shown."""
    if "id" in item:
        _text(item["id"], f"{where}.id")
    if item.get("type") in (STEP, EVENT):
        _text(item.get("name"), f"{where}.name")
    elif not _says_nothing(item):
        check_item(item, where=where)


def _says_nothing(item: JsonObject) -> bool:
    """An agent may say nothing, and a tool may return nothing; a client may not."""
    if item.get("type") == OUTPUT:
        return isinstance(item.get("call_id"), str) and item.get("output") in ("", [])
    return item.get("type") == MESSAGE and item.get("role") == "assistant" and item.get("content") in ([], "")


def _text(value: Json, where: str) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= NAME_MAX:
        raise Refused("invalid_request", f"{where} is a string of 1 to {NAME_MAX} characters")


def _content(value: Json, where: str) -> None:
    if isinstance(value, str) and value:
        return
    if not isinstance(value, list) or not value:
        raise Refused("invalid_request", f"{where} is a string or a list of parts, and not empty")
    for index, part in enumerate(value):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise Refused("invalid_request", f"{where}[{index}] is an object with a `type`")
        if str(part["type"]).endswith("_text") and not isinstance(part.get("text"), str):
            raise Refused("invalid_request", f"{where}[{index}].text is a string")
