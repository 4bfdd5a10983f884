"""One run of the SDK inside a turn: which turn, which agent is speaking, and what its calls came to.

What the SDK is given comes from the record, so that a run that begins again takes the same path up to the end of the
log. A run inside a tool (an agent as a tool) is one more of these: its steps are named after the call that it is in.
"""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from agents import Agent, FunctionTool, Handoff, ModelResponse

from dalsegno.agents.openai_agents.items import Shown, own, response, same, to_input
from dalsegno.agents.turn import Turn
from dalsegno.core.context import Context
from dalsegno.core.json import JsonObject
from dalsegno.core.part import Part
from dalsegno.errors import DalsegnoError
from dalsegno.ports import Output, Tool

ONE_HANDOFF = "Multiple handoffs detected, ignoring this one."
"""The SDK's words."""
Serve = Callable[[Agent[Any]], Agent[Any]]
Answer = Callable[[Shown, str], AsyncGenerator[Part]]
_CURRENT: ContextVar["Run | None"] = ContextVar("dalsegno_openai_agents_run", default=None)


class Run:
    """A run under way. `within` is the call that it is inside of, if any; `opening`: with how many items of the context
    it began, None = with all that there are.
    """

    def __init__(
        self, turn: Turn, serve: Serve, *, within: str | None = None, opening: int | None = None, prefill: str = "never"
    ) -> None:
        self.turn = turn
        self.serve = serve
        self.within = within
        self.speaking = ""
        self.entered = within is None
        self.handles: dict[str, tuple[Any, str]] = {}
        """Of calls that the SDK asks for now: the SDK's context of each, and its arguments."""
        self._opening = opening
        self._prefill = prefill
        self._calls: dict[str, JsonObject] = {}
        self._last: tuple[JsonObject, ...] = ()
        self._handoffs: set[str] = set()

    def inside(self, call_id: str) -> "Run":
        """The run of an agent that is called as a tool."""
        return Run(self.turn, self.serve, within=call_id)

    @property
    def calling(self) -> bool:
        """Whether the last answer asked for calls."""
        return bool(self._last)

    @property
    def place(self) -> str:
        """Where in the turn this is, for names of steps."""
        return "" if self.within is None else f":{self.within}"

    async def ask(
        self, answer: Answer, asked: Shown, *, tools: Sequence[Any], handoffs: Sequence[Any]
    ) -> ModelResponse:
        """One model call: from the record, or `answer` is given what to show and what it has begun to say."""
        await self._settle(asked)

        def model(context: Context) -> AsyncGenerator[Part]:
            prefix = self.turn.prefix if self._prefill != "never" and self.within is None else ""
            return answer(self._shown(context, asked), prefix)

        offered = [*offers(tools), *offers(handoffs)]
        reply = await self.turn.generate(model, tools=offered, name=f"model{self.place}", inside=self.within)
        self._last = reply.calls
        self._handoffs = {tool.name for tool in offers(handoffs)}
        self._calls.update((str(call["call_id"]), call) for call in reply.calls)
        return response(reply.items)

    async def perform(self, call_id: str, tool: Tool, handle: tuple[Any, str]) -> JsonObject:
        """Carry out a call of the last answer as its class of effect allows; its output on record."""
        call = self._calls.get(call_id)
        if call is None:
            raise DalsegnoError(f"{tool.name} is called as {call_id!r}, which no model asked for")
        self.handles[call_id] = handle
        await self.turn.perform([call], tools=[tool])
        found = self.turn.answered(call_id)
        assert found is not None
        return found

    async def hand_over(self, tool: Tool, handle: tuple[Any, str]) -> JsonObject:
        """Carry out a handoff, the first that the last answer asked for; the others come to nothing, as in the SDK."""
        first, *others = [call for call in self._last if call["name"] in self._handoffs]
        output = await self.perform(str(first["call_id"]), tool, handle)
        for call in others:
            await self.turn.answer(call, Output(ONE_HANDOFF, status="refused"))
        return output

    async def _settle(self, shown: Sequence[Any]) -> None:
        """Put on record what the SDK itself answered to calls that nobody carries out: those that name no tool."""
        for call_id, call in self._calls.items():
            if call_id in self.handles or self.turn.answered(call_id) is not None:
                continue
            if (said := _said(shown, call_id)) is not None:
                await self.turn.answer(call, Output(said, status="refused"))

    def _shown(self, context: Context, asked: Shown) -> Shown:
        """What the log says, in the log's order. Where the SDK would show something else, because the user has it
        filter its input, that; and what was said to the turn meanwhile behind it.
        """
        if self.within is not None:
            return asked
        items = list(context.items)
        everything = to_input(items)
        if self._opening is None or everything == asked or same(everything, asked):
            return everything
        steered = [item for item in items[self._opening :] if item.get("type") == "message" and not own(item)]
        heard = [item for item in steered if item.get("role") != "assistant"]
        return [*asked, *to_input(heard)] if heard else asked


@contextmanager
def running(run: Run | None) -> Iterator[None]:
    """What happens inside belongs to that run; None: to none, as what users' own code does inside a tool."""
    token = _CURRENT.set(run)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_run() -> Run:
    """The run that this happens in."""
    run = _CURRENT.get()
    if run is None:
        raise DalsegnoError("this agent is served: outside of its turn, run the agent that it was made of")
    return run


def maybe_run() -> Run | None:
    """The run that this happens in, if any."""
    return _CURRENT.get()


def offers(offered: Sequence[Any]) -> list[Tool]:
    """The tools behind what a model is offered."""
    found = []
    for one in offered:
        invoke = one.on_invoke_tool if isinstance(one, FunctionTool) else None
        invoke = one.on_invoke_handoff if isinstance(one, Handoff) else invoke
        tool = getattr(invoke, "tool", None)
        if isinstance(tool, Tool):
            found.append(tool)
    return found


def _said(shown: Sequence[Any], call_id: str) -> str | None:
    for item in shown:
        if item.get("type") == "function_call_output" and item.get("call_id") == call_id:
            return str(item.get("output"))
    return None
