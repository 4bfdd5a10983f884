"""What a tool of the framework does to the world: declared with `@dalsegno.tool` under it, or in its metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from pydantic_ai import RunContext
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import ToolsetTool, WrapperToolset

from dalsegno.agents.declared import declared_by
from dalsegno.agents.pydantic_ai.mcp import watch
from dalsegno.core.json import Json
from dalsegno.errors import ConfigError
from dalsegno.ports import Call, Tool


def declared(definition: ToolDefinition, known: Mapping[str, Tool]) -> Tool:
    """What is known of the tool, under the name that the model calls it by. Undeclared is `once` + `tell`."""
    found = declared_by(definition.metadata, name=definition.name, run=_nobody) or known.get(definition.name)
    return Tool(definition.name, _nobody) if found is None else msgspec.structs.replace(found, name=definition.name)


@dataclass
class Watched(WrapperToolset[Any]):
    """All tools of a run, on their way to the model: notes which are tools of ours underneath, and stands around calls
    to MCP servers.
    """

    known: dict[str, Tool] = field(default_factory=dict)

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        """The tools, as they are."""
        self.wrapped.apply(watch)
        tools = await super().get_tools(ctx)
        for name, tool in tools.items():
            found = _underneath(tool)
            if found is not None:
                self.known[name] = found
        return tools


def _underneath(tool: ToolsetTool[Any]) -> Tool | None:
    """The tool of ours that the framework's tool was made of."""
    while (inner := getattr(tool, "source_tool", None)) is not None:
        tool = inner
    schema = getattr(getattr(tool, "call_func", None), "__self__", None)
    found = getattr(getattr(schema, "function", None), "tool", None)
    return found if isinstance(found, Tool) else None


async def _nobody(call: Call) -> Json:
    raise ConfigError(f"tool {call.name} is carried out by Pydantic AI")
