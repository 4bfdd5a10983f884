"""What the nodes of a graph do while a turn runs it: model calls, tool calls and named steps, each on record once.

A step's key is the task it belongs to (LangGraph derives a task's id from its checkpoint and its place), and what it
asks (`claims`): so tasks that run side by side, or are run again after a crash, find their own record.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import msgspec
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import BaseTool
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.errors import GraphBubbleUp

from dalsegno.agents.current import carrying_out, current_call
from dalsegno.agents.langgraph.claims import Claims
from dalsegno.agents.langgraph.listener import Listener, listened, parts_of
from dalsegno.agents.langgraph.messages import answer, packed, rest_of, tool_message, unpacked
from dalsegno.agents.langgraph.prefill import Prefill, Rest, continuing
from dalsegno.agents.langgraph.raised import raised_again, raised_details
from dalsegno.agents.langgraph.request import Request
from dalsegno.agents.langgraph.threads import Lend, Thread
from dalsegno.agents.langgraph.tools import declared
from dalsegno.agents.turn import Turn
from dalsegno.core.ids import short_hash
from dalsegno.core.item import CALL
from dalsegno.core.json import JsonObject
from dalsegno.core.part import Continue, Detail, Part, ToolCall, Usage
from dalsegno.errors import DalsegnoError, PlatformSignal
from dalsegno.ports import Call, Output, Tool

T = TypeVar("T")
OTHERWISE = (
    "a node called tool {} with arguments that are not on record, and a call that is on record was not made again: "
    "whether it is the same call cannot be known, so neither was made. What is made by chance belongs in `step()`"
)
PLAIN = (str, int, float, bool, list, dict)
Generate = Callable[[Request, AsyncCallbackManagerForLLMRun | None], Awaitable[ChatResult]]


class Left(PlatformSignal):
    """A tool waits for a human in the middle of itself (`interrupt()`): it has no output yet, and is run again."""

    def __init__(self, reason: GraphBubbleUp) -> None:
        super().__init__(str(reason))
        self.reason = reason


class NotContinued(Exception):
    """A model that was given the beginning of its answer refused, before it said anything."""


class Journal:
    """One run of a graph, as the seams in LangChain see it."""

    def __init__(
        self, turn: Turn, tools: dict[str, Tool], serde: SerializerProtocol, *, prefill: Prefill | None = None
    ) -> None:
        self.turn = turn
        self.said: list[BaseMessage] = []
        """What models answered in this run, or had answered."""
        self._tools = tools
        self._serde = serde
        self._prefill = prefill
        self._loop = asyncio.get_running_loop()
        self._bridged: set[Any] = set()
        self._claims = Claims(turn.notes.steps)

    async def model(
        self, request: Request, generate: Generate, manager: AsyncCallbackManagerForLLMRun | None
    ) -> ChatResult:
        """A model call as a step: its answer comes from the record, or goes there while readers see it grow."""
        name = await self._claims.name(f"model{place()}", request.words)
        # a task has another id in each attempt until its checkpoint is on record; what it asks is the same
        ask = partial(
            self.turn.generate,
            tools=tuple(self._tools.values()),
            name=name,
            inside=_inside(),
            label=name.rpartition(":")[2],
        )
        with self._claims.taken(name):
            try:
                reply = await ask(lambda context: self._speak(request, generate, manager, self._prefill))
            except NotContinued:
                reply = await ask(lambda context: self._speak(request, generate, manager, None))
        message = answer(reply.items, self._serde)
        self.said.append(message)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def tool(self, tool: BaseTool, given: Any, call_id: str | None, run: Callable[[], Awaitable[Any]]) -> Any:
        """A tool call, carried out as its effect class allows; what it returned comes from the record."""
        known = declared(tool)
        item = await self._asked(known, given, call_id)
        called = str(item["call_id"])
        failures: list[Exception] = []

        async def carry_out(call: Call) -> Output:
            try:
                with carrying_out(call):
                    return self._output(tool, await run())
            except GraphBubbleUp as reason:
                raise Left(reason) from None
            except Exception as error:
                failures.append(error)
                return Output(f"Error: {type(error).__name__}: {error}", raised_details(error), "incomplete")

        try:
            (text,) = await self.turn.perform([item], tools=[msgspec.structs.replace(known, run=carry_out)])
        except Left as left:
            raise left.reason from None
        if failures:
            raise failures[0]
        recorded = {**(self.turn.answered(called) or {}), "output": text, "call_id": called}
        raised_again(recorded)
        value = unpacked(recorded, self._serde)
        if value is None and call_id is not None:
            return tool_message(recorded, self._serde, name=tool.name)
        return text if value is None else value[0]

    async def settle(self, told: Sequence[BaseMessage]) -> None:
        """Record what the graph itself answered to calls, an unknown tool's for example: no tool was run for them."""
        for message in told:
            if isinstance(message, ToolMessage) and self.turn.answered(message.tool_call_id) is None:
                item = await self.turn.notes.asked(message.tool_call_id)
                if item is not None:
                    refused = message.status == "error"
                    output = Output(str(message.text), status="refused" if refused else "completed")
                    await self.turn.answer(item, output)

    async def step(self, name: str, run: Callable[[], Awaitable[T]]) -> T:
        """A function that is run once, and whose result (JSON) is on record."""
        return await self.turn.step(f"{name}{place()}", run)

    def wait(self, work: Callable[[Lend], Coroutine[Any, Any, T]]) -> T:
        """The same from a thread that LangGraph runs a node or a tool in. What of it must run in a thread runs in this
        one: were it to wait for another, nodes that wait could take all that there are.
        """
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            raise DalsegnoError(
                "an async node called a model or a tool in a way that blocks the loop: use ainvoke, or a sync node"
            )
        thread = Thread(self._loop)
        future = asyncio.run_coroutine_threadsafe(work(thread.lend), self._loop)
        self._bridged.add(future)
        try:
            return thread.serve(future)
        finally:
            self._bridged.discard(future)

    def close(self) -> None:
        """The run is over: nobody waits in a thread any more."""
        for future in list(self._bridged):
            future.cancel()

    async def _asked(self, known: Tool, given: Any, call_id: str | None) -> JsonObject:
        """The call on record; if no model asked for it, it is the graph's own decision, and recorded as such."""
        item = None if call_id is None else await self.turn.notes.asked(call_id)
        if item is not None:
            return item
        arguments = _plain(given)

        async def decide() -> list[Part]:
            return [ToolCall(known.name, arguments, call_id or "")]

        if call_id is not None:
            name = f"call:{call_id}"
        else:
            otherwise = "" if known.effect == "read" else OTHERWISE.format(known.name)
            name = await self._claims.name(f"call:{known.name}{place()}", arguments, otherwise=otherwise)
        with self._claims.taken(name):
            reply = await self.turn.generate(lambda context: decide(), tools=[known], name=name, inside=_inside())
        return next(item for item in reply.items if item["type"] == CALL)

    def _output(self, tool: BaseTool, value: Any) -> Output:
        """What is recorded of what a tool returned. Raises `DalsegnoError` for what no log can hold."""
        text, status = text_of_value(value)
        try:
            details = {} if is_plain(value, tool.name, text) else packed([value], self._serde)
        except Exception as error:
            raise DalsegnoError(f"what tool {tool.name} returned cannot be kept: {error}") from error
        return Output(text, details, "incomplete" if status == "error" else "completed")

    async def _speak(
        self,
        request: Request,
        generate: Generate,
        manager: AsyncCallbackManagerForLLMRun | None,
        prefill: Prefill | None,
    ) -> AsyncGenerator[Part]:
        prefix = self.turn.prefix
        further = continuing(request, prefix, prefill)
        if further is not None:
            yield Continue()
        rest, spoken, heard = Rest("" if further is None else prefix), False, Listener()
        work = asyncio.ensure_future(generate(further or request, listened(manager, heard)))
        work.add_done_callback(heard.end)
        try:
            async for said in heard.batches():
                for part in said:
                    spoken = True
                    yield rest.hear(part)
            message = cast(AIMessage, (await work).generations[0].message)
        except Exception as error:
            if further is None or spoken:
                raise
            raise NotContinued from error
        finally:
            if not work.done():
                work.cancel()
        for part in () if spoken else parts_of(message):
            yield rest.hear(part)
        message = rest.whole(message)
        for call in (*message.tool_calls, *message.invalid_tool_calls):
            yield ToolCall(call["name"] or "", cast(Any, call["args"]) or "{}", call["id"] or "")
        if message.usage_metadata:
            yield Usage(cast(JsonObject, dict(message.usage_metadata)))
        yield Detail(packed(rest_of(message), self._serde))


