"""What happens when the replica that runs a turn dies: promises P4 to P8, one window at a time."""

import asyncio
import contextlib
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
import pytest

from dalsegno.agents.tool import Crash, tool
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import Event
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Approval, Message
from dalsegno.core.part import Continue, Detail, ToolCall
from dalsegno.core.session import Session
from dalsegno.errors import Unavailable
from dalsegno.ports import Call, DidNotHappen, Happened, Ref
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.hub import Hub
from dalsegno.runtime.replica import Tuning
from dalsegno.stores.memory import MemoryDatabase, MemoryHot, MemoryLog
from dalsegno.stores.memory.log import MemoryTransaction
from tests.runtime.fleet import Fleet, fleet, streamed
from tests.support import wait_until


class Telling:
    """A model that says a text word by word, and stops where the test wants it to."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.calls = 0
        self.stop_after = 10_000
        self.said = 0

    async def __call__(self, context):
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        for n, word in enumerate(answer.split()):
            if n == self.stop_after:
                await asyncio.Event().wait()
            yield f"{word} "
            self.said += 1
            await asyncio.sleep(0)


async def stopped(world: Fleet, model: Telling, ref):
    """A turn whose model has said some words and hangs; and what a reader on the other replica has by then."""
    receipt = await world.say(ref, "go")
    await wait_until(lambda: model.said >= model.stop_after, description="the model to stop")
    stream = await world.any.follow(ref, after=Cursor(receipt.seq - 1))
    frames = []

    async def read() -> None:
        async for frame in stream:
            frames.append(frame)

    task = asyncio.create_task(read())
    await wait_until(lambda: "".join(streamed(frames).values()).count(" ") >= model.stop_after, description="the words")
    task.cancel()
    await stream.aclose()
    return receipt, frames


async def test_p8_the_same_answer_goes_on_where_it_was():
    """The successor asks again; while the new answer repeats what was shown it is held back, then it goes on."""
    model = Telling("one two three four five")
    model.stop_after = 3

    async def agent(turn: Turn) -> None:
        await turn.generate(model)

    async with fleet(agent, count=2) as world:
        ref = await world.session()
        receipt, before = await stopped(world, model, ref)
        model.stop_after = 10_000
        await world.kill()
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.attempt, model.calls) == ("completed", 2, 2)
        after = await world.frames(ref, receipt, after=before[-1].cursor)
        (text,) = streamed([*before, *after]).values()
        assert text == "one two three four five "
        assert [frame.cursor for frame in after] == sorted(frame.cursor for frame in after)
        started = (await world.data(ref, "turn.started"))[-1]
        assert started.carried == 1 + len("one two three ")


async def test_p8_a_provider_that_takes_the_beginning_of_its_answer_says_only_the_rest():
    """The successor's model is given what readers have seen, and readers see one answer; the log has it whole."""
    given: list[str] = []
    stop = asyncio.Event()

    async def agent(turn: Turn) -> None:
        async def model(context):
            given.append(turn.prefix)
            if turn.prefix:
                yield Continue()
                yield "three "
                yield Detail({"signature": "s"})
                return
            yield "one "
            yield "two "
            stop.set()
            await asyncio.Event().wait()

        await turn.generate(model)

    async with fleet(agent, count=2) as world:
        ref = await world.session()
        receipt = await world.say(ref, "tell")
        await stop.wait()
        stream = await world.any.follow(ref, after=Cursor(receipt.seq - 1), turn=turn_id(ref.id, receipt.turn))
        frames: list[Any] = []

        async def read() -> None:
            async for frame in stream:
                frames.append(frame)

        reading = asyncio.create_task(read())
        await wait_until(lambda: "one two " in streamed(frames).values(), description="a reader to have the words")
        await world.kill()
        turn = await world.end_of(ref, receipt)
        assert given == ["", "one two "]
        assert turn.output[0]["content"][0]["text"] == "one two three "
        assert turn.output[0]["details"] == {"signature": "s"}
        assert len(turn.output) == 1
        await reading
        assert list(streamed(frames).values()) == ["one two three "]


