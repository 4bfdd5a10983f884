"""The run of an agent in one turn: each model request is a step, answered from its record or asked of the model now.

What the model is shown is the framework's own history. What of it no item says (system prompts, instructions that are
not fixed, the feedback of validators) is recorded with the answer, in the same commit; an answer from the record brings
back the request that it answered, so that what follows is asked with the words of the log, whatever the agent's own
functions say today.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.exceptions import ModelConnectionError, ModelServerError, ModelUnavailableError
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, SystemPromptPart, TextPart, ToolReturnPart
from pydantic_ai.settings import ModelSettings, merge_model_settings
from pydantic_ai.tools import ToolDefinition

from dalsegno.agents.pydantic_ai.asked import Asked, instructions, last_instructions, streams, tail
from dalsegno.agents.pydantic_ai.calls import Calls
from dalsegno.agents.pydantic_ai.content import user_part
from dalsegno.agents.pydantic_ai.effects import declared
from dalsegno.agents.pydantic_ai.history import (
    Entry,
    Request,
    Response,
    compose,
    dynamic_prompts,
    generated,
    messages,
    response_of,
)
from dalsegno.agents.pydantic_ai.speech import Misheard, Speech, dump_parts, told
from dalsegno.agents.turn import Reply, Turn
from dalsegno.core import item as items
from dalsegno.core.context import Context
from dalsegno.core.ids import item_id
from dalsegno.core.json import JsonObject
from dalsegno.core.part import Continue, Part
from dalsegno.ports import Tool

BROKEN_OFF = (ModelConnectionError, ModelServerError, ModelUnavailableError)
PAUSES_SECONDS = (0.3, 0.9)


class Steps:
    """One run: its model requests, and what they need to know of each other."""

    def __init__(
        self, turn: Turn, *, prefill: ModelSettings | None, context: Sequence[JsonObject], done: list[str]
    ) -> None:
        self.turn = turn
        self.calls = Calls(turn)
        self.tools: dict[str, Tool] = {}
        self.gated: set[str] = set()
        self.system: list[JsonObject] = []
        """System prompts that were put before a conversation which had none, until they are on record."""
        self.said = ""
        """The text of the last answer."""
        self.done = done
        """The items of the turn's answers so far."""
        self.instructed = False
        """Whether a system prompt of the framework is on record."""
        self.context: RunContext[Any] | None = None
        self._prefill = prefill
        self._known: set[str] = set()
        self._requests: dict[str, Request] = {}
        self._look(compose(context))

    @property
    def history(self) -> list[ModelMessage]:
        """The run's own messages, of which those that a model is given are made."""
        assert self.context is not None
        return self.context.messages

    def tool(self, definition: ToolDefinition) -> Tool:
        """What is known of a tool's effect."""
        return declared(definition, self.tools)

    async def ask(self, asked: Asked) -> ModelResponse:
        """The answer on record, or the model's."""
        await self.settle(self.history)
        tools = [self.tool(definition) for definition in asked.parameters.function_tools]
        step = _Step(self, asked)
        reply = await self._carry_through(step, tools)
        if step.fresh:
            self.system = []
        else:
            self._recall(self.history, reply.items)
        self.calls.known.update((str(call["call_id"]), call) for call in reply.calls)
        self.done += [str(item["id"]) for item in reply.items]
        self.said = reply.text
        answer = response_of(reply.items)
        (message,) = messages([answer])
        assert isinstance(message, ModelResponse)
        message.provider_url = asked.model.base_url  # for its price; an address of ours is nothing for readers
        return message

    async def _carry_through(self, step: "_Step", tools: Sequence[Tool]) -> Reply:
        """Carry the step through. An answer that breaks off is asked for again, as the providers' clients do it with
        answers that they are sent whole; readers see it go on.
        """
        for pause in PAUSES_SECONDS:
            try:
                return await self.turn.generate(step.live, tools=tools)
            except Misheard:
                return await self.turn.generate(step.again, tools=tools)
            except BROKEN_OFF:
                if not step.begun:
                    raise
            await asyncio.sleep(pause)
        return await self.turn.generate(step.live, tools=tools)

    async def settle(self, history: Sequence[ModelMessage], *, marks: JsonObject | None = None) -> None:
        """Record what the framework itself answers calls with: unknown tools, arguments that do not fit, results of
        output tools.
        """
        for request in tail(history):
            for part in request.parts:
                if isinstance(part, ToolReturnPart):
                    await self.calls.note(part, marks=marks or {})

    def awaited(self, answer: Response) -> bool:
        """Whether the answer was given in this turn, and has not been asked for yet."""
        return any(name not in self.done and self._ours(name) for name in answer.ids)

    def steered(self, context: Sequence[JsonObject]) -> list[Any]:
        """What was said to the turn while it ran, and the framework has not been told: parts for its next request."""
        fresh = [
            item
            for item in context
            if item.get("type", items.MESSAGE) == items.MESSAGE
            and not generated(item)
            and str(item.get("id")) not in self._known
        ]
        if not fresh:
            return []
        self._known.update(str(item.get("id")) for item in fresh)
        (message,) = messages([Request([], [user_part(item) for item in fresh])])
        return list(message.parts)

    def kept(self, asked: Asked, context: Sequence[JsonObject]) -> JsonObject:
        """What is recorded about a request, together with its answer."""
        kept: JsonObject = {}
        entries = compose(context)
        last = entries[-1] if entries else None
        natural = dump_parts(messages([Request([], last.natural)])[0].parts) if isinstance(last, Request) else []
        sent = dump_parts([_for_models(part) for request in tail(self.history) for part in request.parts])
        if sent != natural:
            kept["request"] = [natural.index(part) if part in natural else part for part in sent]
        refreshed = self._refreshed(entries)
        if refreshed:
            kept["refreshed"] = refreshed
        if self.system:
            kept["system"] = list(self.system)
        changing = instructions(asked, self.history)
        if changing is not None and changing != last_instructions(context):
            kept["instructions"] = changing
        return kept

    def prefix(self) -> str:
        """With what the model is to begin its answer. Nothing that ends with a blank: Anthropic's models refuse it."""
        prefix = "" if self._prefill is None else self.turn.prefix
        return "" if prefix[-1:].isspace() else prefix

    def prefilled(self, settings: ModelSettings | None) -> ModelSettings | None:
        """The settings of a request that ends with the beginning of its answer."""
        return merge_model_settings(settings, self._prefill)

    def _refreshed(self, entries: Sequence[Entry]) -> JsonObject:
        """System prompts of earlier requests that the framework has made anew for this run."""
        known = {str(part["dynamic_ref"]): part["content"] for part in dynamic_prompts(entries)}
        before = self.history[: len(self.history) - len(tail(self.history))]
        now = [part for message in before for part in message.parts if isinstance(part, SystemPromptPart)]
        return {
            part.dynamic_ref: part.content
            for part in now
            if part.dynamic_ref is not None and known.get(part.dynamic_ref, part.content) != part.content
        }

    def _ours(self, name: str) -> bool:
        return name.partition("_")[2].startswith(item_id(self.turn.id, "", "").partition("_")[2])

    def _look(self, entries: Sequence[Entry]) -> None:
        """What the log knew when the run began: the request before each answer, and what its first request tells."""
        self._requests = {
            answer.ids[0]: request
            for request, answer in pairwise(entries)
            if isinstance(request, Request) and isinstance(answer, Response) and answer.ids
        }
        for entry in entries:
            if isinstance(entry, Response) and self.awaited(entry):
                break
            if isinstance(entry, Request):
                self._known.update(entry.ids)
        requests = [entry for entry in entries if isinstance(entry, Request)]
        self.instructed = any(
            part["part_kind"] == "system-prompt" and part not in request.natural
            for request in requests
            for part in request.parts
        )

    def _recall(self, history: list[ModelMessage], answer: Sequence[JsonObject]) -> None:
        """The answer came from the record: so does the request that it answers."""
        spoken = [str(item["id"]) for item in answer if generated(item)]
        request = self._requests.get(spoken[0]) if spoken else None
        if request is None or not history or not isinstance(history[-1], ModelRequest):
            return
        last, before = history[-1], len(tail(history))
        (recorded,) = messages([request])
        assert isinstance(recorded, ModelRequest)
        last.parts = recorded.parts
        del history[len(history) - before : -1]
        self._known.update(request.ids)