def place() -> str:
    """Where in the graph this code runs: the task's node and a digest of its namespace, and the call it is part of."""
    config = var_child_runnable_config.get() or {}
    ns = str(config.get("configurable", {}).get("checkpoint_ns") or "")
    node = str(config.get("metadata", {}).get("langgraph_node") or "")
    call = _inside()
    where = f"@{node}.{short_hash(ns)[:10]}" if ns else ""
    return where if call is None else f"{where}/{call}"


def text_of_value(value: Any) -> tuple[str, str]:
    """What a log shows of what a tool returned, and LangChain's word for how it went."""
    if isinstance(value, ToolMessage):
        return str(value.text), value.status
    if isinstance(value, str):
        return value, "success"
    update = getattr(value, "update", None)
    if isinstance(update, dict):
        for message in reversed(update.get("messages") or []):
            if isinstance(message, ToolMessage):
                return str(message.text), message.status
    return str(value), "success"


def is_plain(value: Any, name: str, text: str) -> bool:
    """Whether the text is all there is to know."""
    if isinstance(value, ToolMessage):
        plain = ToolMessage(text, tool_call_id=value.tool_call_id, name=name, status=value.status)
        return plain == value
    return isinstance(value, str)


def _inside() -> str | None:
    try:
        return current_call().id
    except DalsegnoError:
        return None


def _plain(given: Any) -> JsonObject:
    """Arguments as a log can hold them: what LangGraph injects (state, stores) stays out."""
    if not isinstance(given, dict):
        return {"input": str(given)}
    plain = {name: value for name, value in given.items() if value is None or isinstance(value, PLAIN)}
    return cast(JsonObject, msgspec.json.decode(msgspec.json.encode(plain, enc_hook=str)))
