"""What a model was shown, in one form for all wire formats, so that a script and a test need to know none of them.

The same conversation is the same value whichever protocol it came by. Knows nothing of HTTP.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

from dalsegno.core.json import Json, JsonObject, dumps_sorted

Protocol: TypeAlias = Literal["chat", "responses", "messages"]
Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


class Asked(msgspec.Struct, frozen=True):
    """A tool call in the history. `arguments` is the JSON text that came in."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True):
    """One message. An assistant's may have thought and asked for calls; a tool's `text` answers `call_id`."""

    role: Role
    text: str = ""
    thought: str = ""
    calls: tuple[Asked, ...] = ()
    call_id: str = ""


class Offered(msgspec.Struct, frozen=True):
    """A tool that the model may ask for."""

    name: str
    description: str = ""
    parameters: JsonObject = {}


class Shown(msgspec.Struct, frozen=True):
    """One request. `settings` is whatever else it said; `prefix` is what the answer is to begin with (prefill)."""

    protocol: Protocol
    model: str
    instructions: str = ""
    messages: tuple[Message, ...] = ()
    tools: tuple[Offered, ...] = ()
    prefix: str = ""
    settings: JsonObject = {}

    @property
    def said(self) -> str:
        """The text of the last user message."""
        return next((message.text for message in reversed(self.messages) if message.role == "user"), "")

    @property
    def since(self) -> tuple[Message, ...]:
        """What came after the last user message."""
        last = max((n for n, message in enumerate(self.messages) if message.role == "user"), default=-1)
        return self.messages[last + 1 :]

    @property
    def round(self) -> int:
        """How often the model has answered since the last user message: 0 when it is asked for the first time."""
        return sum(message.role == "assistant" for message in self.since)

    @property
    def turn(self) -> int:
        """How many user messages there are."""
        return sum(message.role == "user" for message in self.messages)

    @property
    def results(self) -> tuple[str, ...]:
        """What the tools answered since the last user message, in order."""
        return tuple(message.text for message in self.since if message.role == "tool")

    @property
    def conversation(self) -> JsonObject:
        """What two requests have in common that show the same: no protocol, model, settings or prefix."""
        names = ("instructions", "messages", "tools")
        return msgspec.to_builtins({name: getattr(self, name) for name in names})  # type: ignore[no-any-return]

    @property
    def fingerprint(self) -> str:
        """The same for the same context, on any machine."""
        plain: Json = msgspec.to_builtins(msgspec.structs.replace(self, settings={}))
        return hashlib.sha256(dumps_sorted(plain)).hexdigest()


def gathered(messages: Iterable[Message]) -> tuple[str, tuple[Message, ...]]:
    """The instructions that a conversation begins with, and the rest, an assistant's messages in a row as one."""
    instructions, rest = list[str](), list[Message]()
    for message in messages:
        if message.role == "system" and not rest:
            instructions.append(message.text)
        elif rest and message.role == "assistant" == rest[-1].role:
            rest[-1] = _joined(rest[-1], message)
        else:
            rest.append(message)
    return "\n\n".join(text for text in instructions if text), tuple(rest)


def _joined(first: Message, second: Message) -> Message:
    return Message("assistant", first.text + second.text, first.thought + second.thought, first.calls + second.calls)
