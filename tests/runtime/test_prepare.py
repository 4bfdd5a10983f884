"""A turn that is given up before it begins leaves nothing behind."""

from datetime import timedelta
from typing import Any

import pytest

from dalsegno.core.append import Fenced
from dalsegno.core.event import ContextSummarized
from dalsegno.errors import Unreadable
from dalsegno.runtime.replica import Tuning
from tests.runtime.fleet import fleet
from tests.support import wait_until

LIMIT = 600


async def agent(turn: Any) -> None:
    await turn.say("x" * LIMIT)


@pytest.mark.parametrize("why", ["fenced off", "unreadable"])
async def test_who_gives_up_a_turn_before_it_begins_is_told_no_news_of_it(why: str):
    """It writes a summary first, since the context has outgrown its limit, and cannot: nobody reads on for a turn that
    nobody runs here, and what it had read is let go of.
    """
    tuning = Tuning(drain_within=timedelta(seconds=5), context_limit_bytes=LIMIT)
    async with fleet(agent, tuning=tuning) as world:
        one, ref, met = world.ones[0], await world.session(), list[str]()
        hub, commit, watch, unwatch = one.replica.hub, one.warm.commit, one.replica.hub.watch, one.replica.hub.unwatch
        await world.ask(ref, "hi")
        watching = set[Any]()

        async def refused(ref: Any, decide: Any, **named: Any) -> Any:
            drafts = getattr(decide, "keywords", {}).get("drafts", ())
            if not met and any(isinstance(draft.data, ContextSummarized) for draft in drafts):
                met.append(why)
                assert watching
                if why == "fenced off":
                    return Fenced()
                raise Unreadable("damaged for a moment")
            return await commit(ref, decide, **named)

        def watched(ref: Any, poke: Any) -> None:
            watching.add(poke)
            watch(ref, poke)

        def left(ref: Any, poke: Any) -> None:
            watching.discard(poke)
            unwatch(ref, poke)

        one.warm.commit, hub.watch, hub.unwatch = refused, watched, left  # type: ignore[method-assign]
        await world.say(ref, "and on")
        await wait_until(lambda: met and not one.replica.turns, description="the turn is given up")
        assert not watching
