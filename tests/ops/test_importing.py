"""Conversations of other frameworks become sessions: everything that was there, once, and what is new the next time."""

import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from agents import SQLiteSession
from agents.extensions.memory import SQLAlchemySession
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import create_async_engine

from dalsegno import open_store
from dalsegno.agents.langgraph import Saver, adapt
from dalsegno.agents.langgraph.messages import messages
from dalsegno.agents.openai_agents.session import DalsegnoSession
from dalsegno.core.item import text_of
from dalsegno.errors import Unavailable
from dalsegno.ops.cli import run as command
from dalsegno.ops.foreign import langgraph_postgres, langgraph_sqlite, openai_agents, openai_agents_postgres
from dalsegno.ops.importing import Source, Told, bring_over
from dalsegno.ports import Ref
from dalsegno.runtime.store import Shelves, Store
from dalsegno.testing.world.provider import refused_by_providers
from tests.runtime.fleet import TENANT, fleet

SERDE = JsonPlusSerializer()
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
WRONG: Any = {"name": "look", "args": "{", "id": "c3", "error": "no JSON", "type": "invalid_tool_call"}
LONG = "𝄋 ä\n" * 20_000


class State(MessagesState):
    place: str
    seen: object


SAID: list[BaseMessage] = [
    SystemMessage("be kind", id="s1"),
    HumanMessage("hello", id="h1"),
    AIMessage("hi", id="a1", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
    HumanMessage([{"type": "text", "text": LONG}, PICTURE], id="h2", name="anna"),
    AIMessage(
        [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "let me see"}],
        id="a2",
        tool_calls=[{"name": "look", "args": {"n": number}, "id": f"c{number}"} for number in (1, 2)],
        response_metadata={"finish_reason": "tool_calls"},
    ),
    ToolMessage("one", tool_call_id="c1", name="look", id="t1"),
    ToolMessage("no", tool_call_id="c2", name="look", id="t2", status="error", artifact={"raw": [1]}),
    AIMessage("", id="a3"),
    AIMessage(
        "",
        id="a4",
        invalid_tool_calls=[{"name": "look", "args": "{", "id": "c3", "error": "no JSON", "type": "invalid_tool_call"}],
    ),
    ToolMessage("bad arguments", tool_call_id="c3", name="look", id="t3"),
]
MORE: list[BaseMessage] = [HumanMessage("again", id="h3"), AIMessage("once more", id="a5")]


def run(saver: Any, thread: str, said: list[BaseMessage], *, place: str = "Bologna") -> None:
    """A graph that adds these messages to its state."""
    graph: Any = StateGraph(State).add_node("node", lambda state: {"place": place, "seen": {"x", "y"}})
    compiled = graph.add_edge(START, "node").compile(checkpointer=saver)
    compiled.invoke({"messages": said}, {"configurable": {"thread_id": thread}})


def asking(saver: Any) -> Any:
    """A graph that asks a human, and says what they said."""

    def node(state: Any) -> Any:
        return {"messages": [AIMessage(interrupt("sure?"), id="a1")]}

    graph: Any = StateGraph(State).add_node("node", node)
    return graph.add_edge(START, "node").compile(checkpointer=saver)


async def imported(source: Source, store: Store) -> list[Told]:
    told: list[Told] = []
    await bring_over(source, store, told=told.append)
    return told


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_store("memory:") as store:
        yield store


