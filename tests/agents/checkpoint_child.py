"""A process that runs a graph on a thread of a store, and stops in the middle of the run until it is told to go on.

    python -m tests.agents.checkpoint_child URL THREAD TEXT

Says `read` once the run has been shown the thread, waits for a line, goes on, and says what became of it.
"""

import asyncio
import operator
import sys
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph

from dalsegno import open_store
from dalsegno.agents.langgraph import Saver
from dalsegno.errors import Conflict


class Said(TypedDict):
    texts: Annotated[list[str], operator.add]


def graph_of(saver: Any, pause: Any) -> Any:
    """A graph of two nodes: one that pauses, and one that says something."""

    async def think(state: Said) -> Any:
        await pause()
        return {"texts": ["thought"]}

    async def say(state: Said) -> Any:
        return {"texts": ["said"]}

    graph = StateGraph(Said).add_node("think", think).add_node("say", say)
    return graph.add_edge(START, "think").add_edge("think", "say").compile(checkpointer=saver)


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def main(url: str, thread: str, text: str) -> None:
    async def pause() -> None:
        say("read")
        await asyncio.to_thread(sys.stdin.readline)

    async with open_store(url) as store:
        try:
            graph, config = graph_of(Saver(store), pause), {"configurable": {"thread_id": thread}}
            # written at the end only, so that neither is shown a part of the other's run
            await graph.ainvoke({"texts": [text]}, config, durability="exit")
            say("done")
        except Conflict as conflict:
            say(conflict.code)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
