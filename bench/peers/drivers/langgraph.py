"""LangGraph: a compiled graph of a model node and a `ToolNode`, with `AsyncPostgresSaver` on a pool of connections.

Options: `durability` as `ainvoke` takes it; `channel=delta` keeps the messages in the beta `DeltaChannel`.
"""

import uuid
from importlib.metadata import version
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import _messages_delta_reducer
from langgraph.prebuilt import ToolNode, tools_condition
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from typing_extensions import TypedDict

from bench.content import mark_of
from bench.peers.serve import SPEAKING, Shop, answer, message, order, serve

CONNECTIONS = 8
LETTERS = {"human": "u", "tool": "r"}


class DeltaState(TypedDict):
    """The messages, as what was added to them."""

    messages: Annotated[list[AnyMessage], DeltaChannel(_messages_delta_reducer)]


class LangGraph:
    """A `Peer`."""

    async def open(self, url: str, *, name: str, options: dict[str, str], shop: Shop) -> dict[str, str]:
        """Pool, tables, graph."""

        @tool
        async def look_up(order: str, call: Annotated[str, InjectedToolCallId]) -> str:
            """What a shop knows of an order."""
            return shop.look_up(order, call)

        settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        self._pool = AsyncConnectionPool(url, min_size=CONNECTIONS, max_size=CONNECTIONS, kwargs=settings, open=False)
        await self._pool.open(wait=True)
        saver = AsyncPostgresSaver(self._pool)
        await saver.setup()
        builder = StateGraph(DeltaState if options.get("channel") == "delta" else MessagesState)
        builder.add_node("model", _model)
        builder.add_node("tools", ToolNode([look_up]))
        builder.add_edge(START, "model")
        builder.add_conditional_edges("model", tools_condition)
        builder.add_edge("tools", "model")
        self._graph = builder.compile(checkpointer=saver)
        self._durability: Any = options.get("durability", "async")
        return {name: version(name) for name in ("langgraph", "langgraph-checkpoint-postgres")}

    async def turn(self, session: str, mark: str) -> str:
        """`ainvoke` with the message."""
        said = {"messages": [HumanMessage(message(mark), id=str(uuid.uuid4()))]}
        state = await self._graph.ainvoke(said, _thread(session), durability=self._durability)
        return str(state["messages"][-1].content)

    async def burst(self, session: str, mark: str) -> str:
        """The library offers nothing more."""
        return await self.turn(session, mark)

    async def history(self, session: str) -> list[tuple[str, str]]:
        """The messages of the latest state."""
        state = await self._graph.aget_state(_thread(session))
        return [_entry(one) for one in state.values.get("messages", [])]

    async def go_on(self, session: str, mark: str) -> str:
        """`ainvoke(None)` where a node is pending or at least the input is there; else the message, sent again."""
        if mark in {found for _, found in await self.history(session)}:
            await self._graph.ainvoke(None, _thread(session), durability=self._durability)
            return "`ainvoke(None, config)`"
        state = await self._graph.aget_state(_thread(session))
        if state.next:
            SPEAKING.set(mark)
            await self._graph.ainvoke(None, _thread(session), durability=self._durability)
            return "`ainvoke(None, config)`"
        SPEAKING.set(mark)
        await self.turn(session, mark)
        return "the message, sent again"

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()


async def _model(state: dict[str, Any]) -> dict[str, Any]:
    said = state["messages"]
    mark = SPEAKING.get() or next(mark_of(one.content) for one in reversed(said) if one.type == "human")
    identity = str(uuid.uuid4())
    if said[-1].type == "tool":
        return {"messages": [AIMessage(answer(mark), id=identity)]}
    call = ToolCall(name="look_up", args={"order": order(mark)}, id=f"call_{uuid.uuid4().hex[:24]}")
    return {"messages": [AIMessage("", id=identity, tool_calls=[call])]}


def _thread(session: str) -> Any:
    return {"configurable": {"thread_id": session}}


def _entry(one: AnyMessage) -> tuple[str, str]:
    if isinstance(one, AIMessage) and one.tool_calls:
        return "c", mark_of(one.tool_calls[0]["args"]["order"])
    return LETTERS.get(one.type, "a"), mark_of(one.content)


if __name__ == "__main__":
    serve(LangGraph)
