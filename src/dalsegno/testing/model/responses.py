"""OpenAI Responses: typed items in and out, every event numbered. Nothing is stored, so nothing can be referred to."""

from collections.abc import Sequence
from typing import Any

from dalsegno.testing.model.answer import unsealed
from dalsegno.testing.model.openai import filled, named, offered, problem, required, short
from dalsegno.testing.model.responses_events import broken, stream, whole
from dalsegno.testing.model.shown import Asked, Message, Role, Shown, gathered
from dalsegno.testing.model.wire import Body, Refusal, Wire, rest_of, text_of

FIELDS = {
    "message": {"type", "id", "role", "content", "status", "phase"},
    "function_call": {"type", "id", "call_id", "name", "arguments", "status", "caller", "namespace", "async"},
    "function_call_output": {"type", "id", "call_id", "output", "status", "caller", "name", "namespace"},
    "reasoning": {"type", "id", "summary", "content", "encrypted_content", "status"},
    "item_reference": {"type", "id"},
}
ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
ID_PREFIX = {"message": "msg", "function_call": "fc", "reasoning": "rs"}
CALL_ID_CHARS_MAX = 64


def read(body: Body) -> Shown:
    """The neutral form of a request."""
    model = required(body.get("model"), "model", str)
    given = required(body.get("input"), "input", (str, list))
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not items:
        raise Refusal("Input cannot be empty.", param="input")
    if body.get("previous_response_id"):
        raise Refusal(
            f"Previous response with id '{body['previous_response_id']}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    messages = [_item(item, f"input[{number}]") for number, item in enumerate(items)]
    _unique(items)
    _paired(messages)
    _followed(items)
    begun = Message("system", body["instructions"]) if body.get("instructions") else None
    instructions, rest = gathered([*([begun] if begun else []), *messages])
    tools = [
        (f"tools[{number}].name", tool)
        for number, tool in enumerate(body.get("tools") or ())
        if tool.get("type") == "function"
    ]
    settings = rest_of(body, "model", "input", "instructions")
    return Shown("responses", model, instructions, rest, offered(tools), "", settings)


def _item(item: Any, place: str) -> Message:
    kind = required(item, place, dict).get("type", "message")
    if kind not in FIELDS:
        listed = ", ".join(f"'{kind}'" for kind in FIELDS)
        raise Refusal(
            f"Invalid value: '{kind}'. Supported values are: {listed}.", param=f"{place}.type", code="invalid_value"
        )
    for unknown in sorted(item.keys() - FIELDS[kind]):
        name = f"{place}.{unknown}"
        raise Refusal(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    _id(item, kind, place)
    match kind:
        case "message":
            return _message(item, place)
        case "function_call":
            short(item.get("call_id") or "", f"{place}.call_id", CALL_ID_CHARS_MAX)
            arguments = required(item.get("arguments"), f"{place}.arguments", str)
            return Message(
                "assistant", calls=(Asked(item["call_id"], named(item.get("name"), f"{place}.name"), arguments),)
            )
        case "function_call_output":
            short(item.get("call_id") or "", f"{place}.call_id", CALL_ID_CHARS_MAX)
            output = required(item.get("output"), f"{place}.output", (str, list))
            return Message("tool", text_of(output, "input_text", "output_text"), call_id=item["call_id"])
        case "reasoning":
            return Message("assistant", thought=_thought(item, place))
        case _:
            raise _not_found(item)


def _message(item: Body, place: str) -> Message:
    role = item.get("role")
    if role not in ROLES:
        listed = ", ".join(f"'{role}'" for role in ROLES)
        raise Refusal(
            f"Invalid value: '{role}'. Supported values are: {listed}.", param=f"{place}.role", code="invalid_value"
        )
    wanted = ("output_text", "refusal") if role == "assistant" else ("input_text",)
    content = item.get("content")
    for number, part in enumerate(content if isinstance(content, list) else ()):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("input_text", "output_text", "text") and kind not in wanted:
            listed = " and ".join(f"'{kind}'" for kind in wanted)
            raise Refusal(
                f"Invalid value: '{kind}'. Supported values are: {listed}.",
                param=f"{place}.content[{number}]",
                code="invalid_value",
            )
    text = text_of(content, *wanted)
    if role in ("user", "assistant"):
        filled(text, f"{place}.content")
    return Message(ROLES[role], text)


def _id(item: Body, kind: str, place: str) -> None:
    """An id, where there is one, is of the kind that this API gives."""
    prefix, value = ID_PREFIX.get(kind), item.get("id")
    if prefix and value and not (isinstance(value, str) and value.startswith(prefix)):
        raise Refusal(
            f"Invalid '{place}.id': '{value}'. Expected an ID that begins with '{prefix}'.",
            param=f"{place}.id",
            code="invalid_value",
        )


def _thought(item: Body, place: str) -> str:
    """What was thought; only we can read it. Without the encrypted content, it would have to be stored here."""
    seal = item.get("encrypted_content")
    if not seal:
        raise _not_found(item)
    thought = unsealed(seal)
    if thought is None:
        raise Refusal(
            f"The encrypted content {seal[:4]}...{seal[-4:]} could not be verified. Reason: Encrypted content could "
            "not be decrypted or parsed.",
            param=place,
            code="invalid_encrypted_content",
        )
    return thought


def _not_found(item: Body) -> Refusal:
    return Refusal(
        f"Item with id '{item.get('id')}' not found. Items are not persisted when `store` is set to false. Try again "
        "with `store` set to true, or remove this item from your input.",
        param="input",
    )


def _unique(items: Sequence[Body]) -> None:
    seen = set[str]()
    for item in items:
        value = item.get("id")
        if value in seen:
            raise Refusal(
                f"Duplicate item found with id {value}. Remove duplicate items from your input and try again.",
                param="input",
            )
        if value:
            seen.add(value)


def _paired(messages: Sequence[Message]) -> None:
    """Every call is answered, later and once, and nothing else is."""
    asked, answered = set[str](), set[str]()
    for message in messages:
        for call in message.calls:
            if call.id in asked:
                raise Refusal(f"Duplicate 'call_id': {call.id}", param="input")
            asked.add(call.id)
        if message.role != "tool":
            continue
        if message.call_id not in asked:
            raise Refusal(f"No tool call found for function call output with call_id {message.call_id}.", param="input")
        if message.call_id in answered:
            raise Refusal(f"Duplicate 'call_id': {message.call_id}", param="input")
        answered.add(message.call_id)
    for call_id in (call.id for message in messages for call in message.calls):
        if call_id not in answered:
            raise Refusal(f"No tool output found for function call {call_id}.", param="input")


def _followed(items: Sequence[Body]) -> None:
    """Behind a reasoning item comes what it led to."""
    for number, item in enumerate(items):
        if item.get("type") != "reasoning" or not item.get("id"):
            continue
        behind = next((other for other in items[number + 1 :] if other.get("type") != "reasoning"), {})
        if behind.get("type") != "function_call" and behind.get("role") != "assistant":
            raise Refusal(
                f"Item '{item['id']}' of type 'reasoning' was provided without its required following item.",
                param="input",
            )


RESPONSES = Wire("/v1/responses", read, whole, stream, problem, broken)
