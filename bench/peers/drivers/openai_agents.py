"""OpenAI Agents SDK: `Runner.run` with a `SQLAlchemySession` on PostgreSQL, one engine for all sessions; no tracing."""

import json
import uuid
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, function_tool, set_tracing_disabled
from agents.extensions.memory import SQLAlchemySession
from agents.tool_context import ToolContext
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from sqlalchemy.ext.asyncio import create_async_engine

from bench.content import mark_of
from bench.peers.serve import SPEAKING, Shop, answer, message, order, serve

CONNECTIONS = 8


class OpenAIAgents:
    """A `Peer`."""

    async def open(self, url: str, *, name: str, options: dict[str, str], shop: Shop) -> dict[str, str]:
        """Engine, tables, agent."""

        @function_tool
        async def look_up(context: ToolContext[Any], order: str) -> str:
            """What a shop knows of an order."""
            return shop.look_up(order, context.tool_call_id)

        set_tracing_disabled(True)
        self._sessions: dict[str, SQLAlchemySession] = {}
        self._agent = Agent(name="bench", instructions="Look it up.", model=Scripted(), tools=[look_up])
        asyncpg = url.replace("postgresql://", "postgresql+asyncpg://")
        self._engine = create_async_engine(asyncpg, pool_size=CONNECTIONS, max_overflow=0)
        await SQLAlchemySession("none", engine=self._engine, create_tables=True).get_items()
        return {name: version(name) for name in ("openai-agents", "SQLAlchemy", "asyncpg")}

    async def turn(self, session: str, mark: str) -> str:
        """`Runner.run` with the message."""
        result = await Runner.run(self._agent, message(mark), session=self._session(session))
        return str(result.final_output)

    async def burst(self, session: str, mark: str) -> str:
        """The library offers nothing more."""
        return await self.turn(session, mark)

    async def history(self, session: str) -> list[tuple[str, str]]:
        """All items; a result is text of ours."""
        return [_entry(item) for item in await self._session(session).get_items()]

    async def go_on(self, session: str, mark: str) -> str:
        """`Runner.run` with nothing new where the message is stored; else the message, sent again."""
        SPEAKING.set(mark)
        if any(found == mark for _, found in await self.history(session)):
            await Runner.run(self._agent, [], session=self._session(session))
            return "`Runner.run(agent, [], session=session)`"
        await self.turn(session, mark)
        return "the message, sent again"

    async def close(self) -> None:
        """Close the engine."""
        await self._engine.dispose()

    def _session(self, session: str) -> SQLAlchemySession:
        if session not in self._sessions:
            self._sessions[session] = SQLAlchemySession(session, engine=self._engine)
        return self._sessions[session]


class Scripted(Model):
    """Calls the tool, then answers."""

    async def get_response(self, system_instructions: Any, input: Any, *rest: Any, **more: Any) -> ModelResponse:
        """The next item, of whatever the last one is."""
        mark = SPEAKING.get() or next(mark_of(one["content"]) for one in reversed(input) if one.get("role") == "user")
        if input[-1].get("type") == "function_call_output":
            text = ResponseOutputText(type="output_text", text=answer(mark), annotations=[])
            item: Any = ResponseOutputMessage(
                id=f"msg_{uuid.uuid4().hex}", type="message", role="assistant", status="completed", content=[text]
            )
        else:
            item = ResponseFunctionToolCall(
                type="function_call",
                call_id=f"call_{uuid.uuid4().hex[:24]}",
                name="look_up",
                arguments=json.dumps({"order": order(mark)}),
            )
        return ModelResponse(output=[item], usage=Usage(), response_id=None)

    def stream_response(self, *given: Any, **more: Any) -> AsyncIterator[Any]:
        """Not used."""
        raise NotImplementedError


def _entry(item: Any) -> tuple[str, str]:
    match item.get("type"):
        case "function_call":
            return "c", mark_of(json.loads(item["arguments"])["order"])
        case "function_call_output":
            return "r", mark_of(item["output"])
    if item["role"] == "user":
        return "u", mark_of(item["content"])
    return "a", mark_of(item["content"][0]["text"])


if __name__ == "__main__":
    serve(OpenAIAgents)
