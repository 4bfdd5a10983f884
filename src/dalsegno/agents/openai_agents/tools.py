"""Function tools of the SDK, carried out by the turn: gated, once, by their class of effect, and recorded.

Everything that belongs to a call happens inside its record: its guardrails, the function, its error function, its time
limit. What the SDK gets is what is on record.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Literal

import agents.tool
import msgspec
from agents import (
    Agent,
    FunctionTool,
    ItemHelpers,
    ToolInputGuardrailData,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailData,
    ToolOutputGuardrailTripwireTriggered,
)
from agents.tool import invoke_function_tool

from dalsegno.agents.current import carrying_out
from dalsegno.agents.openai_agents.items import KEY, own, text_of_parts, value_of
from dalsegno.agents.openai_agents.run import current_run, running
from dalsegno.core.event import EffectClass
from dalsegno.core.json import Json, JsonObject
from dalsegno.errors import DalsegnoError
from dalsegno.ports import Call, Output, Tool

Status = Literal["completed", "incomplete"]
AGENT_TOOL_SECONDS = 24 * 3600.0


class ToolFailed(DalsegnoError):
    """A tool raised, and its author wants that to end the run."""


class InvokeTool:
    """Stands in the place of a tool's `on_invoke_tool`."""

    def __init__(self, original: FunctionTool, agent: Agent[Any], effect: EffectClass | None) -> None:
        self._original = original
        self._agent = agent
        self._nested = bool(getattr(original, "_is_agent_tool", False))
        self.tool = self._described(effect)

    async def __call__(self, context: Any, arguments: str) -> Any:
        """What the tool returned, now or the first time."""
        item = await current_run().perform(context.tool_call_id, await self._asked(context), (context, arguments))
        return _told(item)

    def _described(self, effect: EffectClass | None) -> Tool:
        tool, given = self._original, _declared(self._original)
        gate: Literal["none", "approval"] = "approval" if tool.needs_approval is True else "none"
        if given is not None:
            gated = given.gate if given.gate != "none" else gate
            made = msgspec.structs.replace(given, name=tool.name, run=self._run, gate=gated)
            return made if effect is None else msgspec.structs.replace(made, effect=effect)
        made = Tool(tool.name, self._run, description=tool.description, gate=gate, effect=effect or "once")
        if self._nested:
            # an agent does nothing by itself: what it does are steps of its own
            return msgspec.structs.replace(made, effect="read", timeout_seconds=AGENT_TOOL_SECONDS)
        return made

    async def _asked(self, context: Any) -> Tool:
        """The tool for this call: whether a human is asked may depend on the arguments."""
        needed = self._original.needs_approval
        if not callable(needed):
            return self.tool
        try:
            arguments = msgspec.json.decode(context.tool_arguments or "{}")
        except msgspec.DecodeError:
            return self.tool
        asked = await needed(context, arguments, context.tool_call_id)
        return msgspec.structs.replace(self.tool, gate="approval") if asked else self.tool

    async def _run(self, call: Call) -> Output:
        run = current_run()
        context, arguments = run.handles[call.id]
        with carrying_out(call), running(run.inside(call.id) if self._nested else None):
            return await kept(lambda: self._invoke(context, arguments))

    async def _invoke(self, context: Any, arguments: str) -> Output:
        rejected = await self._guard_input(context)
        if rejected is not None:
            return Output(rejected, status="incomplete")
        output, status = await _invoked(self._original, context, arguments)
        output = await self._guard_output(context, output)
        item = ItemHelpers.tool_call_output_item(
            context.tool_call, output, output_json_schema=self._original.output_json_schema
        )
        parts = item["output"]
        return Output(parts, status=status) if isinstance(parts, str) else _structured(parts)

    async def _guard_input(self, context: Any) -> str | None:
        for guardrail in self._original.tool_input_guardrails or ():
            found = await guardrail.run(ToolInputGuardrailData(context=context, agent=self._agent))
            if found.behavior["type"] == "raise_exception":
                raise ToolInputGuardrailTripwireTriggered(guardrail=guardrail, output=found)
            if found.behavior["type"] == "reject_content":
                return found.behavior["message"]
        return None

    async def _guard_output(self, context: Any, output: Any) -> Any:
        for guardrail in self._original.tool_output_guardrails or ():
            data = ToolOutputGuardrailData(context=context, agent=self._agent, output=output)
            found = await guardrail.run(data)
            if found.behavior["type"] == "raise_exception":
                raise ToolOutputGuardrailTripwireTriggered(guardrail=guardrail, output=found)
            if found.behavior["type"] == "reject_content":
                return found.behavior["message"]
        return output


def served_tool(tool: FunctionTool, invoke: InvokeTool) -> FunctionTool:
    """The tool as the served agent has it. What the record takes over is not done a second time by the SDK."""
    return replace(
        tool,
        on_invoke_tool=invoke,
        needs_approval=False,
        timeout_seconds=None,
        tool_input_guardrails=None,
        tool_output_guardrails=None,
    )


async def kept(work: Callable[[], Awaitable[Output]]) -> Output:
    """What came of it; an error that is to end the run is recorded, too, and ends it every time."""
    try:
        return await work()
    except Exception as error:
        raised: Json = {"code": type(error).__name__, "message": str(error)}
        return Output(f"{type(error).__name__}: {error}", {KEY: {"raised": raised}}, "incomplete")


def failure(item: JsonObject) -> None:
    """Raise what the recorded call raised, if it did."""
    raised = own(item).get("raised")
    if isinstance(raised, dict):
        raise ToolFailed(f"{raised['code']}: {raised['message']}")


async def _invoked(tool: FunctionTool, context: Any, arguments: str) -> tuple[Any, Status]:
    """What the tool returned; `incomplete` when the SDK says that it is its own word for an error or a lack of time."""
    invoke = getattr(agents.tool, "_invoke_function_tool_with_metadata", None)
    if invoke is None:
        return await invoke_function_tool(function_tool=tool, context=context, arguments=arguments), "completed"
    found = await invoke(function_tool=tool, context=context, arguments=arguments)
    return found.output, "incomplete" if getattr(found, "is_sdk_generated_error", False) else "completed"


def _told(item: JsonObject) -> Any:
    failure(item)
    return value_of(item)


def _structured(parts: Sequence[Any]) -> Output:
    listed: Any = [dict(part) for part in parts]
    return Output(text_of_parts(listed), {KEY: {"output": listed}})


def _declared(tool: FunctionTool) -> Tool | None:
    """What `@dalsegno.tool` says about the function, if it is under `@function_tool`."""
    function = getattr(copy(tool), "__wrapped__", None)
    while function is not None:
        found = getattr(function, "tool", None)
        if isinstance(found, Tool):
            return found
        function = inspect.unwrap(function, stop=lambda wrapper: isinstance(getattr(wrapper, "tool", None), Tool))
        if getattr(function, "tool", None) is None:
            return None
    return None
