"""A graph of LangGraph on real replicas: `dalsegno serve module:graph`, `kill -9`, and going on."""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dalsegno.client import Client, Event, Transcript
from dalsegno.testing.fleet import Fleet
from dalsegno.testing.model import ModelServer, To, ToolCall
from tests.acceptance.crowd import STUBBORN
from tests.acceptance.sizes import seconds
from tests.ops.processes import environment
from tests.support import wait_until

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(60))]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "langgraph_agent.py"


def script(shown: Any) -> Any:
    """Refunds and tells, a word a delta."""
    if not shown.results:
        return ["I do that now. ", ToolCall("refund", {"order": "A7"})] if "money" in shown.said else "You are welcome."
    return f"It is done: {shown.results[-1].partition(' with ')[0]}, as you wished."


def text_of(events: Iterable[Event]) -> str:
    """What a reader has of the last message; gaps and repetitions are refused. Checkpoints have no text."""
    transcript = Transcript()
    for event in events:
        transcript.add(event)
    return next((text for text in reversed(transcript.texts.values()) if text), "")


async def test_an_unmodified_graph_survives_kill_9(tmp_path: Path):
    """The replica is killed in the middle of the last answer: a reader elsewhere sees it go on, the refund was made
    once, and the next turn's model is shown the conversation that the log has.
    """
    async with ModelServer(script) as model:
        hold = model.hold(4, to=To(round=1))
        served = Fleet(f"{EXAMPLE}:graph", folder=tmp_path, environment=environment(model.environment))
        async with served as fleet, Client(fleet.urls[:1]) as asker, Client(fleet.urls[-1:], retry=STUBBORN) as reader:
            session = await asker.sessions.create()
            receipt = await session.send("my money back, please")
            events = list[Event]()
            reading = asyncio.create_task(read(reader, session.id, receipt.seq - 1, receipt.turn, events))
            await asyncio.wait_for(hold.reached(), 20)
            await wait_until(lambda: text_of(events).startswith("It is"), description="the words are read")
            await fleet.replicas[0].kill()
            hold.release()
            await asyncio.wait_for(reading, 20)
            assert events[-1].type == "turn.completed"
            assert text_of(events) == "It is done: refunded A7, as you wished."
            elsewhere = reader.session(session.id)
            turn = await elsewhere.turn((await elsewhere.send("thanks")).turn, wait=timedelta(seconds=20))
            assert turn["status"] == "completed"
            items = [item async for item in elsewhere.items()]
        assert [shown.round for shown in model.log.shown] == [0, 1, 1, 0], "only the open step was asked for again"
        told = [message.text.strip() for message in model.log.shown[-1].messages]
        assert told == [text.strip() for text in map(words_of, items[:-1]) if text is not None]
        (output,) = [item["output"] for item in items if item["type"] == "function_call_output"]
        assert output.startswith("refunded A7 with ")
    assert model.log.refusals == []


def words_of(item: Any) -> str | None:
    """What a model reads of an item; a call is part of the message before it."""
    if item["type"] == "function_call_output":
        return str(item["output"])
    return "".join(part["text"] for part in item["content"]) if item["type"] == "message" else None


async def read(client: Client, session: str, after: int, turn: str, events: list[Event]) -> None:
    async with aclosing(client.session(session).stream(after=after, turn=turn)) as stream:
        async for event in stream:
            events.append(event)