@pytest.mark.parametrize("where", ["before", "beside", "inside"])
async def test_p8_the_beginning_is_told_to_the_model_that_said_it(where: str):
    """Not to another that the successor asks before it, beside it or inside a call."""
    model, given = Telling("one two three four"), list[tuple[str, str]]()
    model.stop_after = 2

    async def agent(turn: Turn) -> None:
        async def one(context):
            given.append(("one", turn.prefix))
            if turn.attempt > 1 and where == "beside":
                await asyncio.ensure_future(turn.generate(other, name="other"))
            async for word in model(context):
                yield word

        async def other(context):
            given.append(("other", turn.prefix))
            return "something else"

        if turn.attempt > 1 and where != "beside":
            await turn.generate(other, name="other", inside="call_1" if where == "inside" else None)
        await turn.generate(one)

    async with fleet(agent, count=2) as world:
        ref = await world.session()
        receipt, _ = await stopped(world, model, ref)
        model.stop_after = 10_000
        await world.kill()
        turn = await world.end_of(ref, receipt)
        assert turn.status == "completed"
        told = [("one", "" if where == "before" else "one two "), ("other", "")]
        assert given == [("one", ""), *(told if where == "beside" else reversed(told))]


async def test_p8_another_answer_begins_anew_and_nothing_is_retracted_silently():
    """When the new answer differs, the old item is closed as incomplete with the text that was shown."""
    model = Telling("one two three four", "one two four five six")
    model.stop_after = 3

    async def agent(turn: Turn) -> None:
        await turn.generate(model)

    async with fleet(agent, count=2) as world:
        ref = await world.session()
        receipt, before = await stopped(world, model, ref)
        model.stop_after = 10_000
        await world.kill()
        turn = await world.end_of(ref, receipt)
        assert [(item["status"], item["content"][0]["text"]) for item in turn.output] == [
            ("incomplete", "one two three "),
            ("completed", "one two four five six "),
        ]
        after = await world.frames(ref, receipt, after=before[-1].cursor)
        done = [frame.what for frame in after if isinstance(frame.what, Event) and frame.what.type == "item.done"]
        assert len(done) == 2
        context = [item for item in (await world.any.items(ref, after=0, limit=100))[0] if item["type"] == "message"]
        assert len(context) == 3


async def test_p8_p10_all_deltas_may_be_lost():
    """With the hot tier empty the successor starts afresh, and a reader is told to forget what it had."""
    model = Telling("one two three four five")
    model.stop_after = 3

    async def agent(turn: Turn) -> None:
        await turn.generate(model)

    async with fleet(agent, count=2) as world:
        ref = await world.session()
        receipt, before = await stopped(world, model, ref)
        model.stop_after = 10_000
        world.cache.steps.clear()
        stream = await world.any.follow(ref, after=Cursor(receipt.seq - 1))
        await world.kill()
        turn = await world.end_of(ref, receipt)
        assert turn.output[-1]["content"][0]["text"] == "one two three four five "
        assert (await world.data(ref, "turn.started"))[-1].carried == 0
        after = await world.frames(ref, receipt, after=before[-1].cursor)
        assert after[0].what.type == "turn.started"
        assert after[0].cursor.offset == 0
        await stream.aclose()


async def test_p8_a_whole_answer_that_waits_for_its_commit_is_gone_on_with(monkeypatch: pytest.MonkeyPatch):
    """The log is away as the model ends, and then its replica dies: the successor has what readers have."""
    commit, asked, tries = MemoryLog.commit, [], []

    async with fleet(lambda turn: agent(turn), count=2) as world:
        ref, dying = await world.session(), world.ones[0]

        async def shown() -> bool:
            return await dying.hot.read(ref) is not None

        async def model(context):
            asked.append(context)
            yield "one "
            if len(asked) == 1:
                await wait_until(shown, description="the first word is out")
            yield "two"

        async def agent(turn: Turn) -> None:
            await turn.generate(model)

        async def away(self: MemoryLog, *given: Any, **more: Any) -> Any:
            if self is dying.warm and asked:
                tries.append(given)
                raise Unavailable("away", outcome="not_applied")
            return await commit(self, *given, **more)

        monkeypatch.setattr(MemoryLog, "commit", away)
        receipt = await world.say(ref, "go")
        await wait_until(lambda: len(tries) > 1, description="the record has been tried twice")
        await world.kill()
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.output[-1]["content"][0]["text"]) == ("completed", "one two")
        assert (await world.data(ref, "turn.started"))[-1].carried == 1 + len("one ")


