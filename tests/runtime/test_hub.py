"""The hub: what another replica says is heard, and costs no more than it has to."""

import asyncio
from datetime import timedelta

from dalsegno.core.cursor import Cursor
from dalsegno.core.event import Event
from dalsegno.core.ids import turn_id
from dalsegno.core.stream import Piece
from dalsegno.runtime.replica import Tuning
from tests.runtime.fleet import fleet

WORDS = 20
RARELY = Tuning(sweep_every=timedelta(minutes=5), drain_within=timedelta(seconds=5))
"""What is noticed here is noticed by hints, and not by the poll behind them."""


async def test_the_words_of_an_open_step_are_asked_of_the_hot_tier_alone(monkeypatch):
    """A reader's replica reads the log when the log has grown: not with each piece that another replica publishes."""
    words: asyncio.Queue[str] = asyncio.Queue()
    looks: list[str] = []

    async def model(context):
        for _ in range(WORDS):
            yield await words.get()

    async def agent(turn):
        await turn.generate(model)

    async with fleet(agent, count=2, tuning=RARELY) as world:
        ref = await world.session()
        far = world.ones[1]
        receipt = await world.say(ref, "go")
        stream = await far.service.follow(ref, after=Cursor(0), turn=turn_id(ref.id, receipt.turn))
        heard = 0
        for number in range(WORDS - 1):
            words.put_nowait(f"w{number} ")
            async with asyncio.timeout(10):
                while True:
                    frame = await anext(stream)
                    if isinstance(frame.what, Piece) and frame.what.item is None:
                        heard += 1
                        break
            if number == 0:
                for name in ("read", "load"):
                    _count(monkeypatch, far.warm, name, looks)
        assert heard == WORDS - 1
        # A look that was under way, or asked for, when the first word came.
        assert len(looks) <= 4, looks
        seen = len(looks)
        words.put_nowait("and out")
        async with asyncio.timeout(10):
            rest = [frame async for frame in stream]
        last = rest[-1].what
        assert isinstance(last, Event) and last.type == "turn.completed"
        assert len(looks) > seen, "the step's end is in the log"
        await stream.aclose()


def _count(monkeypatch, warm, name, looks):
    plain = getattr(warm, name)

    async def counted(*given, **named):
        looks.append(name)
        return await plain(*given, **named)

    monkeypatch.setattr(warm, name, counted)
