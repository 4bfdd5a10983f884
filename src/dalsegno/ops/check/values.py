"""What a value is made of, and how it is shown in a few words; nothing of its own is called to find that out."""

import collections
import enum
import functools
import itertools
import queue
import random
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

SHOWN_ITEMS = 6
SHOWN_CHARS = 60
SECRET = re.compile(r"(key|token|secret|passw|credential)", re.IGNORECASE)
HIDDEN = "•••"
WRITTEN = ("datetime", "decimal", "uuid", "fractions", "pathlib", "zoneinfo")
"""Modules whose values are what their `repr` says."""


def shown(value: object, mine: Callable[[type], bool], depth: int = 0) -> str:
    """A value in a few words, without calling anything of its own."""
    plain = plain_text(value)
    if plain is not None:
        return plain if len(plain) <= SHOWN_CHARS else f"{plain[:SHOWN_CHARS]}…"
    kind = type(value)
    if depth > 2:
        return f"{kind.__name__}(…)"
    if isinstance(value, dict):
        pairs = [f"{shown(k, mine, depth + 1)}: {_entry(k, v, mine, depth + 1)}" for k, v in _some(value.items())]
        return "{" + _joined(pairs, len(value)) + "}"
    if isinstance(value, set | frozenset):
        return "{" + _joined([shown(part, mine, depth + 1) for part in _some(value)], len(value)) + "}"
    parts = parts_of(value)
    if parts is not None:
        text = _joined([shown(part, mine, depth + 1) for part in _some(parts)], len(parts))
        return f"[{text}]" if kind is list else f"({text})" if kind is tuple else f"{kind.__name__}({text})"
    if mine(kind):
        fields = list(attributes(value))
        named = [f"{name}={_entry(name, part, mine, depth + 1)}" for name, part in _some(fields)]
        return f"{kind.__name__}({_joined(named, len(fields))})"
    return f"<{kind.__module__}.{kind.__qualname__}>"


def _entry(name: object, value: object, mine: Callable[[type], bool], depth: int) -> str:
    """What stands beside a name; not if the name says that nobody is to see it."""
    return HIDDEN if isinstance(name, str) and SECRET.search(name) else shown(value, mine, depth)


def _some(parts: Any) -> list[Any]:
    return list(itertools.islice(parts, SHOWN_ITEMS))


def _joined(parts: list[str], size: int) -> str:
    return ", ".join(parts if size <= SHOWN_ITEMS else [*parts, "…"])


def plain_text(value: object) -> str | None:
    """The text of a value that has no parts; None of one that has, or that nothing is known of."""
    match value:
        case None | bool() | enum.Enum():
            return str(value) if not isinstance(value, enum.Enum) else f"{type(value).__name__}.{value._name_}"
        case int() | float() | complex() | str() | bytes() | bytearray():
            base = next(kind for kind in (int, float, complex, str, bytes, bytearray) if isinstance(value, kind))
            return base.__repr__(value)
        case type():
            return f"<class {value.__qualname__}>"
        case types.FunctionType() | types.BuiltinFunctionType() | types.MethodType() | types.ModuleType():
            return f"<{getattr(value, '__qualname__', value.__name__)}>"
        case itertools.count():
            return repr(value)
        case random.Random():
            return f"Random({hash(value.getstate()):x})"
        case _:
            return repr(value) if type(value).__module__ in WRITTEN else None


def parts_of(value: object) -> list[object] | None:
    """What a container holds, in order; None of what is no container whose order means something."""
    match value:
        case dict():
            return [part for pair in list(dict.items(value)) for part in pair]
        case list() | tuple() | collections.deque():
            return list(value)
        case queue.Queue():
            return list(value.queue)
        case types.MappingProxyType():
            return [part for pair in list(value.items()) for part in pair]
        case functools.partial():
            return [value.func, *value.args, *value.keywords.values()]
        case types.MethodType():
            return [value.__self__]
        case types.SimpleNamespace():
            return [part for pair in vars(value).items() for part in pair]
        case _:
            return None


def attributes(value: object) -> Iterator[tuple[str, object]]:
    """An object's own attributes, in its dictionary and in its slots, found without asking the object."""
    try:
        held = object.__getattribute__(value, "__dict__")
    except AttributeError:
        held = {}
    yield from list(held.items())
    for kind in type(value).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType):
                try:
                    yield name, member.__get__(value, kind)
                except AttributeError:
                    continue


def is_opaque(value: object) -> bool:
    """Whether only its own class knows what it holds."""
    return plain_text(value) is None and parts_of(value) is None and not isinstance(value, set | frozenset)


def can_change(value: object) -> bool:
    """Whether it may be another one day and still be the same object."""
    return plain_text(value) is None and not isinstance(value, tuple | frozenset)
