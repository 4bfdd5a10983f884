"""Pydantic AI agents in a fleet, and by themselves, before the same scripted model."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from pydantic_ai.messages import ModelMessagesTypeAdapter

from dalsegno.core.context import context
from dalsegno.core.cursor import Cursor
from dalsegno.core.stream import Piece
from dalsegno.testing.model import ModelServer
from tests.runtime.fleet import Fleet

STREAMING = {"stream", "stream_options"}


def wire(model: ModelServer) -> list[Any]:
    """Every request that the model was sent, but for whether it was to stream."""
    return [
        {name: value for name, value in entry.request.items() if name not in STREAMING} for entry in model.log.entries
    ]


def kept(messages: Sequence[Any]) -> list[Any]:
    """Messages as JSON, but for times, for names of runs, and for what is made anew for each request."""
    found = json.loads(ModelMessagesTypeAdapter.dump_json(list(messages)))
    for message in found:
        for name in ("timestamp", "run_id", "conversation_id", "provider_url", "instructions", "model_id", "usage"):
            message.pop(name, None)
        message.pop("provider_details", None)
        for part in message["parts"]:
            part.pop("timestamp", None)
    return found


async def by_itself(agent: Any, model: ModelServer, said: Sequence[Any], **more: Any) -> tuple[list[Any], list[Any]]:
    """A conversation without us: what the model was sent, and what the runs came to."""
    model.log.clear()
    history: list[Any] = []
    outputs = []
    for text in said:
        result = await asyncio.create_task(agent.run(text, message_history=history, **more))
        history = result.all_messages()
        outputs.append(result.output)
    return wire(model), outputs


async def in_fleet(world: Fleet, model: ModelServer, said: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The same conversation through the fleet: what the model was sent, and the turns."""
    model.log.clear()
    ref = await world.session()
    turns = [await world.ask(ref, text) for text in said]
    return wire(model), turns


def text_of(turn: Any) -> str:
    """What the turn said to the user, but for what was broken off."""
    said = [item for item in turn.output if item["type"] == "message" and item["status"] == "completed"]
    return "".join(part["text"] for item in said for part in item["content"] if "text" in part)


async def shown(world: Fleet, ref: Any, receipt: Any, text: str) -> None:
    """Until readers of the last replica have been shown that text of an answer under way."""
    stream = await world.any.follow(ref, after=Cursor(receipt.seq - 1))
    seen = ""
    async for frame in stream:
        if isinstance(frame.what, Piece):
            seen += frame.what.delta
        if text in seen:
            break
    await stream.aclose()


async def items_of(world: Fleet, ref: Any) -> list[Any]:
    """The context as it is now."""
    return list(context(await world.log(ref), session=ref.id).items)
