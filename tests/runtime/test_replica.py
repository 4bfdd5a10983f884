"""A replica and what is its own in the store."""

import asyncio
from datetime import timedelta
from typing import Any

from dalsegno.core.append import Write
from dalsegno.errors import Unavailable
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.replica import Tuning
from tests.runtime.fleet import fleet
from tests.support import wait_until


async def test_an_admission_whose_answer_is_on_its_way_is_not_taken_for_a_lost_one():
    """P6: a replica that looks for sessions that are its own and not at work leaves alone what it is just being given;
    else the turn begins twice, and its model is asked twice.
    """
    asked: list[int] = []

    async def agent(turn: Turn) -> None:
        async def model(context: Any) -> Any:
            asked.append(turn.epoch)
            yield "hello"

        await turn.generate(model)

    async with fleet(agent) as world:
        ref = await world.session()
        replica, written, answered = world.ones[0].replica, asyncio.Event(), asyncio.Event()
        commit = replica._warm.commit

        async def slowly(*arguments: Any, **named: Any) -> Any:
            decision = await commit(*arguments, **named)
            written.set()
            await answered.wait()
            return decision

        replica._warm.commit = slowly  # type: ignore[method-assign]
        saying = asyncio.create_task(world.say(ref, "hi"))
        await written.wait()
        replica._warm.commit = commit  # type: ignore[method-assign]
        replica._doubt()
        await replica._claim()
        answered.set()
        turn = await world.end_of(ref, await saying)
        assert turn.status == "completed"
        await wait_until(lambda: not replica._turns, description="nothing is at work")
        assert len(asked) == 1
        assert (await world.types(ref)).count("turn.started") == 1


async def test_a_turn_that_was_taken_with_an_end_whose_answer_is_lost_is_run_soon():
    """P5: also if the replica has looked what is its own while the turn before it was still at work on its end."""
    go_on, told = asyncio.Event(), list[str]()

    async def agent(turn: Turn) -> None:
        if turn.text == "one":
            await go_on.wait()
        await turn.say("hello")

    async with fleet(agent, tuning=Tuning(sweep_every=timedelta(hours=1))) as world:
        ref, one = await world.session(), world.ones[0]
        commit = one.warm.commit

        async def unheard(*arguments: Any, **named: Any) -> Any:
            decision = await commit(*arguments, **named)
            if not told and isinstance(decision, Write) and "turn.completed" in str(decision.events):
                told.append("nothing")
                asyncio.get_running_loop().call_soon(one.replica._claiming.poke)
                raise Unavailable("the answer was lost", outcome="unknown")
            return decision

        one.warm.commit = unheard  # type: ignore[method-assign]
        await world.say(ref, "one")
        two = await world.say(ref, "two")
        go_on.set()
        turn = await asyncio.wait_for(world.end_of(ref, two), 5)
        assert (turn.status, turn.attempt, told) == ("completed", 1, ["nothing"])
