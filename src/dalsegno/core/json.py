"""JSON as the contract allows it: what is accepted comes back code point for code point, the rest is refused.

Knows nothing of sessions. The strict parser stands at every door that bytes come in by; inside, data is trusted.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import rfc8785

from dalsegno.errors import Refused

if TYPE_CHECKING:
    Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
else:  # msgspec reads annotations at run time and has no recursive aliases
    Json = Any
JsonObject: TypeAlias = dict[str, Json]

DEPTH_MAX = 64
EXACT_INT_MAX = 2**53 - 1
INT64 = 2**63
_encoder = msgspec.json.Encoder()
_sorted_encoder = msgspec.json.Encoder(order="sorted")


def dumps(value: object) -> bytes:
    """The bytes that are stored and sent: compact UTF-8."""
    return _encoder.encode(value)


def dumps_sorted(value: object) -> bytes:
    """The same with sorted keys, for fingerprints that only we compare."""
    return _sorted_encoder.encode(value)


def canonical(value: Json) -> bytes:
    """RFC 8785, for fingerprints that other languages must reproduce (a tool call's arguments).

    To that standard every number is an IEEE double, so a large integer is written as the double it is; one that no
    double is exactly is written as its digits, or two calls about neighbours would be one.
    """
    return rfc8785.dumps(_doubles(value))


def _doubles(value: Json) -> Json:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT_INT_MAX:
        try:
            double = float(value)
        except OverflowError:
            return str(value)
        return double if double == value else str(value)
    if isinstance(value, list):
        return [_doubles(child) for child in value]
    if isinstance(value, dict):
        return {key: _doubles(child) for key, child in value.items()}
    return value


def loads_strict(body: bytes) -> Json:
    """Parse JSON that comes from outside.

    Raises `Refused` with `invalid_unicode` (bytes that are not UTF-8, lone surrogates), `too_deep` (more than 64
    levels) or `invalid_json` (everything else: NaN, duplicate keys, numbers that an IEEE double cannot hold).
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused("invalid_unicode", f"the body is not UTF-8: byte {error.start} is {error.reason}") from None
    if text.startswith("\ufeff"):
        raise Refused("invalid_json", "the body begins with a byte order mark; send plain UTF-8")
    try:
        value: Json = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_exact_int,
            parse_float=_finite_float,
        )
    except RecursionError:
        raise Refused("too_deep", f"nesting deeper than {DEPTH_MAX} levels") from None
    except json.JSONDecodeError as error:
        raise Refused("invalid_json", f"{error.msg} at line {error.lineno} column {error.colno}") from None
    _check(value)
    return value


def checked(value: object) -> Json:
    """A value that a program gives, as JSON. Raises what `loads_strict` does, `invalid_json` for what is no JSON."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise Refused("too_deep", f"nesting deeper than {DEPTH_MAX} levels") from None
    except (TypeError, ValueError) as error:
        raise Refused("invalid_json", str(error)) from None
    return loads_strict(text.encode("utf-8", "surrogatepass"))


def _unique(pairs: Iterable[tuple[str, Json]]) -> JsonObject:
    pairs = list(pairs)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused("invalid_json", "an object names the same key twice")
    return found


def _no_constant(name: str) -> Json:
    raise Refused("invalid_json", f"{name} is not JSON")


def _exact_int(digits: str) -> int | float:
    """An integer that a double holds exactly; beyond 64 bits, where stores and providers differ, as that double."""
    # 2^1024 has 309 digits: longer ones need no conversion, which would cost quadratic time
    if len(digits) <= 310:
        number = int(digits)
        try:
            if int(float(number)) == number:
                return number if abs(number) < INT64 else float(number)
        except OverflowError:
            pass
    raise Refused("invalid_json", "an integer does not fit an IEEE double exactly; send it as a string")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise Refused("invalid_json", "a number is outside the range of an IEEE double; send it as a string")
    return number


def _check(root: Json) -> None:
    """Depth and surrogates in one walk that keeps its own stack, so that no input can overflow ours."""
    stack: list[tuple[Json, int]] = [(root, 1)]
    while stack:
        value, depth = stack.pop()
        if isinstance(value, str):
            _whole(value)
        elif isinstance(value, list | dict):
            if depth > DEPTH_MAX:
                raise Refused("too_deep", f"nesting deeper than {DEPTH_MAX} levels")
            if isinstance(value, dict):
                for key in value:
                    _whole(key)
                stack.extend((child, depth + 1) for child in value.values())
            else:
                stack.extend((child, depth + 1) for child in value)


def _whole(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refused("invalid_unicode", f"a string holds a lone surrogate at position {error.start}") from None


def clean_text(text: str) -> str:
    """Text of a tool or a model, made storable: a lone surrogate becomes U+FFFD. A session is never bricked by it."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
