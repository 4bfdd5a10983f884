"""LangGraph's checkpoints in sessions of a store."""

import asyncio
import json
import random
import sys
import uuid
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from dalsegno import open_store
from dalsegno.agents.langgraph import Saver
from dalsegno.agents.langgraph.record import is_page
from dalsegno.errors import Conflict, DalsegnoError
from tests.agents.checkpoint_child import Said, graph_of


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


async def conformance(url: str) -> Any:
    @checkpointer_test(name="dalsegno")
    async def make() -> AsyncIterator[Saver]:
        async with open_store(url) as store:
            yield Saver(store)

    return await validate(make)


async def check(url: str) -> None:
    report = await conformance(url)
    assert set(report.results) == {capability.value for capability in Capability}
    assert {name: result.failures for name, result in report.results.items() if not result.passed} == {}


async def test_every_capability_of_langgraph_s_conformance_suite(url: str):
    """`langgraph-checkpoint-conformance`, all that it knows, on SQLite."""
    await check(url)


async def test_the_same_on_postgresql(database: str):
    """And on PostgreSQL."""
    await check(database)


async def nothing() -> None:
    return None


async def test_two_writers_in_two_processes(url: str):
    """Both were shown the same thread; the one that writes last is told, and the first one's work is all there."""
    thread = str(uuid.uuid4())
    async with open_store(url) as store:
        await graph_of(Saver(store), nothing).ainvoke({"texts": ["begin"]}, {"configurable": {"thread_id": thread}})
    writers = []
    for text in ("first", "second"):
        command = (sys.executable, "-m", "tests.agents.checkpoint_child", url, thread, text)
        writers.append(await create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE))
    said = []
    for writer in writers:
        assert writer.stdin is not None and writer.stdout is not None
        said.append((await asyncio.wait_for(writer.stdout.readline(), 30)).decode().strip())
    assert said == ["read", "read"]
    ends = []
    for writer in writers:
        out, _ = await asyncio.wait_for(writer.communicate(b"\n"), 30)
        ends.append(out.decode().strip())
    async with open_store(url) as store:
        state = await graph_of(Saver(store), nothing).aget_state({"configurable": {"thread_id": thread}})
    won = [text for text in ("first", "second") if text in state.values["texts"]]
    assert len(won) == 1, "one of the two has it, whole"
    assert state.values["texts"] == ["begin", "thought", "said", won[0], "thought", "said"]
    assert sorted(ends) == ["done", "version_mismatch"]


@pytest.mark.parametrize("durability", ["async", "sync", "exit"])
async def test_two_runs_in_one_process(url: str, durability: Any):
    """The same checkpointer, the same thread, at once: one succeeds each time, all others are told."""
    async with open_store(url) as store:
        graph = graph_of(Saver(store), lambda: asyncio.sleep(0.02))
        config: Any = {"configurable": {"thread_id": "customer 7"}}
        for count in (1, 2):
            runs = (graph.ainvoke({"texts": [str(n)]}, config, durability=durability) for n in range(5))
            ends = await asyncio.gather(*runs, return_exceptions=True)
            assert sum(isinstance(end, Conflict) for end in ends) == 4, ends
            state = await graph.aget_state(config)
            assert len(state.values["texts"]) == 3 * count
            assert state.values["texts"][-2:] == ["thought", "said"]


async def test_history_and_forks(url: str):
    """Time travel, `update_state` and a fork are no conflicts; every checkpoint of the past is as it was."""
    config: Any = {"configurable": {"thread_id": "t"}}
    async with open_store(url) as store:
        graph = graph_of(Saver(store), nothing)
        for n in range(3):
            await graph.ainvoke({"texts": [str(n)]}, config)
        await graph.aupdate_state(config, {"texts": ["by hand"]})
    async with open_store(url) as store:
        graph = graph_of(Saver(store), nothing)
        past = [state async for state in graph.aget_state_history(config)]
        assert [state.values["texts"][-1] for state in past if not state.next] == ["by hand", "said", "said", "said"]
        old = next(state for state in past if state.next == ("say",) and len(state.values["texts"]) == 5)
        again = await graph.ainvoke(None, old.config)
        assert again["texts"] == ["0", "thought", "said", "1", "thought", "said"]
        state = await graph.aget_state(config)
        assert state.values == again, "the fork is the newest now"
        assert (await graph.ainvoke({"texts": ["3"]}, config))["texts"][-4:] == ["said", "3", "thought", "said"]


async def test_sync_graphs_in_other_threads(url: str):
    """`graph.invoke` works beside the loop that the checkpointer was made in, and says why it does not in it."""

    def say(state: Said) -> Any:
        return {"texts": ["said"]}

    config: Any = {"configurable": {"thread_id": "t"}}
    async with open_store(url) as store:
        graph: Any = StateGraph(Said).add_node("say", say).add_edge(START, "say").compile(checkpointer=Saver(store))
        await asyncio.to_thread(graph.invoke, {"texts": ["hi"]}, config)
        found = await asyncio.to_thread(graph.get_state, config)
        assert found.values == {"texts": ["hi", "said"]}
        with pytest.raises(DalsegnoError, match="ainvoke"):
            graph.invoke({"texts": ["hi"]}, config)


async def test_an_interrupt_outlives_the_process(url: str):
    """What a graph waits for is on record; another process resumes it."""

    async def ask(state: Said) -> Any:
        return {"texts": [str(interrupt("who?"))]}

    config: Any = {"configurable": {"thread_id": "t"}}
    builder: Any = StateGraph(Said).add_node("ask", ask).add_edge(START, "ask")
    async with open_store(url) as store:
        await builder.compile(checkpointer=Saver(store)).ainvoke({"texts": ["hi"]}, config)
    async with open_store(url) as store:
        graph = builder.compile(checkpointer=Saver(store))
        assert [found.value for found in (await graph.aget_state(config)).interrupts] == ["who?"]
        assert await graph.ainvoke(Command(resume="Ada"), config) == {"texts": ["hi", "Ada"]}