class LangGraphCases:
    """What holds of LangGraph's checkpoints, whichever saver keeps them: `saver` writes, `opened` reads."""

    async def test_every_thread_is_a_session(self, store: Store, saver: Any, opened: Any):
        """The messages come back as they were, and a model can be shown them; the state is kept beside."""
        run(saver, "1", SAID)
        run(saver, "anna/2", MORE)
        with opened() as source:
            told = await imported(source, store)
        assert [(one.name, one.what, one.wrong) for one in told] == [("1", "imported", ()), ("anna/2", "imported", ())]
        items = (await store.load("1")).items
        assert messages(items, SERDE) == SAID
        assert refused_by_providers([{"id": number, **item} for number, item in enumerate(items)]) is None
        state: list[Any] = [one.item for one in (await store.read("1")).records if one.item["type"] == "dalsegno:step"]
        assert [(one["name"], one["output"]["place"]) for one in state] == [("import.state", "Bologna")]

    async def test_again_only_what_is_new(self, store: Store, saver: Any, opened: Any):
        """While the other store is still in use; once a session has gone on here, what is there is not added to it."""
        run(saver, "1", SAID)
        with opened() as source:
            first = await imported(source, store)
            assert [(one.what, one.added) for one in await imported(source, store)] == [("there", 0)]
        version = (await store.load("1")).version
        run(saver, "1", MORE, place="Modena")
        with opened() as source:
            assert [(one.what, one.added) for one in await imported(source, store)] == [("imported", 3)]
            assert messages((await store.load("1")).items, SERDE) == SAID + MORE
            assert first[0].items == 12 and (await store.load("1")).version == version + 4  # one is the checkpoint
            mine: Any = {"type": "dalsegno:step", "name": "mine", "output": 1}
            await store.append("1", [mine, {"role": "user", "content": "here"}])
            assert [one.what for one in await imported(source, store)] == ["there"]
        run(saver, "1", MORE[:1])
        run(saver, "1", [HumanMessage("there", id="h9")])
        with opened() as source:
            (one,) = await imported(source, store)
        assert one.what == "failed" and "goes on otherwise" in one.wrong[0]

    async def test_the_graph_goes_on_where_it_was(self, store: Store, saver: Any, opened: Any):
        """With a checkpointer over our store: also at a question that it had asked a human."""
        theirs, anna = asking(saver), {"configurable": {"thread_id": "anna"}}
        theirs.invoke({"messages": [HumanMessage("hello", id="h1")]}, anna)
        with opened() as source:
            assert [(one.what, one.wrong) for one in await imported(source, store)] == [("imported", ())]
            ours = asking(Saver(store))
            assert [one.value for one in (await ours.aget_state(anna)).interrupts] == ["sure?"]
            state = await ours.ainvoke(Command(resume="yes"), anna)
            assert [message.text for message in state["messages"]] == ["hello", "yes"]
            await imported(source, store)
        assert len((await ours.aget_state(anna)).values["messages"]) == 2
        theirs.invoke(Command(resume="no"), anna)
        with opened() as source:
            (one,) = await imported(source, store)
        assert one.what == "failed" and "has gone on here" in one.wrong[0]
        assert [message.text for message in (await ours.aget_state(anna)).values["messages"]] == ["hello", "yes"]

    async def test_what_is_not_understood_is_said_and_kept(self, store: Store, saver: Any, opened: Any):
        """P9: nothing is dropped in silence; what is kept aside is shown to no model."""
        odd = FunctionMessage(content="x", name="f", id="f1")
        run(saver, "1", [HumanMessage("hello", id="h1"), odd, ToolMessage("?", tool_call_id="nobody", id="t1")])
        with opened() as source:
            (one,) = await imported(source, store)
            assert one.wrong == (
                "messages[1]: a FunctionMessage is like no item",
                "items[2]: it answers no call that waits",
            )
            assert [again.what for again in await imported(source, store)] == ["there"]
        assert messages((await store.load("1")).items, SERDE) == [HumanMessage("hello", id="h1")]
        records = [record.item for record in (await store.read("1")).records]
        assert [record.get("name") for record in records].count("import.not_understood") == 2


class TestLangGraphSqlite(LangGraphCases):
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "checkpoints.db"

    @pytest.fixture
    def saver(self, file: Path) -> Iterator[Any]:
        with SqliteSaver.from_conn_string(str(file)) as saver:
            yield saver

    @pytest.fixture
    def opened(self, file: Path) -> Any:
        return lambda: langgraph_sqlite.opened(f"sqlite:///{file}")

    async def test_the_other_store_is_only_read(self, store: Store, saver: Any, file: Path, opened: Any):
        """Byte for byte."""
        run(saver, "1", SAID)
        saver.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = hashlib.sha256(file.read_bytes()).digest()
        with opened() as source:
            await imported(source, store)
        assert hashlib.sha256(file.read_bytes()).digest() == before

    async def test_a_server_goes_on_with_it(self, saver: Any, opened: Any):
        """The same graph, served: it is shown every message once, in its order, and so are those who read."""
        shown: list[list[str]] = []

        def node(state: Any) -> Any:
            shown.append([message.text for message in state["messages"]])
            return {"messages": [AIMessage(f"{len(state['messages'])} so far")]}

        graph: Any = StateGraph(MessagesState).add_node("node", node).add_edge(START, "node")
        for text in ("one", "two"):
            graph.compile(checkpointer=saver).invoke({"messages": text}, {"configurable": {"thread_id": "anna"}})
        async with fleet(adapt(graph.compile(), name="default").run) as world:
            one = world.ones[0]
            store = Store(Shelves(one.shelf, one.hot, one.blobs, TENANT, "default"))
            with opened() as source:
                await imported(source, store)
            ref = Ref(TENANT, store.id_of("anna"))
            for text in ("three", "four"):
                assert (await world.ask(ref, text)).status == "completed"
            told = [text_of(item) for item in (await store.load("anna")).items]
            await store.close()
        assert shown[-1] == ["one", "1 so far", "two", "3 so far", "three", "5 so far", "four"]
        assert told == [*shown[-1], "7 so far"]

    async def test_it_may_be_interrupted(self, store: Store, saver: Any, opened: Any):
        """What was written stays, and the next time goes on behind it."""
        run(saver, "1", [HumanMessage(str(number), id=f"h{number}") for number in range(1200)])
        append, calls = store.append, []

        async def breaking(*args: Any, **kwargs: Any) -> int:
            calls.append(args)
            if len(calls) == 2:
                raise Unavailable("the store went away", outcome="not_applied")
            return await append(*args, **kwargs)

        store.append = breaking  # type: ignore[method-assign]
        with opened() as source:
            with pytest.raises(Unavailable):
                await imported(source, store)
            assert 0 < len((await store.load("1")).items) < 1200
            assert [one.what for one in await imported(source, store)] == ["imported"]
        assert len((await store.load("1")).items) == 1200


