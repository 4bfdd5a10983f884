"""What a process keeps in memory: the globals of the user's own modules, as values that can be compared.

Nothing of the user's is called: no property, no `__repr__`, no `__eq__`. Objects of libraries are opaque, except that
the user's own objects inside them are found: a library's caches are its own affair.
"""

import collections
import functools
import hashlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import msgspec

from dalsegno.ops.check.values import (
    HIDDEN,
    SECRET,
    attributes,
    can_change,
    is_opaque,
    parts_of,
    plain_text,
    shown,
)

DEPTH_MAX = 24
FOREIGN_DEPTH_MAX = 3
NODES_MAX = 50_000
CACHE = type(functools.lru_cache(lambda: None))


class Kept(msgspec.Struct, frozen=True):
    """A name's value: to be compared, and to be shown."""

    kind: str
    digest: bytes
    shown: str
    size: int | None = None
    inner: bytes = b""
    """Of a library's object: all that it holds, as far as that can be looked into."""


Memory = Mapping[str, Kept]


class Surveyor:
    """Looks at the user's modules: those with a file for which `mine` says so."""

    def __init__(self, mine: Callable[[str], bool]) -> None:
        self._mine = mine
        self._classes: dict[type, bool] = {}

    def look(self) -> Memory:
        """Everything that the user's modules hold now, by dotted name."""
        found: dict[str, Kept] = {}
        walk = _Walk(self._is_mine)
        for module in list(sys.modules.values()):
            file = vars(module).get("__file__")
            if isinstance(file, str) and self._mine(file):
                for name, value in list(vars(module).items()):
                    if not name.startswith("__"):
                        found.update(self._named(f"{module.__name__}.{name}", value, module.__name__, walk))
        return found

    def _named(self, path: str, value: object, module: str, walk: "_Walk") -> Iterator[tuple[str, Kept]]:
        match value:
            case types.ModuleType() | ContextVar():
                return
            case types.FunctionType() | types.MethodType() | staticmethod() | classmethod():
                yield from self._function(path, value, module, walk)
            case type():
                if value.__module__ == module:
                    for name, held in list(vars(value).items()):
                        if not name.startswith("__"):
                            yield from self._named(f"{path}.{name}", held, module, walk)
            case property():
                return
            case CACHE():
                info = value.cache_info()
                size = f"{info.currsize} {'entry' if info.currsize == 1 else 'entries'}"
                yield path, Kept("cache", str(info.currsize).encode(), size)
                yield from self._function(path, value.__wrapped__, module, walk)
            case _:
                yield path, walk.kept(path, value)

    def _function(self, path: str, value: Any, module: str, walk: "_Walk") -> Iterator[tuple[str, Kept]]:
        """What a function keeps between its calls: defaults that can change, what it closes over, its attributes."""
        function = _innermost(value)
        if function is None or function.__module__ != module or not walk.first_time(function):
            return
        arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
        defaults = function.__defaults__ or ()
        named = dict(zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True))
        for name, held in {**named, **(function.__kwdefaults__ or {})}.items():
            if can_change(held):
                yield f"{path}({name}=…)", walk.kept(name, held)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            yield from self._cell(path, name, cell, module, walk)
        for name, held in vars(function).items():
            if not name.startswith("__"):
                yield f"{path}.{name}", walk.kept(name, held)

    def _cell(
        self, path: str, name: str, cell: types.CellType, module: str, walk: "_Walk"
    ) -> Iterator[tuple[str, Kept]]:
        try:
            held = cell.cell_contents
        except ValueError:
            return
        if isinstance(held, types.FunctionType):
            yield from self._function(f"{path}.{name}", held, module, walk)
        elif not isinstance(held, type | types.ModuleType):
            yield f"{path}.<locals>.{name}", walk.kept(name, held)

    def _is_mine(self, kind: type) -> bool:
        known = self._classes.get(kind)
        if known is None:
            file = getattr(sys.modules.get(kind.__module__), "__file__", None)
            known = self._classes[kind] = isinstance(file, str) and self._mine(file)
        return known


