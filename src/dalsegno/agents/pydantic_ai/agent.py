"""A Pydantic AI agent, served: every model request is a step, every tool call an effect, and the log its history."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from pydantic_ai.agent import AbstractAgent
from pydantic_ai.messages import BinaryContent, ModelMessage, ModelRequest
from pydantic_ai.run import AgentRunResult
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import UsageLimits
from pydantic_core import to_json

from dalsegno.agents.pydantic_ai.capability import Answered, Recorded
from dalsegno.agents.pydantic_ai.history import Entry, Request, Response, compose, messages
from dalsegno.agents.pydantic_ai.speech import dump_parts
from dalsegno.agents.pydantic_ai.steps import Steps
from dalsegno.agents.turn import Turn

Deps = Callable[[Turn], Any | Awaitable[Any]]


class PydanticAgent:
    """An agent and how it is to be run; `dalsegno serve` makes one of a bare `Agent` by itself.

    deps: makes the dependencies of each run from its turn. It is run again after a crash: put no effects into it.
    prefill: when a replica dies in the middle of an answer, give the model the beginning that readers were shown and
    let it go on from there, with these settings besides (`{}` = none). Only for providers that can: the answer is
    otherwise given again, and its repetition kept from readers.
    """

    def __init__(
        self,
        agent: AbstractAgent[Any, Any],
        *,
        name: str = "default",
        deps: Deps | None = None,
        prefill: ModelSettings | None = None,
        usage_limits: UsageLimits | None = None,
    ) -> None:
        self.agent = agent
        self._name = name
        self._deps = deps
        self._prefill = prefill
        self._usage_limits = usage_limits
        self._done: WeakKeyDictionary[Turn, list[str]] = WeakKeyDictionary()

    @property
    def name(self) -> str:
        """The name that sessions ask for it by."""
        return self._name

    def named(self, name: str) -> "PydanticAgent":
        """The same agent under another name."""
        return PydanticAgent(
            self.agent, name=name, deps=self._deps, prefill=self._prefill, usage_limits=self._usage_limits
        )

    async def run(self, turn: Turn) -> None:
        """Answer the turn's message; called again on the same turn, what was said to it since."""
        turn.notes.go_ahead()
        context = list(turn.context.items)
        done = self._done.setdefault(turn, [])
        steps = Steps(turn, prefill=self._prefill, context=context, done=done)
        history, prompt = _opening(compose(context), steps)
        deps = None if self._deps is None else self._deps(turn)
        deps = await deps if inspect.isawaitable(deps) else deps
        if history and not steps.instructed:
            await self._instruct(history, steps, prompt=prompt, deps=deps)
        result = await self.agent.run(
            prompt,
            message_history=history,
            deps=deps,
            conversation_id=turn.session,
            usage_limits=self._usage_limits,
            capabilities=[Recorded(steps), Answered(steps)],
        )
        await _conclude(result, steps)

    async def _instruct(self, history: list[ModelMessage], steps: Steps, *, prompt: Any, deps: Any) -> None:
        """A conversation that others began has no system prompt of the agent: it goes before all the rest."""
        parts = await self.agent.system_prompt_parts(deps=deps, message_history=history, prompt=prompt)
        if not parts:
            return
        steps.system = dump_parts(parts)
        first = history[0]
        if isinstance(first, ModelRequest):
            first.parts = [*parts, *first.parts]
        else:
            history.insert(0, ModelRequest(parts=list(parts)))


def _opening(entries: Sequence[Entry], steps: Steps) -> tuple[list[ModelMessage], Any]:
    """The history and the prompt that the run begins with: all up to its first answer that is not given yet."""
    place = next(
        (place for place, entry in enumerate(entries) if isinstance(entry, Response) and steps.awaited(entry)),
        len(entries),
    )
    before = list(entries[:place])
    last = before[-1] if before else None
    if not isinstance(last, Request) or not last.natural or last.natural[-1]["part_kind"] != "user-prompt":
        return messages(before), None
    *rest, said = last.natural
    before[-1:] = [Request(rest, rest)] if rest else []
    prompt: Any = messages([Request([], [said])])[0].parts[0]
    return messages(before), prompt.content


async def _conclude(result: AgentRunResult[Any], steps: Steps) -> None:
    """Record how the run's last calls were answered, and tell the user a result that the model did not tell as text."""
    output = result.output
    said = bool(steps.said) or output is None or isinstance(output, BinaryContent)
    await steps.settle(result.all_messages(), marks={} if said else {"said": True})
    if not said:
        await steps.turn.say(output if isinstance(output, str) else to_json(output, fallback=str).decode())


def adapt(found: Any, *, name: str) -> PydanticAgent:
    """The agent as it is served. Raises `TypeError` for what is none."""
    if isinstance(found, PydanticAgent):
        return found.named(name)
    if isinstance(found, AbstractAgent):
        return PydanticAgent(found, name=name)
    raise TypeError(f"a {type(found).__name__} of Pydantic AI is no agent: name the `Agent`")
