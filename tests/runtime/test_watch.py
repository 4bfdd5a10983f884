"""Trouble with a tier is noticed where it is used, said once, and looked up by whoever asks how a replica is."""

import asyncio
import logging
from collections.abc import Awaitable
from datetime import timedelta

import pytest

from dalsegno.core.ladder import Tier
from dalsegno.errors import TookTooLong, Unavailable, Unreadable
from dalsegno.runtime.duty import Duty
from dalsegno.runtime.health import ANSWER_SECONDS, Found, is_ready, look
from dalsegno.runtime.watch import SETTLED_SECONDS, Watch
from tests.support import wait_until


class Clock:
    """Seconds, as a test wants them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def fails(error: Exception) -> None:
    raise error


async def works() -> str:
    return "here"


async def test_an_outage_is_two_lines(caplog: pytest.LogCaptureFixture):
    """One when it begins, with the reason; one when it is over, with how long it was; however many calls failed."""
    clock, counted = Clock(), list[int]()
    watch = Watch("hot", count=lambda: counted.append(1), clock=clock)
    with caplog.at_level(logging.INFO, "dalsegno.tiers"):
        for _ in range(50):
            clock.now += 0.1
            with pytest.raises(Unavailable):
                await watch.seen(fails(Unavailable("nobody is there: 10.0.0.1 refuses")))
            assert await watch.seen(works()) == "here"  # now and then one gets through
        assert watch.trouble == "nobody is there"
        clock.now += SETTLED_SECONDS
        assert watch.trouble == ""
        await watch.seen(works())
        await watch.seen(works())
    assert [record.getMessage() for record in caplog.records] == [
        "the hot tier fails: nobody is there: 10.0.0.1 refuses",
        "the hot tier is well again after 4.9 s; 50 calls failed",
    ]
    assert len(counted) == 50


async def test_what_a_tier_answers_is_no_trouble_with_it():
    """A tool that was too slow and damaged bytes are answers."""
    watch = Watch("warm")
    for error in (TookTooLong(), Unreadable("damaged")):
        with pytest.raises(type(error)):
            await watch.seen(fails(error))
    assert watch.trouble == ""


async def test_a_tier_that_hangs_makes_no_other_look_ill():
    """Tiers are asked side by side: a cold tier in a black hole costs no replica its place in the balancer."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    tiers: dict[Tier, tuple[Watch, Awaitable[object]]] = {
        "cold": (Watch("cold"), asyncio.Event().wait()),
        "hot": (Watch("hot"), asyncio.Event().wait()),
        "warm": (Watch("warm"), works()),
    }
    found = await look(tiers)
    assert loop.time() - began < 2 * ANSWER_SECONDS
    assert found["warm"] == Found("ok", "ok")
    assert {found["hot"].state, found["cold"].state} == {"away"} and "no answer" in found["cold"].words
    assert is_ready(found)
    assert not is_ready({**found, "warm": Found("away", "gone")})


async def test_a_tier_that_answers_and_fails_refuses():
    """What else has failed of late counts, and is told in brief: neither where nor who."""
    refusing, gone = Watch("hot"), Unavailable("no way: 10.0.0.1 is down")
    refusing.failed(Unavailable("no room: 3 bytes at 10.0.0.1"))
    found = await look({"hot": (refusing, works()), "cold": (Watch("cold"), fails(gone))})
    assert found == {"hot": Found("refuses", "no room"), "cold": Found("away", "no way")}


async def test_a_duty_that_fails_is_said_once_and_not_tried_all_the_time(caplog: pytest.LogCaptureFixture):
    """An outage floods neither the log nor the store; and that a tier is away others say already."""
    tries, broken = list[float](), [Unreadable("damaged")]
    loop = asyncio.get_running_loop()

    async def verb() -> None:
        tries.append(loop.time())
        if broken:
            raise broken[0]

    duty = Duty("bury", verb, interval=timedelta(milliseconds=1))
    with caplog.at_level(logging.INFO, "dalsegno"):
        duty.start()
        await wait_until(lambda: len(tries) >= 3, description="it is tried again")
        assert tries[2] - tries[1] > 0.2
        duty.poke()
        broken.clear()
        await wait_until(lambda: len(tries) >= 20, description="it works again, at its own pace")
        broken.append(Unavailable("away"))  # type: ignore[arg-type]
        failed = len(tries)
        await wait_until(lambda: len(tries) >= failed + 2, description="it fails again")
        await duty.stop()
    assert [record.getMessage() for record in caplog.records] == ["duty bury: damaged", "duty bury works again"]
