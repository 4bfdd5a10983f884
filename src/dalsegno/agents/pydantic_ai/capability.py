"""Where we stand in the framework: two capabilities of one run, around everything and inside of everything.

Outermost, what a tool came to is recorded as the model will be shown it, whatever other capabilities make of it.
Innermost, the model's own words are recorded as it said them, and what nobody else decides is decided by a human.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from pydantic_ai import RunContext
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.capabilities.abstract import (
    RawToolArgs,
    ValidatedToolArgs,
    WrapModelRequestHandler,
    WrapOutputProcessHandler,
    WrapToolExecuteHandler,
    WrapToolValidateHandler,
)
from pydantic_ai.exceptions import ModelRetry, ToolFailed, ToolRetryError
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models import (
    CompletedStreamedResponse,
    Model,
    ModelRequestContext,
    ModelRequestParameters,
    StreamedResponse,
)
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.output import OutputContext
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDefinition
from pydantic_ai.toolsets import AbstractToolset
from pydantic_core import to_jsonable_python

from dalsegno.agents.pydantic_ai.asked import Asked
from dalsegno.agents.pydantic_ai.calls import settled
from dalsegno.agents.pydantic_ai.effects import Watched
from dalsegno.agents.pydantic_ai.history import NOTE, note_of
from dalsegno.agents.pydantic_ai.steps import Steps
from dalsegno.core.json import JsonObject
from dalsegno.ports import Call, Output, Tool

FINAL = "Final result processed."
"""What the framework answers the call of the output tool that ends a run."""


class StepModel(WrapperModel):
    """A model each of whose requests is a step of the turn."""

    def __init__(self, wrapped: Model, steps: Steps) -> None:
        super().__init__(wrapped)
        self._steps = steps

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """The answer, from the record or from the model."""
        return await self._steps.ask(Asked(self.wrapped, messages, model_settings, model_request_parameters))

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """The same as a stream, for those in the run who listen: it begins when the answer is on record."""
        answer = await self.request(messages, model_settings, model_request_parameters)
        yield CompletedStreamedResponse(answer, model_request_parameters=model_request_parameters, replay_events=True)


@dataclass
class Recorded(AbstractCapability[Any]):
    """Outermost: tools and outputs."""

    steps: Steps

    def get_ordering(self) -> CapabilityOrdering:
        """Around all others."""
        return CapabilityOrdering(position="outermost")

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        """Notes which tools are ours underneath; MCP requests are sent with their key."""
        return Watched(toolset, self.steps.tools)

    async def wrap_tool_validate(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: RawToolArgs,
        handler: WrapToolValidateHandler,
    ) -> ValidatedToolArgs:
        """Whether they fit is on record together with what the call came to, whatever a validator says today."""
        self._refused(call)
        if self.steps.calls.recorded(call.tool_call_id) is not None:
            return call.args_as_dict()
        return await handler(args)

    async def wrap_tool_execute(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: ValidatedToolArgs,
        handler: WrapToolExecuteHandler,
    ) -> Any:
        """A tool is carried out as its effect class allows."""
        tool = self.steps.tool(tool_def)
        if call.tool_call_id in self.steps.gated:
            tool = msgspec.structs.replace(tool, gate="approval")
        return await self.steps.calls.carry_out(call, tool, partial(handler, args))

    async def wrap_output_process(
        self, ctx: RunContext[Any], *, output_context: OutputContext, output: Any, handler: WrapOutputProcessHandler
    ) -> Any:
        """Output functions are carried out like tools; what a validator refused is refused again."""
        call, work = output_context.tool_call, partial(handler, output)
        if ctx.partial_output:
            return await work()
        if call is not None:
            self._refused(call)
            if not output_context.has_function or output_context.tool_def is None:
                return await work()
            tool = self.steps.tool(output_context.tool_def)
            return await self.steps.calls.carry_out(call, tool, work, write=self._final)
        if output_context.has_function or _has_validators(ctx.agent):
            return await self._output(output_context, work)
        return await work()

    def _refused(self, call: ToolCallPart) -> None:
        answered = self.steps.calls.recorded(call.tool_call_id)
        if answered is not None and note_of(answered).get("unrun") and answered.get("status") == "incomplete":
            settled(answered)

    def _final(self, value: Any) -> Output:
        note: JsonObject = {"outcome": "success", "result": to_jsonable_python(value, fallback=str)}
        if not self.steps.said:
            note["said"] = True
        return Output(FINAL, {NOTE: note})

    async def _output(self, output_context: OutputContext, work: partial[Any]) -> Any:
        """Text that is the output: the work of a function is recorded, a validator's only if it refuses."""
        live: list[Any] = []

        async def run() -> JsonObject:
            try:
                live[:] = [await work()]
            except ModelRetry as refused:
                return {"refused": refused.message}
            except ToolRetryError as refused:
                return {"refused": str(refused.tool_retry.content)}
            if not output_context.has_function:
                raise _Accepted
            return {"result": to_jsonable_python(live[0], fallback=str)}

        try:
            outcome = await self.steps.turn.step("output", run)
        except _Accepted:
            return live[0]
        if "refused" in outcome:
            raise ModelRetry(str(outcome["refused"]))
        return live[0] if live else outcome["result"]


@dataclass
class Answered(AbstractCapability[Any]):
    """Innermost: models, and humans."""

    steps: Steps

    def get_ordering(self) -> CapabilityOrdering:
        """Inside of all others."""
        return CapabilityOrdering(position="innermost")

    def get_wrapper_model(self, model: Model) -> Model:
        """Each request of the model is a step."""
        return StepModel(model, self.steps)

    async def wrap_model_request(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, handler: WrapModelRequestHandler
    ) -> ModelResponse:
        """Notes which history the request is part of."""
        self.steps.context = ctx
        return await handler(request_context)

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[Any], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Who has to decide or to act is asked; the turn parks, and goes on with the answer.

        A call that needs approval is let through to be carried out, and stops there until somebody decides.
        """
        known = self.steps.calls.known
        results = DeferredToolResults()
        for call in requests.approvals:
            if call.tool_call_id in known:
                self.steps.gated.add(call.tool_call_id)
                results.approvals[call.tool_call_id] = ToolApproved()
        outside = [call for call in requests.calls if call.tool_call_id in known]
        if outside:
            tools = [Tool(call.tool_name, _outside, gate="outside") for call in outside]
            await self.steps.turn.perform([known[call.tool_call_id] for call in outside], tools=tools)
        for call in outside:
            try:
                results.calls[call.tool_call_id] = settled(self.steps.calls.recorded(call.tool_call_id) or {})
            except (ToolFailed, ModelRetry) as answer:
                results.calls[call.tool_call_id] = answer
        return results


class _Accepted(Exception):
    """A validator let the output pass: nothing needs to be on record."""


def _has_validators(agent: AbstractAgent[Any, Any] | None) -> bool:
    """Whether output validators may refuse an output. If that cannot be seen, they may: a commit more, no less."""
    return bool(getattr(agent, "_output_validators", True))


async def _outside(call: Call) -> Output:
    raise AssertionError(f"{call.name} is carried out outside")