class TestLangGraphPostgres(LangGraphCases):
    @pytest.fixture
    def saver(self, database: str) -> Iterator[Any]:
        with psycopg.connect(database, autocommit=True, prepare_threshold=0, row_factory=dict_row) as connection:
            saver = PostgresSaver(connection)
            saver.setup()
            yield saver

    @pytest.fixture
    def opened(self, database: str) -> Any:
        return lambda: langgraph_postgres.opened(database)


ITEMS: list[Any] = [
    {"role": "user", "content": "hello"},
    {"role": "user", "content": [{"type": "input_text", "text": LONG}, {"type": "input_image", "image_url": "data:x"}]},
    {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "x"},
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "let me see", "annotations": [], "logprobs": []}],
    },
    {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}", "status": "completed"},
    {"type": "function_call_output", "call_id": "c1", "output": "one"},
    {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "segno"}},
    {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
]


async def test_a_sqlite_session_of_the_sdk(store: Store, tmp_path: Path):
    """The SDK's `Session` over our log gives back what its own had; again, only what is new."""
    file = tmp_path / "agents.db"
    theirs = SQLiteSession("anna", file)
    await theirs.add_items(ITEMS)
    with closing(SQLiteSession("ben", file)) as other:
        await other.add_items(ITEMS[:1])
    with openai_agents.opened(f"sqlite:///{file}") as source:
        assert [(one.name, one.what) for one in await imported(source, store)] == [
            *(("anna", "imported"), ("ben", "imported"))
        ]
        assert [one.what for one in await imported(source, store)] == ["there", "there"]
    ours = DalsegnoSession(store, "anna")
    assert await ours.get_items() == ITEMS
    await theirs.add_items([{"type": "function_call_output", "call_id": "c2", "output": "two"}])
    with openai_agents.opened(f"sqlite:///{file}") as source:
        assert [one.added for one in await imported(source, store)] == [1, 0]
    assert await ours.get_items() == await theirs.get_items()
    theirs.close()


async def test_a_sqlalchemy_session_of_the_sdk(store: Store, database: str):
    """In PostgreSQL."""
    engine = create_async_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    theirs = SQLAlchemySession("anna", engine=engine, create_tables=True)
    await theirs.add_items(ITEMS)
    with openai_agents_postgres.opened(database) as source:
        assert [one.what for one in await imported(source, store)] == ["imported"]
    assert await DalsegnoSession(store, "anna").get_items() == ITEMS
    await engine.dispose()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Says what it did, and with 1 that something was not understood."""
    source, warm = f"sqlite:///{tmp_path}/theirs.db", f"sqlite:///{tmp_path}/ours.db"
    with SqliteSaver.from_conn_string(str(tmp_path / "theirs.db")) as saver:
        run(saver, "1", MORE)
        run(saver, "2", [FunctionMessage(content="x", name="f", id="f1")])
    assert command(["sessions", "import", "--from", "langgraph", source, "--warm", warm]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("sessions: 2 imported (5 items), 0 here already, 0 failed; not understood: 1,")
    assert told.err == "2: messages[0]: a FunctionMessage is like no item\n"
    assert command(["sessions", "--warm", warm, "import", "--from", "langgraph", source, "--json"]) == 1
    assert [(one["name"], one["what"]) for one in map(json.loads, capsys.readouterr().out.splitlines())] == [
        *(("1", "there"), ("2", "there"))
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["langgraph", "sqlite:///empty.db"], "--warm"),
        (
            ["langgraph", "sqlite:///empty.db", "--warm", "sqlite:///ours.db"],
            "cannot be read as LangGraph's",
        ),
        (
            ["openai-agents", "sqlite:///empty.db", "--warm", "sqlite:///ours.db"],
            "has no sessions of the OpenAI",
        ),
        (["langgraph", "sqlite:///nowhere.db", "--warm", "sqlite:///ours.db"], "there is no file nowhere.db"),
        (["langgraph", "redis://x", "--warm", "sqlite:///ours.db"], "is read from sqlite:///file.db or postgresql"),
    ],
)
def test_a_place_without_such_a_store(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Is named, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    sqlite3.connect("empty.db").close()
    assert command(["sessions", "import", "--from", *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "nowhere.db").exists()
