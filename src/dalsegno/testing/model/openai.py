"""What OpenAI's two wire formats have in common: how errors look, and which names and ids are taken."""

import re
from collections.abc import Sequence
from typing import Any

from dalsegno.core.json import JsonObject
from dalsegno.testing.model.shown import Offered
from dalsegno.testing.model.wire import Refusal

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_PROBLEMS = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached. Please try again later."),
    503: ("server_error", None, "The engine is currently overloaded, please try again later."),
    529: ("server_error", None, "The engine is currently overloaded, please try again later."),
}
_SERVER_ERROR = ("server_error", None, "The server had an error while processing your request. Sorry about that!")


def problem(status: int, refusal: Refusal | None) -> JsonObject:
    """The body of an error."""
    if refusal is not None:
        kind, code, message = "invalid_request_error", refusal.code, refusal.message
    else:
        kind, code, message = _PROBLEMS.get(status, _SERVER_ERROR)
    param = None if refusal is None else refusal.param
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def required(value: Any, name: str, kind: type[Any] | tuple[type[Any], ...]) -> Any:
    """A parameter that must be there."""
    if value is None:
        raise Refusal(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if not isinstance(value, kind):
        raise Refusal(f"Invalid type for '{name}'.", param=name, code="invalid_type")
    return value


def filled(value: Any, name: str) -> None:
    """A text that may not be empty."""
    if not value:
        raise Refusal(
            f"Invalid '{name}': empty string. Expected a string with minimum length 1, but got an empty string "
            "instead.",
            param=name,
            code="empty_string",
        )


def short(value: str, name: str, limit: int) -> None:
    """An id that may not be long."""
    filled(value, name)
    if len(value) > limit:
        raise Refusal(
            f"Invalid '{name}': string too long. Expected a string with maximum length {limit}, but got a string with "
            f"length {len(value)} instead.",
            param=name,
            code="string_above_max_length",
        )


def named(value: Any, place: str) -> str:
    """A function's name."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise Refusal(
            f"Invalid '{place}': string does not match pattern. Expected a string that matches the pattern "
            "'^[a-zA-Z0-9_-]+$'.",
            param=place,
            code="invalid_value",
        )
    return value


def offered(functions: Sequence[tuple[str, Any]]) -> tuple[Offered, ...]:
    """The tools of a request; each with the place of its name, for the error."""
    return tuple(
        Offered(named(function.get("name"), place), function.get("description") or "", function.get("parameters") or {})
        for place, function in functions
    )
