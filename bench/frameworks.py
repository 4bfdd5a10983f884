"""What we add to a framework's own turn: the same agent by itself and in a replica on PostgreSQL, before the same
scripted model, turn by turn in turns; against the commits of a turn, made raw where a turn has to make them.

Both ask the real client of the provider over real HTTP and stream to somebody, word for word: a framework by itself
through its own stream. The raw commits are made in a third turn of the framework by itself: with its message, around
its tool, at its end, and only they are timed. A server that has slept while a model spoke has to be woken, which those
that follow each other at once do not show: what these take is said beside it. A framework takes part with one function.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from bench.content import ANSWER_BYTES, MESSAGE_BYTES, RESULT_BYTES, text
from bench.postgres import Write, raw, raw_turns
from bench.raw import COMMITS, median_ms
from bench.report import Figure
from bench.workload import bench, run
from dalsegno.testing.model import Shown, ToolCall, by_round
from dalsegno.testing.model.server import environment
from dalsegno.testing.servers import postgres
from dalsegno.testing.servers.postgres import Postgres

TURNS = int(os.environ.get("BENCH_FRAMEWORK_TURNS", "300"))
WARM = 20
MODEL = "gpt-5"
_around_tool: ContextVar[Callable[[], Awaitable[None]] | None] = ContextVar("around_tool", default=None)


class Sides(NamedTuple):
    """One agent: a turn of it by itself, and what a replica runs."""

    alone: Callable[[str], Awaitable[Any]]
    served: Callable[[Any], Awaitable[None]]


async def looked_up() -> str:
    """What the tool does: nothing, but for the commits around it."""
    commit = _around_tool.get()
    if commit is not None:
        await commit()
        await commit()
    return text(RESULT_BYTES)


def pydantic_ai() -> Sides:
    """One tool that is `keyed`, as the bench of plain turns has it."""
    from pydantic_ai import Agent

    from dalsegno.agents.pydantic_ai import PydanticAgent

    agent = Agent(f"openai-chat:{MODEL}", instructions="Be brief.")

    @agent.tool_plain(metadata={"dalsegno": {"effect": "keyed"}})
    async def look_up(order: str) -> str:
        """What a shop knows of an order."""
        return await looked_up()

    async def listen(_: Any, events: Any) -> None:
        async for _event in events:
            pass

    async def alone(said: str) -> None:
        await agent.run(said, event_stream_handler=listen)

    return Sides(alone, PydanticAgent(agent).run)


def openai_agents() -> Sides:
    """The same on the OpenAI Agents SDK."""
    from agents import Agent, OpenAIChatCompletionsModel, RunConfig, Runner, function_tool
    from openai import AsyncOpenAI

    from dalsegno import tool
    from dalsegno.agents.openai_agents import OpenAIAgent

    @function_tool
    @tool("keyed")
    async def look_up(order: str) -> str:
        """What a shop knows of an order."""
        return await looked_up()

    model = OpenAIChatCompletionsModel(MODEL, AsyncOpenAI())
    agent = Agent("Bench", instructions="Be brief.", tools=[look_up], model=model)

    async def alone(said: str) -> None:
        streamed = Runner.run_streamed(agent, said, run_config=RunConfig(tracing_disabled=True))
        async for _event in streamed.stream_events():
            pass

    return Sides(alone, OpenAIAgent(agent).run)


def langgraph() -> Sides:
    """The same on LangGraph, by itself without a checkpointer."""
    from langchain.agents import create_agent
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    import dalsegno
    from dalsegno.agents.langgraph import LangGraphAgent

    @tool
    @dalsegno.tool("keyed")
    async def look_up(order: str) -> str:
        """What a shop knows of an order."""
        return await looked_up()

    graph = create_agent(ChatOpenAI(model=MODEL, streaming=True), [look_up], system_prompt="Be brief.")

    async def alone(said: str) -> None:
        async for _token in graph.astream({"messages": said}, stream_mode="messages"):
            pass

    return Sides(alone, LangGraphAgent(graph).run)


FRAMEWORKS: dict[str, Callable[[], Sides]] = {
    "Pydantic AI": pydantic_ai,
    "OpenAI Agents SDK": openai_agents,
    "LangGraph": langgraph,
}


def script(shown: Shown) -> Any:
    """Calls the tool, then answers."""
    return by_round(ToolCall("look_up", {"order": "A7"}), "word " * (ANSWER_BYTES // 5))(shown)


def measure() -> list[Figure]:
    """All figures of this file."""
    with postgres.running() as server:
        return run(_all(server))


async def _all(server: Postgres) -> list[Figure]:
    async with _model() as url:
        os.environ.update(environment(url))
        return [await _one(name, build(), server) for name, build in FRAMEWORKS.items()]


async def _one(name: str, sides: Sides, server: Postgres) -> Figure:
    alone, ours, commits, at_once = list[float](), list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        async with (
            bench(Path(folder), warm_url=server.database(), hot_url="memory:", runs=sides.served) as world,
            raw(server.database(), connections=1, sessions=2 * TURNS) as (write, sessions),
        ):
            for session, another in zip(sessions[::2], sessions[1::2], strict=True):
                ref = await world.session()
                alone.append(await _timed(sides.alone(text(MESSAGE_BYTES))))
                ours.append(await _timed(world.turn(ref)))
                commits.append(await _committed(sides, write, session))
                at_once += await raw_turns(write, another, 1)
                await world.check_end(ref)
    by_itself, served, durable, hot = (median_ms(seconds[WARM:]) for seconds in (alone, ours, commits, at_once))
    print(
        f"{name}: {by_itself:.2f} ms by itself, {served:.2f} ms served, {durable:.2f} ms of raw commits"
        f" ({hot:.2f} ms one after another)",
        file=sys.stderr,
    )
    limit = 1.3 * durable + 2
    return Figure(
        f"added to a streamed turn with one tool of {name}, PostgreSQL, p50",
        served - by_itself,
        "ms",
        limit,
        1.0,
        "1.3 × 4 raw durable commits in such a turn + 2 ms",
    )


async def _committed(sides: Sides, write: Write, session: int) -> float:
    """How many seconds a turn's raw commits take in a turn of the framework by itself."""
    seconds, head = list[float](), 0

    async def commit() -> None:
        nonlocal head
        begin = time.perf_counter()
        await write(session, head, len(seconds))
        head += COMMITS[len(seconds)]
        seconds.append(time.perf_counter() - begin)

    await commit()
    token = _around_tool.set(commit)
    await sides.alone(text(MESSAGE_BYTES))
    _around_tool.reset(token)
    await commit()
    assert len(seconds) == len(COMMITS)
    return sum(seconds)


async def _timed(work: Awaitable[Any]) -> float:
    begin = time.perf_counter()
    await work
    return time.perf_counter() - begin


@asynccontextmanager
async def _model() -> AsyncIterator[str]:
    """The scripted model, as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dalsegno.testing.model", "bench.frameworks:script", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().removeprefix("ready ").strip()
    finally:
        process.terminate()
        await process.wait()
