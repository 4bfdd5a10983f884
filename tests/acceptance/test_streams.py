"""Streams are cut at any byte and go on elsewhere: no gap, no repetition, every text whole."""

import asyncio
import json
import random
from contextlib import aclosing
from datetime import timedelta

import pytest

from dalsegno.client import TERMINAL, Client, Retry, Transcript
from dalsegno.testing.fleet import Fleet
from dalsegno.testing.proxy import Cut, FaultProxy
from tests.acceptance.conftest import Serving
from tests.acceptance.crowd import STUBBORN
from tests.acceptance.sizes import publish, seconds, size
from tests.acceptance.verdict import Said, Seen, _streamed, log_of

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(120))]

CUTS_A_STREAM = 10
SEED = 4
HURRIED = Retry(rounds=100, base=timedelta(milliseconds=5), longest=timedelta(milliseconds=50))


async def test_a_stream_cut_at_any_byte_goes_on_elsewhere(serving: Serving):
    """P8: "Reconnecting anywhere with the last cursor yields every later durable event once and in order, and the text
    of every item completely, without gap or repetition, also after the turn has ended".
    """
    async with serving() as fleet:
        await survive_cuts(fleet, size(200, 5000))


async def survive_cuts(fleet: Fleet, cuts: int) -> None:
    """Readers behind a proxy that cuts them, and deals each new connection to the next replica."""
    chance = random.Random(SEED)
    readers = cuts // CUTS_A_STREAM
    plans = [
        [Cut(after=chance.randint(0, 4000), how=chance.choice(("reset", "finish"))) for _ in range(CUTS_A_STREAM)]
        for _ in range(readers)
    ]
    limit, served, violations = asyncio.Semaphore(8), set[tuple[str, int]](), list[str]()

    async with Client(fleet.urls, retry=STUBBORN) as speaker:
        made = 0

        async def follow(number: int) -> None:
            nonlocal made
            async with limit, FaultProxy(*fleet.addresses) as proxy, Client(proxy.url, retry=HURRIED) as reader:
                script = {"id": f"c{number}", "do": ["keyed", "read"], "words": 40, "pace_ms": 4}
                session = await speaker.sessions.create()
                seen, transcript = Seen(session), Transcript()
                seen.said.append(Said(script, await session.send(json.dumps(script))))
                proxy.plan(*plans[number])
                rounds = 0
                # again from the beginning until every planned cut has been made: then the turn has long ended
                while proxy.counts.cut < CUTS_A_STREAM and rounds < 20:
                    seen.events, transcript, rounds = [], Transcript(), rounds + 1
                    async with aclosing(reader.session(session.id).stream(after=0)) as events:
                        async for event in events:
                            transcript.add(event)
                            seen.events.append(event)
                            if event.type in TERMINAL:
                                break
                    seen.texts = transcript.texts
                    log = await log_of(session)
                    violations.extend(f"{session.id}: {found}" for found in _streamed(seen, log))
                    # a connection that was to be cut further on than it went leaves a cut over
                    proxy.plan(Cut(after=chance.randint(0, 1000), how="reset"))
                made += proxy.counts.cut
                served.update(proxy.counts.served)

        async with asyncio.TaskGroup() as group:
            for number in range(readers):
                group.create_task(follow(number))
    publish(f"{made} cuts in {readers} streams, over {len(served)} replicas, {len(violations)} violations")
    assert violations == []
    assert made >= cuts and len(served) == 3
