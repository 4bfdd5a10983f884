"""What an agent can do through its turn, and what the log says afterwards."""

import asyncio
from contextlib import aclosing, suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from dalsegno.agents.tool import Crash, outside, tool
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import ItemDone
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Approval, Cancel, Message, ToolResult
from dalsegno.core.item import text_of
from dalsegno.core.part import Arguments, Thought, ToolCall, Usage
from dalsegno.core.stream import Piece
from dalsegno.errors import Refused
from dalsegno.ports import Call
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.publisher import PACE_SECONDS
from dalsegno.runtime.recorder import Recorder
from dalsegno.runtime.replica import Tuning
from tests.runtime.fleet import fleet, streamed
from tests.support import wait_until


def last(context) -> str:
    return str(context.items[-1]["type"])


async def echo(turn: Turn) -> None:
    await turn.say(f"you said {turn.text}")


async def test_an_answer_and_the_end_are_one_commit():
    """Admission and claim are one commit, so are the answer and the end: a plain turn costs two."""
    async with fleet(echo) as world:
        ref, commit, commits = await world.session(), world.ones[0].warm.commit, []

        async def counted(*given: Any, **named: Any) -> Any:
            commits.append(given)
            return await commit(*given, **named)

        world.ones[0].warm.commit = counted  # type: ignore[method-assign]
        turn = await world.ask(ref, "hi")
        assert turn.status == "completed"
        assert len(commits) == 2
        assert turn.output[0]["content"][0]["text"] == "you said hi"
        assert await world.types(ref) == [
            "session.created",
            "turn.created",
            "turn.started",
            "item.done",
            "turn.completed",
        ]


def looking() -> list[asyncio.Task[Any]]:
    """The turns' looks at the log that are under way."""
    return [task for task in asyncio.all_tasks() if task.get_coro().__qualname__ == "Recorder._look"]  # type: ignore[union-attr]


async def test_a_look_that_outlasts_its_turn_folds_nothing_into_the_next_ones_transcript():
    """A turn that hears of news as it ends looks at the log a moment later: its transcript is its successor's then."""
    async with fleet(echo) as world:
        one, let = world.ones[0], asyncio.Event()
        unwatch, read, take = one.replica.hub.unwatch, one.shelf.read, one.replica._around.contexts.take
        told, taken = list[bool](), list[int]()

        def ends(ref, poke):
            unwatch(ref, poke)
            if not told:
                poke(None)
                told.append(bool(looking()))

        async def held(ref, **named):
            if asyncio.current_task() in looking():
                await let.wait()
            return await read(ref, **named)

        async def late(*given, **named):
            transcript = await take(*given, **named)
            let.set()
            await wait_until(lambda: not looking(), description="the look to end")
            taken.append(transcript.head)
            return transcript

        one.replica.hub.unwatch = ends  # type: ignore[method-assign]
        ref = await world.session()
        one.shelf.read = held  # type: ignore[method-assign]
        assert (await world.ask(ref, "one")).status == "completed"
        assert told == [True]
        one.replica._around.contexts.take = late  # type: ignore[method-assign]
        turn = await asyncio.wait_for(world.ask(ref, "two"), 20)
        assert (turn.status, turn.error, turn.attempt) == ("completed", None, 1)
        assert turn.output[0]["content"][0]["text"] == "you said two"
        assert taken == [5], "as its first turn left it"


async def test_what_is_said_and_recorded_in_one_breath_is_not_published():
    """Nobody could have read it before it was on record: a call that comes whole, and the answer to its result. Of a
    step that was shown before it was whole, the hot tier forgets what it had."""

    @tool("keyed")
    async def look(order: str) -> str:
        return order

    async def model(context):
        if last(context) == "function_call_output":
            yield "it is there"
            if slow:
                await published.wait()
        else:
            yield ToolCall("look", {"order": "o1"})

    async def agent(turn: Turn) -> None:
        while (reply := await turn.generate(model, tools=[look])).calls:
            await turn.perform(reply)

    asked: list[str] = []
    published = asyncio.Event()
    async with fleet(agent) as world:
        hot = world.ones[0].hot

        def watched(name: str) -> None:
            work = getattr(hot, name)

            async def call(*given: Any) -> Any:
                answer = await work(*given)
                asked.append(name)
                published.set()
                return answer

            setattr(hot, name, call)

        watched("publish")
        watched("clear")
        ref = await world.session()
        slow = False
        assert (await world.ask(ref, "hi")).status == "completed"
        assert asked == []
        slow = True
        assert (await world.ask(ref, "hi")).status == "completed"
        await wait_until(lambda: len(asked) >= 2, description="it is forgotten")
        assert asked == ["publish", "clear"]