async def test_delta_channels(url: str):
    """LangGraph's own channel that is rebuilt from writes is."""

    def extend(values: list[str], writes: list[Any]) -> list[str]:
        return [*values, *(text for write in writes for text in write)]

    class State(TypedDict):
        texts: Annotated[list[str], DeltaChannel(extend)]

    config: Any = {"configurable": {"thread_id": "t"}}
    builder: Any = StateGraph(State).add_node("say", lambda state: {"texts": ["said"]}).add_edge(START, "say")
    found: Any = None
    for n in range(4):
        async with open_store(url) as store:
            graph = builder.compile(checkpointer=Saver(store))
            found = await graph.ainvoke({"texts": [str(n)]}, config)
    assert found["texts"] == ["0", "said", "1", "said", "2", "said", "3", "said"]


async def test_a_deleted_thread_begins_anew(url: str):
    """Its session is gone for good, and its name is not."""
    config: Any = {"configurable": {"thread_id": "t"}}
    async with open_store(url) as store:
        saver = Saver(store)
        graph = graph_of(saver, nothing)
        for n in range(3):
            await graph.ainvoke({"texts": [str(n)]}, config)
            await saver.adelete_thread("t")
            assert await saver.aget_tuple(config) is None
        with pytest.raises(Exception, match="deleted"):
            await store.read("t")
    async with open_store(url) as store:
        graph = graph_of(Saver(store), nothing)
        assert (await graph.ainvoke({"texts": ["new"]}, config))["texts"] == ["new", "thought", "said"]


async def test_a_run_does_not_bring_a_deleted_thread_back(url: str):
    """It is told that the session is gone."""
    config: Any = {"configurable": {"thread_id": "t"}}
    async with open_store(url) as store, open_store(url) as other:
        graph = graph_of(Saver(store), lambda: Saver(other).adelete_thread("t"))
        with pytest.raises(Exception, match="no such session"):
            await graph.ainvoke({"texts": ["hi"]}, config, durability="sync")
        assert await Saver(other).aget_tuple(config) is None


def words(count: int, chance: random.Random) -> str:
    return "".join(chance.choice(["lorem", "ipsum", "dolor", "sit", str(chance.random())]) + " " for _ in range(count))[
        :count
    ]


def workload(saver: Any) -> Any:
    """The turn that peers were measured with: 200 B, a call, 2,048 B, 600 B."""
    chance = random.Random(7)

    def agent(state: MessagesState) -> Any:
        if isinstance(state["messages"][-1], HumanMessage):
            call = {"name": "look", "args": {"at": "it"}, "id": f"call_{chance.random()}"}
            return {"messages": [AIMessage("", tool_calls=[call])]}
        return {"messages": [AIMessage(words(600, chance))]}

    def tools(state: MessagesState) -> Any:
        call: Any = state["messages"][-1]
        return {"messages": [ToolMessage(words(2048, chance), tool_call_id=call.tool_calls[0]["id"])]}

    graph: Any = StateGraph(MessagesState).add_node("agent", agent).add_node("tools", tools)
    graph.add_edge(START, "agent").add_edge("tools", "agent")
    graph.add_conditional_edges(
        "agent", lambda state: "tools" if getattr(state["messages"][-1], "tool_calls", None) else END
    )
    return graph.compile(checkpointer=saver), lambda: words(200, chance)


async def test_what_is_stored_does_not_grow_with_history(url: str):
    """A turn costs what it says, and at most twice that, whether it is the second or the sixtieth."""
    config: Any = {"configurable": {"thread_id": "t"}}
    async with open_store(url) as store:
        graph, ask = workload(Saver(store))
        sizes = [0]
        for _ in range(60):
            await graph.ainvoke({"messages": [HumanMessage(ask())]}, config)
            found = await store.read("t", after=0, limit=10_000)
            sizes.append(sum(len(json.dumps(record.item)) for record in found.records))
        turns = [after - before for before, after in pairwise(sizes)]
        assert sum(turns[-10:]) < 1.2 * sum(turns[5:15])
        assert sizes[-1] < 2 * 60 * 2850


async def test_opening_the_newest_checkpoint_reads_what_it_holds(url: str):
    """State that is replaced again and again is repeated once in a while: nobody has to read all of its past."""

    class State(TypedDict):
        page: str

    chance = random.Random(1)
    config: Any = {"configurable": {"thread_id": "t"}}
    builder: Any = StateGraph(State).add_node("turn", lambda state: {"page": words(3000, chance)})
    builder.add_edge(START, "turn")
    last: Any = None
    async with open_store(url) as store:
        graph = builder.compile(checkpointer=Saver(store))
        for _ in range(80):
            last = await graph.ainvoke({"page": "next"}, config)
        records = (await store.read("t", after=0, limit=10_000)).records
        assert all(is_page(record.item) for record in records)
        read = list[int]()
        counted = Counting(store, read)
        saver = Saver(counted)
        found = await saver.aget_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"]["page"] == last["page"]
        assert sum(read) < len(records) / 2
        assert len([state async for state in saver.alist(config)]) == 240, "the past is all there for who asks"


class Counting:
    """A store that counts the events that are read."""

    def __init__(self, store: Any, read: list[int]) -> None:
        self._store = store
        self._read = read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read(self, session: str, *, after: int = 0, limit: int = 1000) -> Any:
        found = await self._store.read(session, after=after, limit=limit)
        self._read.append(found.last - after)
        return found
