"""An agent of the OpenAI Agents SDK, served: each turn of a session is one run of the SDK's own loop.

The run's input is the log, and whatever the run does goes through the turn. A turn that is begun again (after a crash,
after a human's decision) runs from its beginning on the record. Nothing is kept between turns: with whom the
conversation goes on after a handoff is read off the log.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

from agents import Agent, RunConfig, RunHooks, RunResult
from agents.run_config import DEFAULT_MAX_TURNS

from dalsegno.agents.openai_agents.handoffs import speaker
from dalsegno.agents.openai_agents.items import to_input
from dalsegno.agents.openai_agents.mcp import Connections
from dalsegno.agents.openai_agents.run import Run, running
from dalsegno.agents.openai_agents.runner import interposed, quiet
from dalsegno.agents.openai_agents.served import Served
from dalsegno.agents.turn import Turn
from dalsegno.core.event import EffectClass
from dalsegno.errors import ConfigError

Prefill = Literal["never", "continue_final_message"]


class OpenAIAgent:
    """Serves an `Agent` as it is; the rest is for those who want more of it.

    context: makes the object that tools, guardrails and instructions get as `context`; from the turn, for each attempt
    anew. run_config, max_turns: as for `Runner.run`; traces are sent only if `run_config.tracing` says how.
    effects: the classes of effect of tools by name, where `@dalsegno.tool` does not say them.
    prefill: `continue_final_message`, if the server of Chat Completions knows that parameter (vLLM does, OpenAI does
    not): after a crash an answer is continued instead of repeated.
    """

    def __init__(
        self,
        agent: Agent[Any],
        *,
        context: Callable[[Turn], Any] | None = None,
        run_config: RunConfig | None = None,
        max_turns: int = DEFAULT_MAX_TURNS,
        effects: Mapping[str, EffectClass] | None = None,
        prefill: Prefill = "never",
    ) -> None:
        self._name = "default"
        self._context = context
        self._config = quiet(run_config or RunConfig())
        self._max_turns = max_turns
        self._prefill: Prefill = prefill
        self._served = Served(agent, effects or {})
        self._connections = Connections(self._served.servers)
        self._reached: WeakKeyDictionary[Turn, str] = WeakKeyDictionary()

    @property
    def name(self) -> str:
        """The name that sessions ask for it by."""
        return self._name

    def named(self, name: str) -> "OpenAIAgent":
        """The agent itself, under that name."""
        self._name = name
        return self

    async def run(self, turn: Turn) -> None:
        """Run the SDK's loop on the log; what its tools' output makes the answer is said, too."""
        turn.notes.go_ahead()
        turn.offer(self._served.tools)  # also of agents that are tools: to undo what they did they are not run again
        await self._connections.ready()
        begun = turn in self._reached  # a message joined the turn as it was ending: what is on record goes before it
        items = list((turn.context if begun else turn.opening).items)
        run = Run(turn, self._served.serve, opening=None if begun else len(items), prefill=self._prefill)
        agent = self._served.find(self._reached.get(turn) or speaker(items)) or self._served.root
        with running(run):
            result = await interposed().inner.run(
                agent,
                to_input(items),
                context=await self._made(turn),
                max_turns=self._max_turns,
                hooks=_Watch(run),
                run_config=replace(self._config, group_id=self._config.group_id or turn.session),
            )
        await self._end(run, result)
        self._reached[turn] = result.last_agent.name

    async def _made(self, turn: Turn) -> Any:
        made = None if self._context is None else self._context(turn)
        return await made if inspect.isawaitable(made) else made

    async def _end(self, run: Run, result: RunResult) -> None:
        if result.interruptions:
            names = ", ".join(sorted({str(item.tool_name) for item in result.interruptions}))
            raise ConfigError(f"{names}: only function tools can wait for a human here; give on_approval_request")
        if run.calling and result.final_output is not None:
            await run.turn.say(str(result.final_output))


class _Watch(RunHooks[Any]):
    """Notes which agent is speaking, for the record."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def on_llm_start(self, context: Any, agent: Any, system_prompt: Any, input_items: Any) -> None:
        """Just before a model is asked."""
        self._run.speaking = agent.name