class _Step:
    """One request to a model, as the model function of a step."""

    def __init__(self, steps: Steps, asked: Asked) -> None:
        self.fresh = False
        self.begun = False
        """Whether the model had begun to answer."""
        self._steps = steps
        self._asked = asked
        self._answer: ModelResponse | None = None
        self._kept: JsonObject = {}
        self._begun = ""

    async def live(self, context: Context) -> AsyncGenerator[Part]:
        """Ask, and tell what the model says as it says it."""
        self.fresh, self.begun = True, False
        shown = list(context.items)
        self._tell(self._steps.steered(shown))
        self._kept = self._steps.kept(self._asked, shown)
        asked, settings = self._asked.messages, self._asked.settings
        self._begun = self._steps.prefix()
        if self._begun:
            yield Continue()
            asked = [*asked, ModelResponse(parts=[TextPart(self._begun)])]
            settings = self._steps.prefilled(settings)
        speech = Speech(self._begun)
        if streams(self._asked.model):
            async with self._asked.model.request_stream(
                asked, settings, self._asked.parameters, self._steps.context
            ) as stream:
                async for event in stream:
                    self.begun = True
                    for part in speech.hear(event):
                        yield part
            self._answer = stream.get()
        else:
            self._answer = await self._asked.model.request(asked, settings, self._asked.parameters)
        for part in speech.finish(self._answer):
            yield part
        for part in told(self._answer, self._kept, begun=self._begun):
            yield part

    async def again(self, context: Context) -> AsyncGenerator[Part]:
        """Tell the answer that is already here, from its beginning."""
        assert self._answer is not None
        if self._begun:
            yield Continue()
        for part in Speech(self._begun).finish(self._answer):
            yield part
        for part in told(self._answer, self._kept, begun=self._begun):
            yield part

    def _tell(self, parts: list[Any]) -> None:
        targets = {id(message): message for message in (*self._asked.messages[-1:], *self._steps.history[-1:])}
        for target in targets.values() if parts else ():
            if isinstance(target, ModelRequest):
                target.parts = [*target.parts, *parts]


def _for_models(part: Any) -> Any:
    """The part without what a tool returned for the application, which may be of any type and is shown to no model."""
    return replace(part, metadata=None) if isinstance(part, ToolReturnPart) and part.metadata is not None else part
