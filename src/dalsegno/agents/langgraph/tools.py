"""LangChain's tools as ours: what is declared about their effects, and where the tools of a graph are found."""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from dalsegno.agents.declared import declared_by
from dalsegno.core.json import Json
from dalsegno.errors import ConfigError
from dalsegno.ports import Call, Tool


def declared(tool: BaseTool) -> Tool:
    """What is known of the tool: by `@dalsegno.tool` under LangChain's `@tool`, or by its metadata. Undeclared is
    `once` + `tell`. Raises `ConfigError`.
    """
    for function in (getattr(tool, "coroutine", None), getattr(tool, "func", None)):
        found = getattr(function, "tool", None)
        if isinstance(found, Tool):
            return msgspec.structs.replace(found, name=tool.name)
    found = declared_by(tool.metadata, name=tool.name, run=nobody, description=tool.description)
    return Tool(tool.name, nobody, description=tool.description) if found is None else found


def tools_in(graph: Any) -> dict[str, Tool]:
    """The tools that a graph's nodes refer to, those of its subgraphs included."""
    return {tool.name: declared(tool) for tool in _found(graph, seen=set())}


def _found(thing: Any, *, seen: set[int]) -> Iterator[BaseTool]:
    """Tools in nodes, in what a node's function refers to, and in collections of such."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    for inner in _inside(thing):
        if isinstance(inner, BaseTool):
            yield inner
        else:
            yield from _found(inner, seen=seen)


def _inside(thing: Any) -> Iterable[Any]:
    if isinstance(thing, Pregel):
        return [node.bound for node in thing.nodes.values()]
    if isinstance(thing, ToolNode):
        return thing.tools_by_name.values()
    if isinstance(thing, dict):
        return [value for value in thing.values() if _may_hold(value)]
    if isinstance(thing, list | tuple | set | frozenset):
        return [value for value in thing if _may_hold(value)]
    steps = getattr(thing, "steps", None)
    if isinstance(steps, list):
        return steps
    functions = [getattr(thing, "func", None), getattr(thing, "afunc", None), thing]
    return [value for function in functions if inspect.isfunction(function) for value in _names(function)]


def _names(function: Any) -> Iterator[Any]:
    names = inspect.getclosurevars(inspect.unwrap(function))
    for value in (*names.nonlocals.values(), *names.globals.values()):
        if _may_hold(value):
            yield value


def _may_hold(value: Any) -> bool:
    return isinstance(value, BaseTool | Pregel | ToolNode | dict | list | tuple | set | frozenset) or (
        inspect.isfunction(value) and not str(value.__module__).startswith(("langchain", "langgraph", "dalsegno."))
    )


async def nobody(call: Call) -> Json:
    """Stands in the place of a tool that LangGraph carries out."""
    raise ConfigError(f"tool {call.name} is carried out by LangGraph")
