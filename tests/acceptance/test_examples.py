"""The examples with providers' own clients, served as a user serves them; all is real but the model's mind."""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path

import pytest

from dalsegno.client import Client, Event, Transcript
from dalsegno.testing.fleet import Fleet
from dalsegno.testing.model import Entry, ModelServer, Script, To, ToolCall, by_round, by_words
from tests.acceptance.crowd import STUBBORN
from tests.acceptance.sizes import seconds
from tests.ops.processes import environment
from tests.support import wait_until

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(60))]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
WEATHER = ToolCall("weather", {"city": "Bologna"})


def told(question: str) -> str:
    return f"On {question} it is dry in Bologna and it will be dry on the day after"


def script() -> Script:
    """Asks the tool, then tells what it said in a sentence, a word a delta."""
    return by_words({"": by_round(["I look.", WEATHER], lambda shown: told(shown.said))})


def text_of(events: Iterable[Event]) -> str:
    """All that a reader was shown of the turn's last message; the transcript refuses gaps and repetitions."""
    transcript = Transcript()
    for event in events:
        transcript.add(event)
    return [*transcript.texts.values()][-1] if transcript.texts else ""


def asked(model: ModelServer, question: str) -> list[list[Entry]]:
    """What the model was asked about the question, by round."""
    entries = [entry for entry in model.log.entries if entry.shown is not None and entry.shown.said == question]
    return [[entry for entry in entries if entry.shown is not None and entry.shown.round == n] for n in (0, 1)]


@pytest.mark.parametrize("example", ["openai_agent", "anthropic_agent"])
async def test_a_provider_s_own_client_goes_on_after_a_kill(example: str, tmp_path: Path) -> None:
    """`kill -9` after the first piece of an answer and in its middle: readers elsewhere see it go on to its end.

    What was recorded is not asked for again. OpenAI's model is asked for the whole answer and its repetition is not
    shown; Anthropic's is given the beginning and says the rest.
    """
    async with ModelServer(script()) as model:
        target, variables = f"{EXAMPLES / example}.py:answer", environment(model.environment)
        async with Fleet(target, folder=tmp_path, environment=variables) as fleet:
            for victim, (question, at) in enumerate({"monday": 1, "tuesday": 9}.items()):
                await kill_in_the_middle(fleet, victim, model, question=question, at=at)
                first, second = asked(model, question)
                assert [entry.ended for entry in first] == ["done"]
                assert [entry.ended for entry in second] == ["left", "done"]
                assert second[0].shown is not None and second[1].shown is not None
                assert second[1].shown.results == ("dry in Bologna",)
                assert second[1].shown.conversation == second[0].shown.conversation
                shown = second[1].shown.prefix
                assert (shown != "") == (example == "anthropic_agent")
                assert told(question).startswith(shown)
                assert second[1].sent == second[0].deltas - (at if shown else 0)
    assert model.log.refusals == []


async def kill_in_the_middle(fleet: Fleet, victim: int, model: ModelServer, *, question: str, at: int) -> None:
    """Ask one replica, read at the last one, and kill the first when the reader has `at` deltas of the answer."""
    begun = " ".join(told(question).split(" ")[:at])
    hold = model.hold(at, to=To(said=question, round=1))
    async with Client([fleet.urls[victim]]) as asker, Client([fleet.urls[-1]], retry=STUBBORN) as reader:
        session = await asker.sessions.create()
        receipt = await session.send(question)
        events = list[Event]()
        reading = asyncio.create_task(_read(reader, session.id, receipt.seq - 1, receipt.turn, events))
        await asyncio.wait_for(hold.reached(), 20)
        await wait_until(lambda: text_of(events) == begun, description="the reader has what was said")
        await fleet.replicas[victim].kill()
        await asyncio.wait_for(reading, 20)
        hold.release()
    assert events[-1].type == "turn.completed"
    assert text_of(events) == told(question)
    shown = [event for event in events if event.type in ("item.dropped", "item.done")]
    assert [event.data["item"]["type"] for event in shown if event.type == "item.done"] == [
        *("message", "function_call", "function_call_output", "message"),
    ]
    assert all(event.type == "item.done" for event in shown)


async def _read(reader: Client, session: str, after: int, turn: str, events: list[Event]) -> None:
    async with aclosing(reader.session(session).stream(after=after, turn=turn)) as stream:
        async for event in stream:
            events.append(event)
