"""An agent of the OpenAI Agents SDK on real replicas: `dalsegno serve module:agent`, `kill -9`, and going on."""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dalsegno.agents.openai_agents.items import to_input
from dalsegno.client import Client, Event, Transcript
from dalsegno.testing.fleet import Fleet
from dalsegno.testing.model import ModelServer, To, ToolCall
from tests.acceptance.crowd import STUBBORN
from tests.acceptance.sizes import seconds
from tests.ops.processes import environment
from tests.support import wait_until

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(60))]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "openai_agents_agent.py"


def script(shown: Any) -> Any:
    """Triage hands over; billing refunds and tells, a word a delta."""
    if "Hand over" in shown.instructions:
        return ToolCall("transfer_to_billing")
    if not shown.results or "refunded" not in shown.results[-1]:
        return ["I do that now. ", ToolCall("refund", {"order": "A7"})]
    return f"Billing here, it is done: {shown.results[-1].partition(' with ')[0]}, as you wished."


def text_of(events: Iterable[Event]) -> str:
    """What a reader has of the last message; gaps and repetitions are refused."""
    transcript = Transcript()
    for event in events:
        transcript.add(event)
    return [*transcript.texts.values()][-1] if transcript.texts else ""


async def test_an_unmodified_agent_survives_kill_9(tmp_path: Path):
    """The replica is killed in the middle of the last answer: a reader elsewhere sees it go on, the handoff holds, the
    refund was made once, and each context is what the log says.
    """
    async with ModelServer(script) as model:
        hold = model.hold(6, to=To(round=2))
        served = Fleet(f"{EXAMPLE}:agent", folder=tmp_path, environment=environment(model.environment))
        async with served as fleet, Client(fleet.urls[:1]) as asker, Client(fleet.urls[-1:], retry=STUBBORN) as reader:
            session = await asker.sessions.create()
            receipt = await session.send("my money back, please")
            events = list[Event]()
            reading = asyncio.create_task(read(reader, session.id, receipt.seq - 1, receipt.turn, events))
            await asyncio.wait_for(hold.reached(), 20)
            await wait_until(lambda: text_of(events).startswith("Billing here"), description="the words are read")
            await fleet.replicas[0].kill()
            hold.release()
            await asyncio.wait_for(reading, 20)
            assert events[-1].type == "turn.completed"
            assert text_of(events) == "Billing here, it is done: refunded A7, as you wished."
            elsewhere = reader.session(session.id)
            items = [item async for item in elsewhere.items()]
            turn = await elsewhere.turn((await elsewhere.send("thanks")).turn, wait=timedelta(seconds=20))
            assert turn["status"] == "completed"
        rounds = [shown.round for shown in model.log.shown]
        assert rounds == [0, 1, 2, 2, 0, 1], "only the open step was asked for again"
        assert not model.log.shown[4].instructions, "the next turn goes on with whom the first was handed to"
        asked = [entry.request["input"] for entry in model.log.entries]
        assert asked[2] == asked[3] == to_input(items[:-1])
        outputs = [item["output"] for item in items if item["type"] == "function_call_output"]
        assert [output.partition(" with ")[0] for output in outputs] == ['{"assistant": "Billing"}', "refunded A7"]
    assert model.log.refusals == []


async def read(client: Client, session: str, after: int, turn: str, events: list[Event]) -> None:
    async with aclosing(client.session(session).stream(after=after, turn=turn)) as stream:
        async for event in stream:
            events.append(event)
