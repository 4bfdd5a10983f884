"""The serialiser of graphs that are served: LangGraph's own, and it makes nothing that the graph does not name.

A log may hold what a client brought in, and LangGraph's serialiser calls whatever a stored value names. So only
LangChain's messages, types of LangGraph and of the standard library are made, and those that the graph's schemas name.
What cannot be read again is refused when it is written.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from langgraph._internal._serde import build_serde_allowlist
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer, _create_msgpack_ext_hook
from langgraph.pregel import Pregel

from dalsegno.errors import Unreadable

KINDS = frozenset({"null", "bytes", "bytearray", "msgpack"})


class Strict(JsonPlusSerializer):
    """Makes only what is allowed."""

    def __init__(self, allowed: Iterable[tuple[str, ...]] = ()) -> None:
        self._watched = _Watched(allowed)
        super().__init__(__unpack_ext_hook__=_create_msgpack_ext_hook(self._watched))

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value. Raises `Unreadable` for one that holds anything else."""
        if data[0] not in KINDS:
            raise Unreadable(f"a value of the kind {data[0]!r} is not read here")
        self._watched.missed = ""
        value = super().loads_typed(data)
        if self._watched.missed:
            raise Unreadable(f"it holds a {self._watched.missed}, which no schema of the graph names")
        return value


def serde_of(graph: Pregel[Any, Any, Any, Any]) -> SerializerProtocol:
    """The serialiser for a graph: strict, with the types that its schemas name and those that the serialiser of its own
    checkpointer was told to allow; or that one itself, if it is another kind.
    """
    own = getattr(graph.checkpointer, "serde", None)
    if own is not None and not isinstance(own, JsonPlusSerializer):
        return own  # type: ignore[no-any-return]
    told = getattr(own, "_allowed_msgpack_modules", None)
    allowed = set(told) if isinstance(told, set) else set()
    for each in _graphs(graph):
        schemas = list(getattr(getattr(each, "builder", None), "schemas", ()))
        allowed |= build_serde_allowlist(schemas=schemas, channels=dict(each.channels))
    return Strict(allowed)


class _Watched(set[tuple[str, ...]]):
    """Remembers what was looked for and not found: LangGraph would only leave the value half made."""

    missed = ""

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        if not found:
            self.missed = ".".join(map(str, key)) if isinstance(key, tuple) else str(key)
        return found


def _graphs(graph: Any) -> Iterator[Pregel[Any, Any, Any, Any]]:
    """The graph, and those that are nodes of it."""
    yield graph
    for _, inner in graph.get_subgraphs(recurse=True):
        yield inner
