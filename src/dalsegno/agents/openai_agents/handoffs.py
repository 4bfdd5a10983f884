"""Handoffs: recorded like any call, and the log says which agent the conversation was handed to."""

from collections.abc import Callable, Iterable
from copy import copy
from typing import Any

from agents import Agent, Handoff

from dalsegno.agents.current import carrying_out
from dalsegno.agents.openai_agents.items import KEY, own
from dalsegno.agents.openai_agents.run import current_run, running
from dalsegno.agents.openai_agents.tools import failure, kept
from dalsegno.core.event import EffectClass
from dalsegno.core.json import JsonObject
from dalsegno.errors import ConfigError
from dalsegno.ports import Call, Finding, Happened, Output, Tool

Find = Callable[[str], Agent[Any] | None]
Serve = Callable[[Agent[Any]], Agent[Any]]


class InvokeHandoff:
    """Stands in the place of a handoff's `on_invoke_handoff`.

    The handoff itself is decided and recorded with the model's answer; its callback runs once, and one that a crash
    cut off is not run again.
    """

    def __init__(self, original: Handoff[Any, Any], *, effect: EffectClass, find: Find, serve: Serve) -> None:
        self._original = original
        self._find = find
        self._serve = serve
        self.tool = Tool(
            original.tool_name,
            self._run,
            description=original.tool_description,
            effect=effect,
            unknown="probe",
            probe=self._happened,
        )

    async def __call__(self, context: Any, arguments: str) -> Agent[Any]:
        """The agent that goes on."""
        item = await current_run().hand_over(self.tool, (context, arguments))
        failure(item)
        name = str(own(item).get("handoff") or self._original.agent_name)
        agent = self._find(name)
        if agent is None:
            raise ConfigError(f"the conversation was handed to {name!r}, and no such agent is served here")
        return agent

    async def _run(self, call: Call) -> Output:
        context, arguments = current_run().handles[call.id]
        with carrying_out(call), running(None):
            return await kept(lambda: self._hand_over(context, arguments))

    async def _hand_over(self, context: Any, arguments: str) -> Output:
        target = await self._original.on_invoke_handoff(context, arguments)
        served = self._serve(target)
        return Output(self._original.get_transfer_message(served), {KEY: {"handoff": served.name}})

    async def _happened(self, call: Call) -> Finding:
        agent = self._find(self._original.agent_name)
        return None if agent is None else Happened(self._original.get_transfer_message(agent))


def served_handoff(handoff: Handoff[Any, Any], invoke: InvokeHandoff) -> Handoff[Any, Any]:
    """The handoff as the served agent has it."""
    made = copy(handoff)
    made.on_invoke_handoff = invoke
    return made


def speaker(items: Iterable[JsonObject]) -> str:
    """Who the conversation is with, by the log: the agent that was handed to, or that answered last; "" = nobody yet.

    Summaries do not change it, as long as one answer of an agent is left.
    """
    last = ""
    for item in items:
        kept = own(item)
        last = str(kept.get("handoff") or kept.get("agent") or last)
    return last
