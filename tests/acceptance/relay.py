"""An answer that two replicas give: the first is killed in the middle of it. And the turn behind it."""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from dalsegno.client import Client, Event, Transcript
from dalsegno.testing.fleet import Fleet
from dalsegno.testing.model import Hold, ModelServer
from tests.acceptance.crowd import STUBBORN
from tests.ops.processes import environment
from tests.support import wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SAID = "my money back, please"
THEN = "thanks"
WAIT = timedelta(seconds=20)


class Relayed(NamedTuple):
    """What a reader on another replica had of the answer when all was over, and the log's items by then."""

    answer: str
    items: list[Any]


async def relay(model: ModelServer, hold: Hold, *, target: str, begins: str, folder: Path) -> Relayed:
    """Say `SAID` to an example; when a reader has what the answer begins with, kill who answers; then say `THEN`."""
    served = Fleet(f"{EXAMPLES}/{target}", folder=folder, environment=environment(model.environment))
    async with served as fleet, Client(fleet.urls[:1]) as asker, Client(fleet.urls[-1:], retry=STUBBORN) as reader:
        session = await asker.sessions.create()
        receipt = await session.send(SAID)
        elsewhere = reader.session(session.id)
        events = list[Event]()

        async def read() -> None:
            async with aclosing(elsewhere.stream(after=receipt.seq - 1, turn=receipt.turn)) as stream:
                async for event in stream:
                    events.append(event)

        reading = asyncio.create_task(read())
        await asyncio.wait_for(hold.reached(), WAIT.total_seconds())
        await wait_until(lambda: text_of(events).startswith(begins), description="the words are read")
        await fleet.replicas[0].kill()
        hold.release()
        await asyncio.wait_for(reading, WAIT.total_seconds())
        assert events[-1].type == "turn.completed"
        items = [item async for item in elsewhere.items()]
        turn = await elsewhere.turn((await elsewhere.send(THEN)).turn, wait=WAIT)
        assert turn["status"] == "completed"
    return Relayed(text_of(events), items)


def text_of(events: Iterable[Event]) -> str:
    """What a reader has of the last message; gaps and repetitions are refused. Some items have no text."""
    transcript = Transcript()
    for event in events:
        transcript.add(event)
    return next((text for text in reversed(transcript.texts.values()) if text), "")