async def test_a_tool_call_is_recorded_before_and_after():
    """The call and its intent are one commit, before the effect; the output is the next."""
    seen: list[str] = []

    @tool("keyed")
    async def pay(call: Call, amount: int) -> dict:
        seen.append(call.key)
        return {"paid": amount}

    async def model(context):
        if last(context) == "function_call_output":
            yield "done"
            yield Usage({"output_tokens": 2})
        else:
            yield Thought("hm")
            yield ToolCall("pay", {"amount": 3})
            yield Usage({"output_tokens": 1})

    async def agent(turn: Turn) -> None:
        while (reply := await turn.generate(model, tools=[pay])).calls:
            assert await turn.perform(reply) == ['{"paid":3}']

    async with fleet(agent) as world:
        ref = await world.session()
        turn = await world.ask(ref, "pay")
        assert [item["type"] for item in turn.output] == [
            "reasoning",
            "function_call",
            "function_call_output",
            "message",
        ]
        assert turn.usage == {"output_tokens": 3}
        assert (await world.types(ref))[3:] == [
            "item.done",
            "item.done",
            "tool.intent",
            "item.done",
            "item.done",
            "turn.completed",
        ]
        assert seen == [(await world.data(ref, "tool.intent"))[0].key]


async def test_parallel_calls_run_side_by_side_and_bad_ones_are_answered():
    """Unknown tools, arguments that do not fit and tools that raise become outputs that the model is shown."""
    gate = asyncio.Event()

    @tool("read")
    async def first(n: int) -> int:
        await gate.wait()
        return n

    @tool("read")
    async def second(n: int) -> int:
        gate.set()
        raise ValueError("no")

    outputs: list[str] = []

    async def model(context):
        if last(context) == "function_call_output":
            yield "done"
            return
        yield ToolCall("first", {"n": 1})
        yield ToolCall("second", {"n": 2})
        yield ToolCall("third")
        yield ToolCall("first", {"n": "x"})
        yield ToolCall("first", "{")

    async def agent(turn: Turn) -> None:
        reply = await turn.generate(model, tools=[first, second])
        outputs.extend(await turn.perform(reply))
        await turn.generate(model)

    async with fleet(agent) as world:
        ref = await world.session()
        assert (await world.ask(ref, "go")).status == "completed"
        assert outputs[0] == "1"
        assert outputs[1] == "Error: ValueError: no"
        assert "no tool named 'third'" in outputs[2]
        assert "do not fit" in outputs[3]
        assert "not a JSON object" in outputs[4]


async def test_an_approval_parks_the_turn_and_holds_nothing():
    """A gated call waits in the log; the decision comes to any replica, once."""
    ran: list[str] = []

    @tool("once", gate="approval")
    async def wipe(call: Call) -> str:
        ran.append(call.id)
        return "wiped"

    async def model(context):
        if last(context) == "function_call_output":
            yield "done"
        else:
            yield ToolCall("wipe")

    async def agent(turn: Turn) -> None:
        while (reply := await turn.generate(model, tools=[wipe])).calls:
            await turn.perform(reply)

    async with fleet(agent, count=2) as world:
        ref = await world.session()
        turn = await world.ask(ref, "wipe it")
        assert turn.status == "waiting"
        (action,) = turn.actions
        assert (action.type, action.name, ran) == ("approval", "wipe", [])
        assert (await world.any.get(ref)).owner is None
        receipt = await world.say(ref, Approval(action.call_id, "approve"), place=1)
        turn = await world.end_of(ref, receipt)
        assert (turn.status, ran) == ("completed", [action.call_id])
        with pytest.raises(Refused, match="already_decided"):
            await world.say(ref, Approval(action.call_id, "approve"))
        with pytest.raises(Refused, match="no_such_action"):
            await world.say(ref, ToolResult(action.call_id, output="no approval"))
        with pytest.raises(Refused, match="no_such_action"):
            await world.say(ref, Approval("unknown", "approve"))


