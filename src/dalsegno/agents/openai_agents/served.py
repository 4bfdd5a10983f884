"""The agents as they are served: copies of the user's, whose models, tools, handoffs and guardrails go through the
turn. The user's objects are not changed, but for one thing: MCP servers learn to send the key of a call along, and
to be connected again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from agents import Agent, FunctionTool, Handoff, Model, handoff
from agents.mcp import MCPServer

from dalsegno.agents.openai_agents.guardrails import served_guardrail
from dalsegno.agents.openai_agents.handoffs import InvokeHandoff, served_handoff
from dalsegno.agents.openai_agents.mcp import with_key
from dalsegno.agents.openai_agents.model import recorded
from dalsegno.agents.openai_agents.run import offers
from dalsegno.agents.openai_agents.tools import InvokeTool, served_tool
from dalsegno.core.event import EffectClass
from dalsegno.errors import ConfigError
from dalsegno.ports import Tool

LOCAL = ("ComputerTool", "LocalShellTool", "ApplyPatchTool", "CustomTool")
"""Tools that act in this process and are no functions: nothing could be promised about them."""


class Served:
    """All agents that can be reached from one, each copied once: they may hand over to each other in circles."""

    def __init__(self, root: Agent[Any], effects: Mapping[str, EffectClass]) -> None:
        self._effects = effects
        self._copies: dict[int, tuple[Agent[Any], Agent[Any]]] = {}
        self._mine: set[int] = set()
        self._kinds: dict[str, EffectClass] = {}
        agents = list(reachable(root))
        names = [agent.name for agent in agents]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two agents are named {name!r}: the log says by name who speaks; rename one of them")
        while agents:
            agent = agents.pop(0)
            if id(agent) not in self._copies:
                self.serve(agent)
                agents += [one for called in _called(agent) for one in reachable(called)]
        self.root = self.serve(root)

    def serve(self, agent: Agent[Any]) -> Agent[Any]:
        """The served copy of an agent."""
        if id(agent) in self._mine:
            return agent
        if id(agent) not in self._copies:
            _check(agent)
            copy = replace(
                agent,
                tools=[self._tool(tool, agent) for tool in agent.tools],
                input_guardrails=[served_guardrail(one) for one in agent.input_guardrails],
                output_guardrails=[served_guardrail(one) for one in agent.output_guardrails],
                mcp_servers=[with_key(server) for server in agent.mcp_servers],
                model=recorded(agent.model) if isinstance(agent.model, Model) else agent.model,
                handoffs=[],
            )
            self._copies[id(agent)] = (agent, copy)
            self._mine.add(id(copy))
            copy.handoffs = [self._handoff(one) for one in agent.handoffs]
            setattr(copy, "get_mcp_tools", self._mcp_tools(copy))  # noqa: B010 -- a method of one object
        return self._copies[id(agent)][1]

    def find(self, name: str) -> Agent[Any] | None:
        """The served agent of that name."""
        return next((copy for _, copy in self._copies.values() if copy.name == name), None)

    @property
    def servers(self) -> list[MCPServer]:
        """The MCP servers of all of them."""
        found = [server for _, copy in self._copies.values() for server in copy.mcp_servers]
        return list({id(server): server for server in found}.values())

    @property
    def tools(self) -> list[Tool]:
        """The tools and handoffs of all of them, those of MCP servers left out."""
        return [tool for _, copy in self._copies.values() for tool in offers([*copy.tools, *copy.handoffs])]

    def _tool(self, tool: Any, agent: Agent[Any]) -> Any:
        if not isinstance(tool, FunctionTool):
            return tool
        invoke = InvokeTool(tool, agent, self._effects.get(tool.name))
        if self._kinds.setdefault(tool.name, invoke.tool.effect) != invoke.tool.effect:
            raise ConfigError(f"two tools named {tool.name!r} have different classes of effect: rename one of them")
        return served_tool(tool, invoke)

    def _handoff(self, one: Agent[Any] | Handoff[Any, Any]) -> Handoff[Any, Any]:
        plain, target = isinstance(one, Agent), _target(one)

        def find(name: str) -> Agent[Any] | None:
            """The handoff's own target, if that is its name: elsewhere the name may be another's."""
            return self.serve(target) if target is not None and target.name == name else self.find(name)

        def enter(agent: Agent[Any]) -> Agent[Any]:
            """Whom it hands over to. One that was made in its call would be found by name by other sessions of this
            process, and by no other replica.
            """
            if agent is not target and id(agent) not in self._copies and id(agent) not in self._mine:
                raise ConfigError(
                    f"the handoff to {agent.name!r} made that agent in its call, and no other replica could find it: "
                    "make it once, with instructions that read the context"
                )
            return self.serve(agent)

        original: Handoff[Any, Any] = handoff(one) if isinstance(one, Agent) else one
        effect = self._effects.get(original.tool_name) or ("read" if plain else "once")
        return served_handoff(original, InvokeHandoff(original, effect=effect, find=find, serve=enter))

    def _mcp_tools(self, copy: Agent[Any]) -> Any:
        async def tools(context: Any) -> list[Any]:
            return [self._tool(tool, copy) for tool in await type(copy).get_mcp_tools(copy, context)]

        return tools


def reachable(agent: Agent[Any]) -> Iterator[Agent[Any]]:
    """The agent and all that it may hand over to, as far as that can be seen before it happens."""
    seen: dict[int, Agent[Any]] = {}
    waiting = [agent]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen[id(one)] = one
        yield one
        waiting += [found for found in map(_target, one.handoffs) if found is not None]


def _called(agent: Agent[Any]) -> list[Agent[Any]]:
    """The agents that are tools of this one."""
    found = [getattr(tool, "_agent_instance", None) for tool in agent.tools]
    return [one for one in found if isinstance(one, Agent)]


def _target(one: Agent[Any] | Handoff[Any, Any]) -> Agent[Any] | None:
    if isinstance(one, Agent):
        return one
    reference = getattr(one, "_agent_ref", None)
    found = None if reference is None else reference()
    return found if isinstance(found, Agent) else None


def _check(agent: Agent[Any]) -> None:
    for tool in agent.tools:
        local = type(tool).__name__ in LOCAL or getattr(tool, "executor", None) is not None
        if local and not isinstance(tool, FunctionTool):
            raise ConfigError(
                f"agent {agent.name!r}: {type(tool).__name__} acts in this process and leaves no record; "
                "write it as a @function_tool"
            )
