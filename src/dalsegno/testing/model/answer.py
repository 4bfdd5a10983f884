"""What a model answers: parts, in the words of an agent's own model function, and how fast they come.

Everything about an answer follows from what the model was shown, ids too, so the same question gets the same answer.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TypeAlias

import msgspec

from dalsegno.core.json import JsonObject, dumps
from dalsegno.core.part import Thought, ToolCall, Usage
from dalsegno.testing.model.shown import Shown

Part: TypeAlias = str | Thought | ToolCall
_TOKEN = re.compile(r"\s*(?:\w+|[^\w\s]+)|\s+")


class Pace(msgspec.Struct, frozen=True):
    """A delta holds `tokens` tokens (a word, or a run of punctuation), and comes `delay` after the one before it."""

    tokens: int = 1
    delay: timedelta = timedelta(0)


class Answer(msgspec.Struct, frozen=True):
    """What is said, in order. Without `usage`, tokens are counted. `cut_short`: the model ran out of tokens."""

    parts: tuple[Part, ...]
    usage: JsonObject | None = None
    pace: Pace = Pace()
    cut_short: bool = False

    @property
    def text(self) -> str:
        """All text."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """All calls."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


Said: TypeAlias = Answer | Part | Usage | Sequence[Part | Usage]


def whole(said: Said) -> Answer:
    """What a script returned, as an answer: a text, a part or a list of parts will do."""
    if isinstance(said, Answer):
        return said
    listed = [said] if isinstance(said, str | Thought | ToolCall | Usage) else list(said)
    parts, usage = list[Part](), None
    for part in listed:
        if isinstance(part, Usage):
            usage = part.counts
        elif isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    return Answer(tuple(parts), usage)


def after_prefix(answer: Answer, prefix: str) -> Answer:
    """What is left to say for a model that was given the beginning of its answer: no thoughts, and no repetition."""
    if not prefix:
        return answer
    parts = [part for part in answer.parts if not isinstance(part, Thought)]
    if parts and isinstance(parts[0], str):
        parts[0] = parts[0].removeprefix(prefix)
    return msgspec.structs.replace(answer, parts=tuple(part for part in parts if part != ""))


class Speech(msgspec.Struct, frozen=True):
    """An answer on its way out: to what, and under which ids. `seed` decides all of them; `created` is Unix time."""

    shown: Shown
    answer: Answer
    seed: str
    created: int

    def id(self, prefix: str, number: int = 0) -> str:
        """An id of the shape that providers give."""
        return prefix + hashlib.sha256(f"{self.seed} {prefix} {number}".encode()).hexdigest()[:24]

    def call_id(self, call: ToolCall, prefix: str, number: int) -> str:
        """The script's id for a call, or one made from the seed."""
        return call.id or self.id(prefix, number)

    def deltas(self, text: str) -> Iterator[str]:
        """The text in pieces."""
        tokens = _TOKEN.findall(text)
        for start in range(0, len(tokens), self.answer.pace.tokens):
            yield "".join(tokens[start : start + self.answer.pace.tokens])

    def count(self, name: str) -> int:
        """A count of the script's usage, or an estimate."""
        if self.answer.usage is not None:
            number = self.answer.usage.get(name, 0)
            return number if isinstance(number, int) else 0
        match name:
            case "input_tokens":
                return len(_TOKEN.findall(dumps(self.shown.conversation).decode())) or 1
            case "output_tokens":
                return sum(len(_TOKEN.findall(spoken(part))) for part in self.answer.parts) or 1
            case "reasoning_tokens":
                return sum(len(_TOKEN.findall(p.text)) for p in self.answer.parts if isinstance(p, Thought))
            case _:
                return 0


def spoken(part: Part) -> str:
    """What is streamed of a part."""
    match part:
        case str():
            return part
        case Thought(text=text):
            return text
        case ToolCall():
            return arguments(part)


def arguments(call: ToolCall) -> str:
    """The JSON text of a call's arguments, just as the script wrote it: it may be wrong."""
    return call.arguments if isinstance(call.arguments, str) else dumps(call.arguments).decode()


def sealed(text: str) -> str:
    """An opaque value that stands for a thought: providers call it a signature or encrypted content."""
    content = text.encode()
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()[:12] + content).decode()


def unsealed(seal: str) -> str | None:
    """The thought behind the value; None if we never made it."""
    try:
        raw = base64.urlsafe_b64decode(seal.encode())
        return raw[12:].decode() if hashlib.sha256(raw[12:]).digest()[:12] == raw[:12] else None
    except (binascii.Error, ValueError):
        return None