async def test_a_denied_call_is_not_carried_out():
    """The model is told that a human said no, and why."""

    @tool("once", gate="approval")
    async def wipe() -> str:
        raise AssertionError("must not run")

    async def model(context):
        if last(context) == "function_call_output":
            yield str(context.items[-1]["output"])
        else:
            yield ToolCall("wipe")

    async def agent(turn: Turn) -> None:
        while (reply := await turn.generate(model, tools=[wipe])).calls:
            await turn.perform(reply)

    async with fleet(agent) as world:
        ref = await world.session()
        turn = await world.ask(ref, "wipe it")
        await world.say(ref, Approval(turn.actions[0].call_id, "deny", "not today"))
        turn = await world.any.turn(ref, turn.id, wait=timedelta(seconds=20))
        assert "denied" in turn.output[-1]["content"][0]["text"]
        assert "not today" in turn.output[-1]["content"][0]["text"]


async def test_outside_tools_and_questions_wait_for_their_answers():
    """A call that somebody else carries out, and a question of the agent's own, are answered by `tool_result`."""
    weather = outside("weather")

    async def model(context):
        if last(context) == "function_call_output":
            yield "done"
        else:
            yield ToolCall("weather", {"city": "Bern"})

    heard: list[str] = []

    async def agent(turn: Turn) -> None:
        reply = await turn.generate(model, tools=[weather])
        heard.extend(await turn.perform(reply))
        heard.append(await turn.ask("Which colour?"))

    async with fleet(agent) as world:
        ref = await world.session()
        turn = await world.ask(ref, "go")
        await world.say(ref, ToolResult(turn.actions[0].call_id, output="sunny"))
        await wait_until(lambda: _waiting(world, ref, "ask"), description="the question")
        turn = await world.any.turn(ref, turn.id)
        await world.say(ref, ToolResult(turn.actions[0].call_id, output="blue"))
        turn = await world.any.turn(ref, turn.id, wait=timedelta(seconds=20))
        assert turn.status == "completed"
        assert heard[-2:] == ["sunny", "blue"]


async def _waiting(world, ref, name: str) -> bool:
    running = (await world.any.get(ref)).running
    return running is not None and any(action.name == name for action in running.actions)


async def test_nobody_answers_in_time():
    """An action with a deadline decides itself; the turn goes on with an error instead of an answer."""

    async def agent(turn: Turn) -> None:
        await turn.say(await turn.ask("There?", within=timedelta(milliseconds=50)))

    async with fleet(agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "hi")
        await wait_until(lambda: _ended(world, ref), description="the turn's end")
        turn = await world.end_of(ref, receipt)
        assert turn.output[-1]["content"][0]["text"] == "nobody answered in time"


async def _ended(world, ref) -> bool:
    return (await world.any.get(ref)).status == "idle"


async def test_steps_events_and_failures():
    """Named steps are recorded, custom events are seen by readers only, an exception fails the turn and nothing
    else.
    """
    runs: list[int] = []

    async def work() -> dict:
        runs.append(1)
        return {"n": len(runs)}

    async def agent(turn: Turn) -> None:
        assert await turn.step("work", work) == {"n": 1}
        await turn.emit("progress", {"percent": 50})
        assert await turn.step("work", work) == {"n": 2}
        raise RuntimeError("broken")

    async with fleet(agent) as world:
        ref = await world.session()
        turn = await world.ask(ref, "hi")
        assert (turn.status, turn.error.code, turn.error.message) == ("failed", "RuntimeError", "broken")
        kinds = [data.item["type"] for data in await world.data(ref, "item.done")]
        assert kinds == ["dalsegno:step", "dalsegno:event", "dalsegno:step"]
        assert (await world.any.items(ref, after=0, limit=100))[0][0]["role"] == "user"
        assert (await world.ask(ref, "again")).status == "failed"


async def test_busy_policies():
    """queue keeps order, reject refuses, interrupt cancels and runs, rollback hides what it cancelled."""
    gates: dict[str, asyncio.Event] = {}
    shown: list[list[str]] = []

    async def model(context):
        texts = [str(item["content"][0]["text"]) for item in context.items if item.get("role") == "user"]
        shown.append(texts)
        yield "part "
        await gates.setdefault(texts[-1], asyncio.Event()).wait()
        yield texts[-1]

    async def agent(turn: Turn) -> None:
        await turn.generate(model)

    async with fleet(agent) as world:
        ref = await world.session()
        one = await world.say(ref, "one")
        two = await world.say(ref, "two")
        with pytest.raises(Refused, match="session_busy"):
            await world.say(ref, Message("no", on_busy="reject"))
        gates.setdefault("one", asyncio.Event()).set()
        gates.setdefault("two", asyncio.Event()).set()
        assert (await world.end_of(ref, one)).status == "completed"
        assert (await world.end_of(ref, two)).status == "completed"
        three = await world.say(ref, "three")
        await wait_until(lambda: bool(shown) and shown[-1][-1] == "three", description="three to run")
        gates["four"] = asyncio.Event()
        four = await world.say(ref, Message("four", on_busy="interrupt"))
        cancelled = await world.end_of(ref, three)
        assert cancelled.status == "cancelled"
        assert cancelled.output[0]["status"] == "incomplete"
        await wait_until(lambda: shown[-1][-1] == "four", description="four to run")
        gates.setdefault("five", asyncio.Event()).set()
        five = await world.say(ref, Message("five", on_busy="rollback"))
        assert (await world.end_of(ref, four)).status == "cancelled"
        assert (await world.end_of(ref, five)).status == "completed"
        assert shown[-1] == ["one", "two", "three", "five"]
        conversation, _ = await world.any.items(ref, after=0, limit=1000)
        assert "four" not in str(conversation)


