"""Help for tests of the OpenAI Agents SDK adapter: its agents on a fleet in memory, against the scripted model."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from agents import Agent, Model, OpenAIChatCompletionsModel, OpenAIResponsesModel, RunConfig
from openai import AsyncOpenAI

from dalsegno.agents.openai_agents import OpenAIAgent
from dalsegno.core.context import context
from dalsegno.core.event import Event
from dalsegno.ports import Ref
from dalsegno.testing.model import ModelServer, Script
from tests.runtime.fleet import Fleet, fleet

Wire = Literal["responses", "chat"]
WIRES: list[Wire] = ["responses", "chat"]
SILENT = RunConfig(tracing_disabled=True)


def model_of(server: ModelServer, wire: Wire = "responses") -> Model:
    """A model of the SDK, with the real client."""
    client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    kinds: dict[Wire, Any] = {"responses": OpenAIResponsesModel, "chat": OpenAIChatCompletionsModel}
    return kinds[wire]("gpt-test", client)


class Stage:
    """A scripted model, and a fleet that serves one agent."""

    def __init__(self, server: ModelServer, world: Fleet, ref: Ref) -> None:
        self.server = server
        self.world = world
        self.ref = ref

    async def ask(self, text: str) -> Any:
        """The turn, once it has ended or waits. Whatever happens, the provider has taken every context."""
        turn = await self.world.ask(self.ref, text)
        assert not self.server.log.refusals
        return turn

    async def items(self) -> list[Any]:
        """What a model would be shown now."""
        return list(context(await self.world.log(self.ref), session=self.ref.id).items)

    @property
    def requests(self) -> list[Any]:
        """What the provider was sent."""
        return [entry.request for entry in self.server.log.entries]

    async def outputs(self) -> list[str]:
        """What tools came to."""
        return [item["output"] for item in await self.items() if item["type"] == "function_call_output"]


@asynccontextmanager
async def stage(script: Script, make: Any, *, wire: Wire = "responses", count: int = 1) -> AsyncIterator[Stage]:
    """`make` gives the agent for a model, or an `OpenAIAgent`."""
    async with ModelServer(script) as server:
        made = make(model_of(server, wire))
        served = OpenAIAgent(made) if isinstance(made, Agent) else made
        async with fleet(served.run, count=count) as world:
            yield Stage(server, world, await world.session())


def said(turn: Any) -> str:
    """The text of a turn's messages."""
    texts = [part["text"] for item in turn.output if item["type"] == "message" for part in item["content"]]
    return " ".join(texts)


def conversation(request: Any) -> Any:
    """What a request shows of the conversation, whichever the wire."""
    return request.get("input") or request.get("messages")


def intents(log: Sequence[Event]) -> list[bytes]:
    """What was decided to be done."""
    return [event.data for event in log if event.type == "tool.intent"]
