"""Parts: what a model says while it speaks, and what is said about it. An agent's model function yields them; strings
are text.
"""

from typing import TypeAlias

import msgspec

from dalsegno.core.json import JsonObject


class Thought(msgspec.Struct, frozen=True):
    """A piece of reasoning."""

    text: str


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model asks for. `arguments` is JSON text or a value; `id` is the provider's, or made here."""

    name: str
    arguments: str | JsonObject = "{}"
    id: str = ""


class Arguments(msgspec.Struct, frozen=True):
    """More of the arguments of the call that was asked for last, as JSON text: for those that come piece by piece."""

    text: str


class Usage(msgspec.Struct, frozen=True):
    """What the model call cost, in the provider's own words (`input_tokens`, `output_tokens`, ...); numbers add up."""

    counts: JsonObject


class Detail(msgspec.Struct, frozen=True):
    """What the provider wants back with the item that was spoken last: a signature, an id, whatever has no shape of
    ours. It is kept in the item's `details` and closes the item; before any item, it belongs to the first.
    """

    data: JsonObject


class Continue(msgspec.Struct, frozen=True):
    """What follows goes on from `turn.prefix`, which the provider was given to begin its answer with. Yield it first,
    or not at all.
    """


Part: TypeAlias = str | Thought | ToolCall | Arguments | Usage | Detail | Continue


def add_usage(total: JsonObject | None, more: JsonObject | None) -> JsonObject | None:
    """Usage so far plus one step's. Numbers add up, everything else is the later one's."""
    if more is None or total is None:
        return total if more is None else more
    result: JsonObject = dict(total)
    for name, value in more.items():
        before = result.get(name)
        if isinstance(before, int | float) and isinstance(value, int | float):
            result[name] = before + value
        else:
            result[name] = value
    return result
