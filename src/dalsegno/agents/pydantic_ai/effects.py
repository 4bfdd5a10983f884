"""What a tool of the framework does to the world: declared with `@dalsegno.tool` under it, or in its metadata."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from pydantic_ai import RunContext
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset

from dalsegno.agents.current import current_call
from dalsegno.agents.declared import declared_by
from dalsegno.core.json import Json
from dalsegno.errors import ConfigError, DalsegnoError
from dalsegno.ports import Call, Tool

CallTool = Callable[..., Awaitable[Any]]
Hook = Callable[[RunContext[Any], CallTool, str, dict[str, Any]], Awaitable[Any]]


def declared(definition: ToolDefinition, known: Mapping[str, Tool]) -> Tool:
    """What is known of the tool, under the name that the model calls it by. Undeclared is `once` + `tell`."""
    found = declared_by(definition.metadata, name=definition.name, run=_nobody) or known.get(definition.name)
    return Tool(definition.name, _nobody) if found is None else msgspec.structs.replace(found, name=definition.name)


@dataclass
class Watched(WrapperToolset[Any]):
    """All tools of a run, on their way to the model: notes which of them are tools of ours underneath, and has calls to
    MCP servers carry their key.
    """

    known: dict[str, Tool] = field(default_factory=dict)

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        """The tools, as they are."""
        self.wrapped.apply(_key_server)
        tools = await super().get_tools(ctx)
        for name, tool in tools.items():
            found = _underneath(tool)
            if found is not None:
                self.known[name] = found
        return tools


class Keyed:
    """Sends the key of the call that is being carried out along with an MCP request; `inner` is the user's own hook."""

    def __init__(self, inner: Hook | None) -> None:
        self.inner = inner

    async def __call__(self, ctx: RunContext[Any], call_tool: CallTool, name: str, arguments: dict[str, Any]) -> Any:
        """Call the server's tool, the hook around it."""
        call = _current()

        async def keyed(name: str, args: dict[str, Any], *, metadata: dict[str, Any] | None = None) -> Any:
            return await call_tool(name, args, metadata={**(call.meta if call else {}), **(metadata or {})} or None)

        if self.inner is None:
            return await keyed(name, arguments)
        return await self.inner(ctx, keyed, name, arguments)


def _key_server(toolset: AbstractToolset[Any]) -> None:
    module = sys.modules.get("pydantic_ai.mcp")  # who has a server has imported it, which takes a package of its own
    if module is None or not isinstance(toolset, module.MCPToolset):
        return
    server: Any = toolset
    if not isinstance(server.process_tool_call, Keyed):
        server.process_tool_call = Keyed(server.process_tool_call)


def _underneath(tool: ToolsetTool[Any]) -> Tool | None:
    """The tool of ours that the framework's tool was made of."""
    while (inner := getattr(tool, "source_tool", None)) is not None:
        tool = inner
    schema = getattr(getattr(tool, "call_func", None), "__self__", None)
    found = getattr(getattr(schema, "function", None), "tool", None)
    return found if isinstance(found, Tool) else None


def _current() -> Call | None:
    try:
        return current_call()
    except DalsegnoError:
        return None


async def _nobody(call: Call) -> Json:
    raise ConfigError(f"tool {call.name} is carried out by Pydantic AI")
