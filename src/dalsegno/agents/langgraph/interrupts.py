"""A graph that waits for somebody: its interrupts become actions of the turn, and what is answered resumes it.

An action's name follows from the interrupt and from how much was answered before it, so that it is asked for once, and
the answer is found again after a crash.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from langgraph.pregel import Pregel
from langgraph.types import Interrupt, StateSnapshot

from dalsegno.agents.langgraph.tools import nobody
from dalsegno.agents.turn import Turn
from dalsegno.core.ids import short_hash
from dalsegno.core.json import Json, JsonObject
from dalsegno.core.part import Part, ToolCall
from dalsegno.ports import Call, Tool

INTERRUPT = "interrupt"
APPROVED = "approved"


async def answers(turn: Turn, state: StateSnapshot, *, answered: int) -> dict[str, Any]:
    """What somebody answered, by the interrupt's id; parks until all is answered. `answered` counts what was before."""
    calls = [
        await _recorded(turn, APPROVAL if _requests(found.value) else OUTSIDE, (found.id, str(answered)), found.value)
        for found in state.interrupts
    ]
    await turn.perform(calls, tools=[OUTSIDE, APPROVAL])
    outputs = [turn.answered(str(call["call_id"])) or {} for call in calls]
    return {found.id: _value(found, output) for found, output in zip(state.interrupts, outputs, strict=True)}


def is_stopped(graph: Pregel[Any, Any, Any, Any], state: StateSnapshot) -> bool:
    """Whether the graph was compiled to stop here (`interrupt_before`, `interrupt_after`).

    After a crash nobody knows which nodes had run last: a graph that stops after any is taken to stop.
    """
    before = graph.interrupt_before_nodes
    return before == "*" or not set(before).isdisjoint(state.next) or bool(graph.interrupt_after_nodes)


async def approved(turn: Turn, state: StateSnapshot) -> bool:
    """Whether the graph may go on from where it was compiled to stop; parks until somebody decides."""
    checkpoint = str(state.config["configurable"].get("checkpoint_id"))
    call = await _recorded(turn, APPROVAL, ("stop", checkpoint), {"next": list(state.next)})
    return await turn.perform([call], tools=[APPROVAL]) == [APPROVED]


async def _recorded(turn: Turn, tool: Tool, name: Sequence[str], value: Any) -> JsonObject:
    """The call that somebody is to decide: on record, and no part of the conversation."""
    call_id = f"{INTERRUPT}_{short_hash(turn.id, *name)}"
    shown = msgspec.json.decode(msgspec.json.encode(value, enc_hook=str))

    async def ask() -> list[Part]:
        return [ToolCall(tool.name, {"value": shown}, call_id)]

    reply = await turn.generate(lambda context: ask(), tools=[tool], name=f"interrupt:{call_id}", inside=call_id)
    return reply.calls[0]


def _value(interrupt: Interrupt, output: JsonObject) -> Any:
    """What `interrupt()` returns: JSON if it is, or else the text; for tool calls to review, the middleware's own
    words.
    """
    text = str(output.get("output", ""))
    requests = _requests(interrupt.value)
    if requests:
        if output.get("status") == "completed" and text == APPROVED:
            return {"decisions": [{"type": "approve"} for _ in requests]}
        if output.get("status") == "incomplete":
            return {"decisions": [{"type": "reject", "message": text} for _ in requests]}
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return text


def _requests(value: Any) -> list[Any]:
    """The tool calls that LangChain's human-in-the-loop middleware asks about."""
    found = value.get("action_requests") if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


async def _approved(call: Call) -> Json:
    return APPROVED


OUTSIDE = Tool(INTERRUPT, nobody, gate="outside")
APPROVAL = Tool("review", _approved, effect="read", gate="approval")