async def test_steering_joins_the_running_turn_even_as_it_ends():
    """A message that arrives during the last model call is answered in the same turn, by a model that is asked with it
    as the last of the conversation: behind the answer that knew nothing of it.
    """
    arrived, go_on = asyncio.Event(), asyncio.Event()
    shown = list[list[str]]()

    async def model(context):
        shown.append([str(item["content"][0]["text"]) for item in context.items])
        arrived.set()
        await go_on.wait()
        yield f"heard {shown[-1][-1]}"

    async def agent(turn: Turn) -> None:
        await turn.generate(model)

    async with fleet(agent) as world:
        ref = await world.session()
        one = await world.say(ref, "one")
        await arrived.wait()
        steered = await world.say(ref, Message("two", on_busy="steer"))
        assert (steered.status, steered.turn) == ("steered", one.turn)
        go_on.set()
        turn = await world.end_of(ref, one)
        assert [item["content"][0]["text"] for item in turn.output] == ["heard one", "heard two"]
        assert shown == [["one"], ["one", "heard one", "two"]]
        assert (await world.types(ref)).count("turn.completed") == 1


async def test_cancel_stops_a_running_a_queued_and_a_waiting_turn():
    """Each ends as cancelled, exactly once; an effect that has begun is seen through."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    @tool("once")
    async def slow() -> str:
        begun.set()
        await go_on.wait()
        return "happened"

    async def model(context):
        yield ToolCall("slow")

    async def agent(turn: Turn) -> None:
        if turn.text == "wait":
            await turn.ask("?")
        await turn.perform(await turn.generate(model, tools=[slow]))

    async with fleet(agent) as world:
        ref = await world.session()
        running = await world.say(ref, "run")
        await begun.wait()
        queued = await world.say(ref, "never")
        turn = (await world.any.turn(ref, (await _id(world, ref, queued)))).id
        assert (await world.say(ref, Cancel(turn=turn))).status == "done"
        assert (await world.say(ref, Cancel())).status == "running"
        go_on.set()
        ended = await world.end_of(ref, running)
        assert ended.status == "cancelled"
        assert ended.output[-1]["output"] == "happened"
        waiting = await world.ask(ref, "wait")
        assert waiting.status == "waiting"
        assert (await world.say(ref, Cancel())).status == "done"
        with pytest.raises(Refused, match="already_decided"):
            await world.say(ref, Cancel(turn=waiting.id))
        types = await world.types(ref)
        assert types.count("turn.created") == types.count("turn.cancelled") == 3


async def _id(world, ref, receipt) -> str:
    from dalsegno.core.ids import turn_id

    return turn_id(ref.id, receipt.turn)


async def test_a_deleted_sessions_turn_stops_at_once():
    """It has nothing to write to any more: what it waits for is let go, and a model is not paid to the end."""
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def agent(turn: Turn) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with fleet(agent) as world:
        ref = await world.session()
        await world.say(ref, "go")
        await begun.wait()
        await world.any.delete(ref)
        await asyncio.wait_for(stopped.wait(), 20)


async def test_identical_calls_share_a_result_where_the_tool_asks_for_it():
    """`dedupe="session"`: the same arguments in another spelling, in another turn, are answered from the record."""
    ran: list[int] = []

    @tool("once", dedupe="session")
    async def send(to: str, n: int) -> str:
        ran.append(n)
        return f"sent {n}"

    async def model(context):
        if last(context) == "function_call_output":
            yield str(context.items[-1]["output"])
        else:
            yield ToolCall("send", '{"to": "x", "n": 1}' if not ran else '{"n":1,"to":"x"}')

    async def agent(turn: Turn) -> None:
        while (reply := await turn.generate(model, tools=[send])).calls:
            await turn.perform(reply)

    async with fleet(agent) as world:
        ref = await world.session()
        for _ in range(3):
            turn = await world.ask(ref, "go")
            assert turn.output[-1]["content"][0]["text"] == "sent 1"
        assert ran == [1]


async def test_a_large_output_goes_to_cold_storage_whole():
    """The log and the model get a preview and a pointer; the agent and the artifact route get every byte."""
    text = "ü" * 100_000
    got: list[bytes] = []

    @tool("read")
    async def read() -> str:
        return text

    async def model(context):
        if last(context) == "function_call_output":
            assert len(str(context.items[-1]["output"])) < 3000
            yield "done"
        else:
            yield ToolCall("read")

    async def agent(turn: Turn) -> None:
        await turn.perform(await turn.generate(model, tools=[read]))
        pointer: Any = turn.context.items[-1]["artifact"]
        got.append(await turn.artifact(pointer["id"]))
        await turn.generate(model)

    async with fleet(agent) as world:
        ref = await world.session()
        turn = await world.ask(ref, "go")
        assert turn.status == "completed"
        assert got == [text.encode()]
        pointer = turn.output[1]["artifact"]["id"]
        assert await world.any.artifact("t", pointer) == text.encode()
        with pytest.raises(Refused, match="not_found"):
            await world.any.artifact("other", pointer)
        fork = await world.any.fork(ref, at=None)
        await world.any.delete(ref)
        with pytest.raises(Refused, match="not_found"):
            await world.any.artifact("t", pointer)
        assert await world.any.artifact("t", pointer.replace(ref.id, fork.id)) == text.encode()


async def test_the_context_stays_within_its_limit_and_says_so():
    """When the conversation outgrows the limit, a note names the prefix that it stands for; the log keeps
    everything.
    """
    sizes: list[int] = []

    async def model(context):
        sizes.append(sum(len(str(item)) for item in context.items))
        yield "x" * 500

    async def agent(turn: Turn) -> None:
        await turn.generate(model)

    async with fleet(agent, tuning=Tuning(context_limit_bytes=10_000)) as world:
        ref = await world.session()
        for n in range(60):
            assert (await world.ask(ref, f"{n} " + "y" * 500)).status == "completed"
        assert max(sizes) < 16_000
        notes = await world.data(ref, "context.summarized")
        assert notes
        assert f"up to its event {notes[-1].through}" in str(notes[-1].item)
        done = [data for data in await world.data(ref, "item.done") if isinstance(data, ItemDone)]
        assert len(done) == 60


async def test_a_deadline_ends_a_turn():
    """A turn that takes longer than it may fails as `deadline_exceeded`."""

    async def agent(turn: Turn) -> None:
        await asyncio.Event().wait()

    async with fleet(agent, tuning=Tuning(turn_deadline=timedelta(milliseconds=50))) as world:
        ref = await world.session()
        assert (await world.ask(ref, "hi")).error.code == "deadline_exceeded"


async def test_undeclared_functions_need_a_declaration():
    """`Crash(policy="probe")` without a probe is refused when the tool is made, not after a crash."""
    with pytest.raises(Exception, match="probe"):
        tool("once", crash=Crash(policy="probe"))


async def test_models_side_by_side_keep_their_texts_apart():
    """One model is streamed, another that speaks meanwhile is recorded whole; steps of one name get a number each."""
    both = asyncio.Barrier(2)

    def model(words: str):
        async def speak(context):
            for word in words.split():
                yield f"{word} "
                await asyncio.sleep(0)

        return speak

    async def work() -> int:
        return await both.wait()

    async def agent(turn: Turn) -> None:
        one, two = await asyncio.gather(
            turn.generate(model("one two three"), name="a"), turn.generate(model("uno due tre"), name="b")
        )
        assert (one.text, two.text) == ("one two three ", "uno due tre ")
        assert sorted(await asyncio.gather(turn.step("w", work), turn.step("w", work))) == [0, 1]

    async with fleet(agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        turn = await world.end_of(ref, receipt)
        assert (turn.status, turn.error) == ("completed", None)
        done = await world.data(ref, "item.done")
        assert sorted(data.step for data in done) == ["a#1", "b#1", "w#1", "w#2"]
        assert [data.streamed for data in done[:2]].count(True) == 1


class Live:
    """A reader, and models that say the next word when the reader has the one before."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.begun = asyncio.Event()
        self.begun.set()

    def model(self, words: str, *, fails: bool = False):
        async def speak(context):
            await self.begun.wait()
            for word in words.split():
                yield word
                await wait_until(partial(self.has, word), description=f"readers have {word}")
            if fails:
                raise ValueError(words)

        return speak

    def has(self, word: str) -> bool:
        return any(word in frame.what.delta for frame in self.frames if isinstance(frame.what, Piece))

    async def follow(self, agent) -> dict[str, str]:
        """What the reader had of each item before it was done; each is as it is on record."""
        async with fleet(agent) as world:
            ref = await world.session()
            receipt = await world.say(ref, "go")
            stream = await world.any.follow(ref, after=Cursor(receipt.seq - 1), turn=turn_id(ref.id, receipt.turn))
            async with aclosing(stream):
                async for frame in stream:
                    self.frames.append(frame)
            shown = streamed(self.frames)
            done = [data.item for data in await world.data(ref, "item.done") if data.streamed]
            assert {str(item["id"]): text_of(item) for item in done}.items() >= shown.items()
        return shown