def crashing(effect: Any, *, until: asyncio.Event | None = None, **options: Any):
    """An agent with one tool that hangs on its first run, after its effect."""
    effects: list[str] = []
    hang, end = asyncio.Event(), until or asyncio.Event()

    @tool(effect, **options)
    async def act(call: Call) -> str:
        effects.append(call.key)
        if len(effects) == 1:
            hang.set()
            await end.wait()
        return "done"

    async def model(context):
        if context.items[-1]["type"] == "function_call_output":
            yield str(context.items[-1]["output"])
        else:
            yield ToolCall("act")

    async def agent(turn: Turn) -> None:
        while (reply := await turn.generate(model, tools=[act])).calls:
            await turn.perform(reply)

    return agent, effects, hang


async def raising(error: Exception) -> None:
    raise error


async def crash(world: Fleet, hang: asyncio.Event):
    ref = await world.session()
    receipt = await world.say(ref, "go")
    await hang.wait()
    await world.kill()
    return ref, await world.end_of(ref, receipt)


async def test_p10_what_the_hot_tier_missed_comes_with_what_follows():
    """A moment without it leaves no gap that would keep the rest of the answer from readers elsewhere; what came last
    before the model paused follows by itself."""
    model = Telling("one two three four five six")
    model.stop_after = 5

    async def agent(turn: Turn) -> None:
        await turn.generate(model)

    async with fleet(agent, count=2) as world:
        hot: Any = world.ones[0].hot
        publish, failures = hot.publish, iter([True, True])

        async def falters(batches):
            if next(failures, False):
                raise Unavailable("away", outcome="not_applied")
            return await publish(batches)

        hot.publish = falters
        ref = await world.session()
        _, frames = await stopped(world, model, ref)
        assert "".join(streamed(frames).values()).split() == ["one", "two", "three", "four", "five"]
        model.stop_after = 10_000
        await world.kill()


@pytest.mark.parametrize("effect", ["read", "keyed"])
async def test_p7_reads_and_keyed_calls_run_again_under_the_same_key(effect: str):
    """After a crash in the window the call is made again, with the key it had."""
    agent, effects, hang = crashing(effect)
    async with fleet(agent, count=2) as world:
        _, turn = await crash(world, hang)
        assert turn.status == "completed"
        assert len(effects) == 2
        assert len(set(effects)) == 1


async def test_p7_a_once_call_is_never_run_again_by_itself():
    """Its outcome is unknown, and the model is told so."""
    agent, effects, hang = crashing("once")
    async with fleet(agent, count=2) as world:
        _, turn = await crash(world, hang)
        assert turn.status == "completed"
        assert len(effects) == 1
        assert "unknown" in turn.output[-1]["content"][0]["text"]


async def test_p7_a_once_call_of_a_dropped_turn_is_not_run_again():
    """The replica lives, but its task is gone and nobody knows what it did: that counts as a death."""
    late = asyncio.Event()
    agent, effects, hang = crashing("once", until=late)
    async with fleet(agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await hang.wait()
        replica = world.ones[0].replica
        zombie = replica.running(ref)
        gone = asyncio.create_task(raising(RuntimeError("a defect of ours")))
        await asyncio.wait((gone,))
        replica._turns[ref] = gone
        replica._ran(ref, gone)
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.attempt) == ("completed", 2)
        assert len(effects) == 1
        assert "the process that ran it died" in turn.output[-1]["content"][0]["text"]
        late.set()
        assert zombie is not None
        await asyncio.wait((zombie,))
        assert len(await world.data(ref, "turn.completed")) == 1


