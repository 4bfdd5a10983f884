"""Google ADK: a `Runner` with a `DatabaseSessionService` on PostgreSQL.

Option: `resumable=yes` is `ResumabilityConfig(is_resumable=True)`, which its page on resuming asks for.
"""

import uuid
from collections.abc import AsyncGenerator
from importlib.metadata import version
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.apps import App, ResumabilityConfig
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import DatabaseSessionService
from google.adk.tools import ToolContext
from google.genai import types

from bench.content import mark_of
from bench.peers.serve import SPEAKING, Shop, answer, message, order, serve

CONNECTIONS = 8
APP, USER = "bench", "bench"


class Adk:
    """A `Peer`."""

    async def open(self, url: str, *, name: str, options: dict[str, str], shop: Shop) -> dict[str, str]:
        """Tables, agent, runner."""

        async def look_up(order: str, tool_context: ToolContext) -> dict[str, str]:
            """What a shop knows of an order."""
            return {"result": shop.look_up(order, tool_context.function_call_id or "")}

        asyncpg = url.replace("postgresql://", "postgresql+asyncpg://")
        self._sessions = DatabaseSessionService(asyncpg, pool_size=CONNECTIONS, max_overflow=0)
        agent = LlmAgent(name="bench_agent", model=Scripted(model="scripted"), tools=[look_up])
        resumable = ResumabilityConfig(is_resumable=options.get("resumable") == "yes")
        app = App(name=APP, root_agent=agent, resumability_config=resumable)
        self._runner = Runner(app=app, session_service=self._sessions, auto_create_session=True)
        await self._sessions.list_sessions(app_name=APP, user_id=USER)
        return {name: version(name) for name in ("google-adk", "SQLAlchemy", "asyncpg")}

    async def turn(self, session: str, mark: str) -> str:
        """`run_async` with the message, to its last event."""
        said = types.Content(role="user", parts=[types.Part(text=message(mark))])
        return await self._run(session, new_message=said)

    async def burst(self, session: str, mark: str) -> str:
        """The library offers nothing more."""
        return await self.turn(session, mark)

    async def history(self, session: str) -> list[tuple[str, str]]:
        """All events that say something."""
        found = await self._sessions.get_session(app_name=APP, user_id=USER, session_id=session)
        contents = [event.content for event in found.events] if found else []
        return [_entry(content) for content in contents if content and content.parts]

    async def go_on(self, session: str, mark: str) -> str:
        """`run_async` with the id of the invocation that broke off; if there is none, the message again."""
        SPEAKING.set(mark)
        found = await self._sessions.get_session(app_name=APP, user_id=USER, session_id=session)
        if found and found.events and any(said == mark for _, said in await self.history(session)):
            await self._run(session, invocation_id=found.events[-1].invocation_id)
            return "`run_async(invocation_id=…)` of a resumable app"
        await self.turn(session, mark)
        return "the message, sent again"

    async def close(self) -> None:
        """Close the engine."""
        await self._sessions.close()

    async def _run(self, session: str, **given: Any) -> str:
        said = ""
        async for event in self._runner.run_async(user_id=USER, session_id=session, **given):
            if event.content and event.content.parts and event.content.parts[-1].text:
                said = event.content.parts[-1].text
        return said


class Scripted(BaseLlm):
    """Calls the tool, then answers."""

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        """The next content, of whatever the last one is."""
        contents = llm_request.contents
        mark = SPEAKING.get() or next(said for kind, said in map(_entry, reversed(contents)) if kind == "u")
        if _entry(contents[-1])[0] == "r":
            part = types.Part(text=answer(mark))
        else:
            identity = f"call_{uuid.uuid4().hex[:24]}"
            part = types.Part(
                function_call=types.FunctionCall(id=identity, name="look_up", args={"order": order(mark)})
            )
        usage = types.GenerateContentResponseUsageMetadata(prompt_token_count=1, candidates_token_count=1)
        yield LlmResponse(content=types.Content(role="model", parts=[part]), usage_metadata=usage)


def _entry(content: types.Content) -> tuple[str, str]:
    part = (content.parts or [types.Part()])[0]
    if part.function_call:
        return "c", mark_of((part.function_call.args or {})["order"])
    if part.function_response:
        return "r", mark_of((part.function_response.response or {})["result"])
    return "u" if content.role == "user" else "a", mark_of(part.text)


if __name__ == "__main__":
    serve(Adk)
