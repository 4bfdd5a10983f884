"""Who is compared, with which settings, and what each of them does in a turn. The page says these words."""

from typing import Literal

import msgspec

Store = Literal["postgres", "sqlite", "redis"]


class Entry(msgspec.Struct, frozen=True):
    """One row. `driver` is a module of `bench.peers.drivers`; with `requirements` it runs in an environment of its own.

    `crash` are the options that it is given for the crash, where they differ: the tool's class of effect, or what a
    peer offers for going on. `named`: which process goes on depends on its name.
    """

    name: str
    driver: str
    store: Store
    does: str
    requirements: str | None = None
    options: dict[str, str] = {}
    crash: dict[str, str] | None = None
    named: bool = False


OURS = Entry(
    "Dalsegno, PostgreSQL",
    "ours",
    "postgres",
    "as `--warm postgresql://…` without other options: the log and the hot tier in PostgreSQL, four commits a turn, "
    "the answer read from the turn's stream. The context's limit is lifted, since the others have none. "
    "Crash: the tool is of class `once`, and the model is told that nobody knows whether it happened",
    options={"effect": "keyed"},
    crash={"effect": "once"},
)
LANGGRAPH = Entry(
    "LangGraph, PostgreSQL",
    "langgraph",
    "postgres",
    "a compiled graph, `ToolNode`, `AsyncPostgresSaver` on a pool of 8; `durability` as it is by default, `async`. "
    "Crash: `sync`",
    "langgraph",
    crash={"durability": "sync"},
)
RAW = Entry(
    "raw PostgreSQL",
    "raw_postgres",
    "postgres",
    "the limit: four `INSERT`s, four commits, on 8 connections; what was said stays in the process, "
    "and there is no agent loop",
)
ROSTER = (
    OURS,
    Entry(
        "Dalsegno, SQLite",
        "ours",
        "sqlite",
        "as `dalsegno serve` without options: one file, `synchronous=FULL`; the rest as above. "
        "Crash: the tool is of class `keyed`, and is sent again under the same key",
        options={"effect": "keyed"},
        crash={"effect": "keyed"},
    ),
    RAW,
    Entry(
        "raw Redis",
        "raw_redis",
        "redis",
        "the limit: four `RPUSH`es, `appendfsync always`; what was said stays in the process, "
        "and there is no agent loop",
    ),
    LANGGRAPH,
    Entry(
        "LangGraph, `exit`",
        "langgraph",
        "postgres",
        'the same with `durability="exit"`: one checkpoint, when the turn is over',
        "langgraph",
        {"durability": "exit"},
    ),
    Entry(
        "LangGraph, `DeltaChannel`",
        "langgraph",
        "postgres",
        "the same as the first, with the messages in the `DeltaChannel`, which is in beta",
        "langgraph",
        {"channel": "delta"},
        {"channel": "delta", "durability": "sync"},
    ),
    Entry(
        "OpenAI Agents SDK",
        "openai_agents",
        "postgres",
        "`Runner.run` with a `SQLAlchemySession` on PostgreSQL, one engine with a pool of 8, no tracing",
        "openai_agents",
    ),
    Entry(
        "DBOS",
        "dbos",
        "postgres",
        "a workflow of three steps, then one transaction of its datasource that puts the four messages in our table. "
        "Two writers: a queue with one partition a session, `partition_concurrency=1`, looked at every 0.1 s",
        "dbos",
        named=True,
    ),
    Entry(
        "Google ADK",
        "adk",
        "postgres",
        "a `Runner` with a `DatabaseSessionService` on PostgreSQL, a pool of 8. Crash: a resumable app",
        "adk",
        crash={"resumable": "yes"},
    ),
)
QUICK = tuple(entry for entry in ROSTER if entry.requirements is None and entry.store != "redis")
"""Those that need no environment of their own."""