@pytest.mark.parametrize(("finding", "runs"), [(Happened("found"), 1), (DidNotHappen(), 2), (None, 1)])
async def test_p7_a_probe_finds_out(finding, runs: int):
    """A probe's finding becomes the output, lets the call run, or leaves it unknown."""

    async def probe(call: Call):
        return finding

    agent, effects, hang = crashing("once", crash=Crash("probe", probe))
    async with fleet(agent, count=2) as world:
        _, turn = await crash(world, hang)
        assert turn.status == "completed"
        assert len(effects) == runs
        expected = {1: "found" if finding else "unknown", 2: "done"}[runs]
        assert expected in turn.output[-1]["content"][0]["text"]


@pytest.mark.parametrize(("decision", "runs", "says"), [("approve", 2, "done"), ("deny", 1, "unknown")])
async def test_p7_a_human_decides(decision: Any, runs: int, says: str):
    """`ask`: the turn waits; approving runs the call, denying leaves its outcome unknown."""
    agent, effects, hang = crashing("once", crash=Crash("ask"))
    async with fleet(agent, count=2) as world:
        ref, turn = await crash(world, hang)
        assert turn.status == "waiting"
        assert turn.actions[0].reason == "unknown_outcome"
        await world.say(ref, Approval(turn.actions[0].call_id, decision))
        turn = await world.any.turn(ref, turn.id, wait=timedelta(seconds=20))
        assert len(effects) == runs
        assert says in turn.output[-1]["content"][0]["text"]


async def test_p7_a_transactional_call_happens_exactly_once():
    """What the tool writes and the record of it are one commit: after a crash before it, nothing had happened."""
    hang = asyncio.Event()
    runs: list[int] = []

    @tool("transactional")
    async def pay(call: Call) -> str:
        runs.append(1)
        assert call.transaction is not None
        ((total,),) = await call.transaction.execute("add", ["paid", 5])
        if len(runs) == 1:
            hang.set()
            await asyncio.Event().wait()
        return str(total)

    async def model(context):
        if context.items[-1]["type"] == "function_call_output":
            yield str(context.items[-1]["output"])
        else:
            yield ToolCall("pay")

    async def agent(turn: Turn) -> None:
        while (reply := await turn.generate(model, tools=[pay])).calls:
            await turn.perform(reply)

    async with fleet(agent, count=2) as world:
        _, turn = await crash(world, hang)
        assert len(runs) == 2
        assert turn.output[-1]["content"][0]["text"] == "5"


async def test_p7_an_impatient_agent_may_interrupt_the_answer_to_a_tools_commit(monkeypatch: pytest.MonkeyPatch):
    """What was committed is found; the tool's writes stand beside its one record, and the turn goes on and ends."""
    commit, runs = MemoryTransaction.commit, []

    async def commit_and_never_say(self: MemoryTransaction, decide):
        await commit(self, decide)
        await asyncio.Event().wait()

    @tool("transactional")
    async def pay(call: Call) -> str:
        assert call.transaction is not None
        ((total,),) = await call.transaction.execute("add", ["paid", 5])
        return str(total)

    async def model(context):
        yield ToolCall("pay")

    async def agent(turn: Turn) -> None:
        runs.append(turn.id)
        reply = await turn.generate(model, tools=[pay])
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(turn.perform(reply), 0.25)
        await turn.say("Paid, I think.")

    monkeypatch.setattr(MemoryTransaction, "commit", commit_and_never_say)
    async with fleet(agent) as world:
        ref = await world.session()
        turn = await world.ask(ref, "go")
        assert turn.status == "completed"
        assert len(runs) == 1
        assert [item["output"] for item in turn.output if item["type"] == "function_call_output"] == ["5"]
        assert msgspec.msgpack.decode(world.database.scratch["paid"]) == 5