async def test_p8_what_is_said_behind_an_answer_that_waits_to_be_recorded_begins_behind_it():
    """Models begin while answers before them are still to be written: readers have the text of the one that is streamed
    whole, and nothing of what is said beside it.
    """
    live = Live()

    async def at_once(context):
        yield "at once"

    async def beside(context):
        yield "un"
        await asyncio.sleep(5 * PACE_SECONDS)  # readers could be shown it
        live.begun.set()
        yield "heard"

    async def agent(turn: Turn) -> None:
        await turn.generate(at_once)
        live.begun.clear()
        said = (at_once, live.model("uno due"), beside)
        await asyncio.gather(*(turn.generate(model, name=f"model {n}") for n, model in enumerate(said)))
        await turn.generate(live.model("eins zwei"))

    assert [*(await live.follow(agent)).values()] == ["unodue", "einszwei"]


async def test_p8_an_answer_may_be_given_while_the_next_model_is_about_to_begin(monkeypatch: pytest.MonkeyPatch):
    """Another model has spoken since it was looked up what is on record: that is to be recorded first."""
    live, said, look = Live(), asyncio.Event(), Recorder._look

    async def slowly(recorder: Recorder) -> None:
        await look(recorder)
        task = asyncio.current_task()
        if task is not None and task.get_name() == "late":
            await said.wait()

    async def at_once(context):
        yield "at once"

    async def agent(turn: Turn) -> None:
        late = asyncio.create_task(turn.generate(live.model("uno due"), name="late"), name="late")
        await asyncio.sleep(0)
        await turn.generate(at_once)
        said.set()
        await late

    monkeypatch.setattr(Recorder, "_look", slowly)
    assert [*(await live.follow(agent)).values()] == ["unodue"]


