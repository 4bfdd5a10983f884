"""The conversation that a check plays: from the command line, from a file, or from a session that really took place."""

import json
from pathlib import Path

from dalsegno.core.json import JsonObject, loads_strict
from dalsegno.errors import ConfigError, DalsegnoError, Refused
from dalsegno.wire.requests import parse_input

DEFAULT = (
    "Hello! What can you do for me?",
    "Please do the first of these.",
    "Thank you. What did we talk about so far?",
)
"""Three messages: what the first left behind shows in the second, and the third asks for it."""
ANY_CALL = "any"


def from_words(words: tuple[str, ...]) -> tuple[JsonObject, ...]:
    """One message each."""
    return tuple({"type": "message", "content": text} for text in words)


def from_lines(path: Path) -> tuple[JsonObject, ...]:
    """A message a line; a line that begins with `{` is an input as the HTTP API takes it, without the need for a
    `call_id`. Empty lines, and those that begin with `#`, are passed over.
    """
    found: list[JsonObject] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        line = line.strip()
        if line.startswith("{"):
            found.append(_input(line, f"{path}:{number}"))
        elif line and not line.startswith("#"):
            found += from_words((line,))
    return _some(found, path)


def from_session(path: Path) -> tuple[JsonObject, ...]:
    """What was said in a session, from its export: messages and decisions, in order. Answers are not taken along."""
    found: list[JsonObject] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        try:
            event = json.loads(line)
            kind, data = event["type"], event["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}:{number}: no line of a `dalsegno sessions export`") from error
        if kind in ("turn.created", "turn.input"):
            said = data["input"]
            said = {"content": said} if isinstance(said, str) else said
            kept = {name: value for name, value in said.items() if name not in ("call_id", "turn", "hide", "artifact")}
            found.append({"type": "message", **kept})
    return _some(found, path)


def _input(line: str, place: str) -> JsonObject:
    try:
        value = loads_strict(line.encode())
        if not isinstance(value, dict):
            raise Refused("invalid_request", "an input is a JSON object")
        named = {"call_id": ANY_CALL, **value} if value.get("type") in ("approval", "tool_result") else value
        parse_input(named)
    except DalsegnoError as error:
        raise ConfigError(f"{place}: {error}") from error
    return value


def _some(found: list[JsonObject], path: Path) -> tuple[JsonObject, ...]:
    if not found:
        raise ConfigError(f"{path}: nothing is said in it")
    return tuple(found)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8") from error
