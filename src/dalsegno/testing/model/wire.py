"""What the server needs of a wire format, and words that formats share. One file per format keeps the rest."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from dalsegno.core.json import JsonObject
from dalsegno.testing.model.answer import Speech
from dalsegno.testing.model.shown import Shown

Body: TypeAlias = Mapping[str, Any]


class Refusal(Exception):
    """The provider does not take this context: status 400, in the provider's own words."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class Frame(msgspec.Struct, frozen=True):
    """One server-sent event. `deltas` is 1 where a piece of the answer is in it, and 0 elsewhere."""

    data: JsonObject | str
    name: str = ""
    deltas: int = 0


class Wire(msgspec.Struct, frozen=True):
    """One wire format.

    `read` makes the neutral form of a request or raises `Refusal`; `whole` and `stream` write an answer; `problem`
    writes an error for a status, and `broken` one in the middle of a stream, behind so many frames.
    """

    path: str
    read: Callable[[Body], Shown]
    whole: Callable[[Speech], JsonObject]
    stream: Callable[[Speech], Iterator[Frame]]
    problem: Callable[[int, Refusal | None], JsonObject]
    broken: Callable[[Speech, int, int], Frame]


def text_of(content: Any, *kinds: str) -> str:
    """The text of a message's content: a string, or parts, those without text as their kind in brackets."""
    if isinstance(content, str) or content is None:
        return content or ""
    if not isinstance(content, list):
        raise Refusal("Invalid type for 'content': expected one of a string or array of objects.", param="content")
    return "".join(_part(part, kinds) for part in content)


def _part(part: Any, kinds: tuple[str, ...]) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise Refusal("Invalid type for 'content': expected an object.", param="content")
    kind = part.get("type", "text")
    return str(part.get("text") or part.get("refusal") or "") if kind in kinds else f"[{kind}]"


def rest_of(body: Body, *known: str) -> JsonObject:
    """What a request says beyond the context."""
    return {name: value for name, value in body.items() if name not in known}