async def test_p8_another_answer_is_shown_as_it_comes():
    """The model failed, and says something else, or less, when it is asked again."""
    live = Live()

    async def agent(turn: Turn) -> None:
        with suppress(ValueError):
            await turn.generate(live.model("one two", fails=True))
        await turn.generate(live.model("uno due"))
        with suppress(ValueError):
            await turn.generate(live.model("eins zwei", fails=True))
        await turn.generate(live.model("eins"))

    assert [*(await live.follow(agent)).values()] == ["onetwo", "unodue", "einszwei"]


async def test_the_arguments_of_a_call_may_come_piece_by_piece():
    """Readers are shown them as they come; the call has them whole. Without a call before them they are an error."""
    shown = asyncio.Event()

    async def agent(turn: Turn) -> None:
        async def model(context):
            if turn.text == "wrong":
                yield Arguments("{}")
            yield ToolCall("add", "", "c1")
            yield Arguments('{"n"')
            await shown.wait()
            yield Arguments(":1}")

        reply = await turn.generate(model)
        assert reply.calls[0]["arguments"] == '{"n":1}'

    async with fleet(agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        deltas: list[str] = []
        stream = await world.any.follow(ref, after=Cursor(receipt.seq - 1))
        async for frame in stream:
            if isinstance(frame.what, Piece) and frame.what.field == "arguments":
                deltas.append(frame.what.delta)
                shown.set()
            if getattr(frame.what, "type", "") == "turn.completed":
                break
        assert "".join(deltas) == '{"n":1}'
        turn = await world.ask(ref, "wrong")
        assert "Arguments()" in turn.error.message