async def test_p6_recorded_steps_are_not_repeated():
    """The successor is answered from the log up to the crash; only the open step is done again."""
    asked: list[int] = []
    worked: list[int] = []
    hang = asyncio.Event()

    async def model(context):
        asked.append(len(context.items))
        yield f"answer {len(asked)}"

    async def work() -> int:
        worked.append(1)
        return 7

    async def agent(turn: Turn) -> None:
        await turn.generate(model)
        assert await turn.step("work", work) == 7
        await turn.generate(model)
        await turn.emit("recorded")
        if not hang.is_set():
            hang.set()
            await asyncio.Event().wait()

    async with fleet(agent, count=2) as world:
        _, turn = await crash(world, hang)
        assert [item["content"][0]["text"] for item in turn.output] == ["answer 1", "answer 2"]
        assert (asked, worked) == ([1, 2], [1])


async def test_p5_a_turn_that_kills_three_replicas_is_poisoned():
    """It fails, and the session goes on."""
    begun = asyncio.Event()

    async def agent(turn: Turn) -> None:
        if turn.text == "kill":
            begun.set()
            await asyncio.Event().wait()

    async with fleet(agent, count=4) as world:
        ref = await world.session()
        receipt = await world.say(ref, "kill")
        for _ in range(3):
            await begun.wait()
            begun.clear()
            owner = (await world.any.get(ref)).owner
            await world.kill([one.incarnation for one in world.ones].index(owner))
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.error.code) == ("failed", "poisoned")
        assert (await world.ask(ref, "fine")).status == "completed"


async def test_a_draining_replica_hands_over_at_the_next_step():
    """The step that runs is finished and recorded; another replica goes on, and no attempt is counted."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    by: list[int] = []

    async def work() -> int:
        by.append(1)
        begun.set()
        await go_on.wait()
        return len(by)

    async def agent(turn: Turn) -> None:
        await turn.step("one", work)
        await turn.step("two", work)

    async with fleet(agent, count=2) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await begun.wait()
        draining = asyncio.create_task(world.ones[0].replica.drain())
        await asyncio.sleep(0)
        go_on.set()
        await draining
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.attempt, len(by)) == ("completed", 1, 2)
        starts = await world.data(ref, "turn.started")
        assert [start.attempt for start in starts] == [1, 1]


async def test_a_replica_that_has_to_leave_cuts_its_tools_off():
    """A call that outlasts the time for draining ends there, and the next replica goes on as after a crash: otherwise
    the process would stay until it is killed, and everything of it with it.
    """
    ran: list[str] = []

    @tool("keyed")
    async def slow() -> str:
        ran.append("begun")
        if len(ran) == 1:
            await asyncio.Event().wait()
        return "done"

    async def agent(turn: Turn) -> None:
        await turn.call(slow)

    tuning = Tuning(bury_every=timedelta(milliseconds=10), drain_within=timedelta(milliseconds=10))
    async with fleet(agent, tuning=tuning) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(lambda: ran, description="the tool runs")
        await world.start()
        leaving = world.ones.pop(0).replica
        async with asyncio.timeout(5):
            await leaving.drain()
            await leaving.stop()
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.attempt, ran) == ("completed", 2, ["begun", "begun"])


async def test_p4_a_zombie_writes_nothing():
    """A replica that was declared dead while it was paused finds its writes refused and leaves its turn."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    runs: list[str] = []

    async def work() -> str:
        runs.append("x")
        if len(runs) == 1:
            begun.set()
            await go_on.wait()
        return f"run {len(runs)}"

    async def agent(turn: Turn) -> None:
        await turn.say(await turn.step("work", work))

    async with fleet(agent, count=2) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await begun.wait()
        world.database.kill(world.ones[0].incarnation)
        turn = await world.end_of(ref, receipt)
        before = await world.types(ref)
        go_on.set()
        await wait_until(lambda: world.ones[0].replica.turns == 0, description="the zombie to leave")
        assert await world.types(ref) == before
        assert turn.output[-1]["content"][0]["text"] == "run 2"


