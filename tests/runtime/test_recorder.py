"""What is brought to be written is written, whatever becomes of what it was to be written with."""

import asyncio
from collections.abc import Sequence
from typing import Any

from dalsegno.core.append import Refusal
from dalsegno.core.input import Message
from dalsegno.core.item import text_of
from dalsegno.errors import Unreadable
from dalsegno.runtime.handle import Turn
from tests.runtime.fleet import fleet
from tests.support import wait_until


async def model(context: Any) -> Any:
    """One that answers."""
    yield "the answer"


async def test_an_answer_whose_record_fails_is_recorded_with_the_end():
    """P9: it was put off, so nobody is told; it must not be missing from a turn that completes."""
    failed = asyncio.Event()

    async def agent(turn: Turn) -> None:
        await turn.generate(model)
        await failed.wait()

    async with fleet(agent) as world:
        ref, commit = await world.session(), world.ones[0].warm.commit

        async def damaged(*given: Any, **named: Any) -> Any:
            task = asyncio.current_task()
            assert task is not None
            if not failed.is_set() and task.get_coro().__qualname__ == "_flush":  # type: ignore[union-attr]
                task.add_done_callback(lambda task: task.exception())
                failed.set()
                raise Unreadable("for a moment")
            return await commit(*given, **named)

        world.ones[0].warm.commit = damaged  # type: ignore[method-assign]
        turn = await world.ask(ref, "go")
        assert (turn.status, [item["content"][0]["text"] for item in turn.output]) == ("completed", ["the answer"])


async def test_what_is_brought_while_an_end_is_refused_is_written():
    """A step that was left behind ends just then: whoever waits for it is told that it is on record, and it is."""
    refused, behind, runs = asyncio.Event(), list[asyncio.Task[int]](), list[Turn]()

    async def slow() -> int:
        await refused.wait()
        return 1

    async def agent(turn: Turn) -> None:
        runs.append(turn)
        await turn.generate(model)
        if len(runs) == 1:
            behind.append(asyncio.create_task(turn.step("slow", slow)))
            await asyncio.sleep(0)
            await world.say(ref, Message("and this", on_busy="steer"))

    async with fleet(agent) as world:
        ref, commit = await world.session(), world.ones[0].warm.commit

        async def told_late(*given: Any, **named: Any) -> Any:
            decision = await commit(*given, **named)
            if isinstance(decision, Refusal) and not refused.is_set():
                refused.set()
                await wait_until(lambda: runs[0]._recorder._outbox, description="the step to be brought")
            return decision

        world.ones[0].warm.commit = told_late  # type: ignore[method-assign]
        turn = await world.ask(ref, "go")
        assert (turn.status, len(runs), await behind[0]) == ("completed", 2, 1)
        assert [done.step for done in await world.data(ref, "item.done")].count("slow#1") == 1


async def test_a_model_is_shown_the_answer_that_is_just_being_written():
    """Law 13: the agent paused so long that its first answer is on its way into the log; the second model waits."""
    shown, begun = list[Sequence[object]](), asyncio.Event()

    async def listening(context: Any) -> Any:
        shown.append([text_of(item) for item in context.items])
        yield f"answer {len(shown)}"

    async def agent(turn: Turn) -> None:
        await turn.generate(listening)
        await begun.wait()
        await turn.generate(listening)

    async with fleet(agent) as world:
        ref, commit = await world.session(), world.ones[0].warm.commit

        async def slow(*given: Any, **named: Any) -> Any:
            if shown:
                begun.set()
                for _ in range(100):
                    await asyncio.sleep(0)
            return await commit(*given, **named)

        world.ones[0].warm.commit = slow  # type: ignore[method-assign]
        assert (await world.ask(ref, "go")).status == "completed"
        assert shown == [["go"], ["go", "answer 1"]]
