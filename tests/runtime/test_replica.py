"""A replica and what is its own in the store."""

import asyncio
from typing import Any

from dalsegno.runtime.handle import Turn
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