async def test_p5_a_poisonous_turn_takes_no_neighbour_with_it():
    """Turns on their last attempt run one at a time on a replica, so the third death convicts only its cause."""
    deaths: list[str] = []
    hangs = asyncio.Event()

    async def agent(turn: Turn) -> None:
        if turn.text == "kill":
            deaths.append("x")
            hangs.set()
            await asyncio.Event().wait()
        for _ in range(3):
            await turn.step("work", _nothing)
            await hangs.wait() if len(deaths) < 3 else None

    async with fleet(agent, count=4) as world:
        innocent = [await world.session() for _ in range(6)]
        receipts = [await world.say(ref, "work") for ref in innocent]
        poison = await world.session()
        poisoned = await world.say(poison, "kill")
        for count in (1, 2, 3):
            await wait_until(partial(_count_is, deaths, count), description=f"death {count}")
            owner = (await world.any.get(poison)).owner
            await world.kill([one.incarnation for one in world.ones].index(owner))
        assert (await world.end_of(poison, poisoned)).error.code == "poisoned"
        for ref, receipt in zip(innocent, receipts, strict=True):
            assert (await world.end_of(ref, receipt)).status == "completed"


def _count_is(found: list[str], count: int) -> bool:
    return len(found) == count


async def _nothing() -> None:
    await asyncio.sleep(0)


async def test_a_turn_that_goes_on_here_keeps_its_watcher():
    """The task of a parked turn may end after the one that goes on with it has begun: it takes only its own leave."""
    hub, ref, heard = Hub(MemoryLog(MemoryDatabase()), MemoryHot()), Ref("t", "s"), []

    def old(head: int | None) -> None:
        heard.append("old")

    def new(head: int | None) -> None:
        heard.append("new")

    hub.watch(ref, old)
    hub.watch(ref, new)
    hub.unwatch(ref, old)
    await hub.sweep()
    hub.unwatch(ref, new)
    await hub.sweep()
    assert heard == ["new"]


async def test_a_turn_that_wrote_of_late_is_not_asked_to_look():
    """The poll behind the hints asks those that may have missed one: whoever wrote has seen what was there."""
    hub, ref, heard = Hub(MemoryLog(MemoryDatabase()), MemoryHot()), Ref("t", "s"), list[int | None]()
    hub.watch(ref, heard.append)
    await hub.sweep()
    hub.announce(ref, Session("s", "t", head=7), ())
    await hub.sweep()
    assert heard == [None, 7]
    await hub.sweep()
    assert heard == [None, 7, None]


async def test_a_run_ends_when_another_replica_has_begun_its_turn_anew():
    """Nothing that it writes would be taken; it is not to pay a model until it tries."""
    asked, go_on = list[str](), asyncio.Event()

    async def model(context):
        asked.append("asked")
        await go_on.wait()
        yield "answer"

    async def agent(turn: Turn) -> None:
        await turn.generate(model)

    async with fleet(agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await wait_until(lambda: asked, description="the model to be asked")
        first = world.ones[0].replica.running(ref)
        assert first is not None
        await world.start()
        world.database.kill(world.ones[0].incarnation)
        await wait_until(first.done, description="the first run to end")
        assert len(asked) == 2 and not first.cancelled() and first.exception() is None
        go_on.set()
        assert (await world.end_of(ref, receipt)).attempt == 2


async def test_p8_a_death_over_the_answer_to_a_message_that_joined():
    """The agent had run once more for it: the successor's repetition of that answer is suppressed, too."""
    model = Telling("first", "one two three four", "one two three four")
    asked, go = asyncio.Event(), asyncio.Event()

    async def gated(context):
        async for word in model(context):
            yield word
        if not asked.is_set():
            asked.set()
            await go.wait()

    async def agent(turn: Turn) -> None:
        await turn.generate(gated)

    async with fleet(agent, count=2) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        await asked.wait()
        await world.say(ref, Message("and more", on_busy="steer"))
        model.stop_after, model.said = 2, 0
        go.set()
        await wait_until(lambda: model.said >= 2, description="the model to stop")

        def shown() -> bool:
            step = world.cache.find(ref)
            return step is not None and step.end == 1 + len("one two ")

        await wait_until(shown, description="readers have seen it")
        model.stop_after = 10_000
        await world.kill()
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.attempt) == ("completed", 2)
        messages = [item for item in turn.output if item["type"] == "message"]
        assert [item["status"] for item in messages] == ["completed"] * 2