def changes(before: Memory, after: Memory) -> Iterator[tuple[str, Kept | None, Kept]]:
    """The names whose value is another now, or that are new in a module that was there before."""
    modules = {name.partition(".")[0] for name in before}
    for name, kept in after.items():
        was = before.get(name)
        if (was is None and name.partition(".")[0] in modules) or (was is not None and was.digest != kept.digest):
            yield name, was, kept
        elif was is not None and was.inner != kept.inner:
            yield name, was, msgspec.structs.replace(kept, kind="library")


def sized(kept: Kept, other: Kept | None) -> str:
    """How the value is shown beside another: with its size, if that is what changed."""
    if kept.size is None or other is None or other.size in (None, kept.size):
        return kept.shown
    return f"{kept.shown} ({kept.size} {'item' if kept.size == 1 else 'items'})"


class _Walk:
    """One look: what has been seen, and how much is left to look at."""

    def __init__(self, mine: Callable[[type], bool]) -> None:
        self._mine = mine
        self._left, self._whole = NODES_MAX, False
        self._functions: set[int] = set()

    def first_time(self, function: types.FunctionType) -> bool:
        """Whether it has not been come by yet; and it has been now."""
        new = id(function) not in self._functions
        self._functions.add(id(function))
        return new

    def kept(self, name: str, value: object) -> Kept:
        """The value under that name."""
        secret = SECRET.search(name.rpartition(".")[2]) is not None
        size = len(value) if isinstance(value, list | dict | set | tuple | collections.deque) else None
        inner = b"" if self._mine(type(value)) or not is_opaque(value) else self._digest(value, whole=True)
        text = HIDDEN if secret else shown(value, self._mine)
        return Kept("global", self._digest(value, whole=False), text, size, inner)

    def _digest(self, value: object, *, whole: bool) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        self._whole, self._left = whole, NODES_MAX
        for piece in self._pieces(value, 0, 0, {}):
            digest.update(piece.encode("utf-8", "surrogatepass"))
            digest.update(b"\0")
        return digest.digest()

    def _pieces(self, value: object, depth: int, foreign: int, seen: dict[int, int]) -> Iterator[str]:
        self._left -= 1
        if self._left < 0 or depth > DEPTH_MAX:
            yield "…"
            return
        plain = plain_text(value)
        if plain is not None:
            yield plain
            return
        if id(value) in seen:
            yield f"again {seen[id(value)]}"
            return
        seen[id(value)] = len(seen)
        kind = type(value)
        yield f"{kind.__module__}.{kind.__qualname__}"
        if isinstance(value, set | frozenset):
            yield from sorted("|".join(self._pieces(part, depth + 1, foreign, {})) for part in value)
            return
        for part in self._inside(value, foreign, seen):
            yield from self._pieces(part, depth + 1, foreign + (not self._mine(kind)), seen)

    def _inside(self, value: object, foreign: int, seen: dict[int, int]) -> Iterator[object]:
        """What counts of an object: all of a container and of the user's own; of a library's what is the user's."""
        parts = parts_of(value)
        if parts is not None:
            yield from parts
        elif self._whole or self._mine(type(value)):
            for name, part in attributes(value):
                yield name
                yield part
        elif foreign < FOREIGN_DEPTH_MAX:
            yield from self._own(value, foreign + 1, seen)

    def _own(self, value: object, foreign: int, seen: dict[int, int]) -> Iterator[object]:
        """The user's own objects that a library's object holds."""
        for _, part in attributes(value):
            for held in part if isinstance(part, list | tuple) else [part]:
                if self._mine(type(held)):
                    yield held
                elif foreign < FOREIGN_DEPTH_MAX and id(held) not in seen and is_opaque(held):
                    seen[id(held)] = len(seen)
                    yield from self._own(held, foreign + 1, seen)


def _innermost(value: Any) -> types.FunctionType | None:
    while not isinstance(value, type) and (inner := getattr(value, "__wrapped__", None)) is not None:
        value = inner
    value = getattr(value, "__func__", value)
    return value if isinstance(value, types.FunctionType) else None
