"""Large texts of messages and answers: a claim check in the log, the beginning for models, all of it for readers."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from dalsegno.core import codec
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import Event, ItemDone, SessionCreated, TurnCreated
from dalsegno.core.idle import Policy
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Message
from dalsegno.core.item import text_of
from dalsegno.core.json import Json
from dalsegno.core.part import Thought
from dalsegno.core.stream import Piece
from dalsegno.core.tier import PREVIEW_CHARS, folder
from dalsegno.errors import Refused, Unavailable, Unreadable
from dalsegno.ports import Ref
from dalsegno.runtime.archivist import Archivist
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.replica import Tuning
from tests.runtime.fleet import TENANT, Fleet, fleet
from tests.support import wait_until

QUICK = Tuning(bury_every=timedelta(milliseconds=10), erase_every=timedelta(milliseconds=10))
LONG = "".join(f"{number} 𝄋 ä\u0000\n" for number in range(5000))
ANSWER = "".join(f"word {number} " for number in range(6000))
THOUGHT = "hm … " * 9000


class Echo:
    """An agent that thinks and answers at length, and notes what it and its model were given."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.shown: list[list[Any]] = []
        self.replies: list[str] = []
        self.hold: asyncio.Event | None = None

    async def __call__(self, turn: Turn) -> None:
        self.texts.append(turn.text)
        self.replies.append((await turn.generate(self._model, name="answer")).text)
        await turn.say(ANSWER[::-1])
        if self.hold is not None:
            await turn.emit("holding")
            await self.hold.wait()
        await turn.generate(self._short, name="last")

    async def _model(self, context):
        self.shown.append(list(context.items))
        yield Thought(THOUGHT)
        for place in range(0, len(ANSWER), 7000):
            yield ANSWER[place : place + 7000]
            await asyncio.sleep(0.002)

    async def _short(self, context):
        self.shown.append(list(context.items))
        yield "done"


async def stored(world: Fleet, ref: Ref) -> list[Event]:
    """The log as it is stored."""
    return [*await world.ones[-1].warm.read(ref, after=0)]


def sizes(events: list[Event]) -> int:
    return max(len(event.data) for event in events)


async def told(world: Fleet, ref: Ref) -> list[str]:
    """The texts of the conversation as readers get them."""
    items, _ = await world.any.items(ref, after=0, limit=100)
    return [text_of(item) for item in items]


def breaks(world: Fleet, method: str) -> Any:
    """The cold tier does not answer; returns what mends it."""

    async def nothing(*args: Any) -> Any:
        raise Unavailable("the cold tier does not answer", outcome="not_applied")

    blobs: list[Any] = [one.blobs for one in world.ones]
    for one in blobs:
        setattr(one, method, nothing)

    def mend() -> None:
        for one in blobs:
            delattr(one, method)

    return mend


async def test_readers_get_all_and_the_log_holds_the_beginning():
    """P12: code point for code point; what is stored of each is little, and says where the rest is."""
    agent = Echo()
    async with fleet(agent) as world:
        ref = await world.session()
        turn = await world.ask(ref, LONG)
        assert turn.status == "completed"
        assert await told(world, ref) == [LONG, THOUGHT, ANSWER, ANSWER[::-1], "done"]
        assert [text_of(item) for item in turn.output] == [THOUGHT, ANSWER, ANSWER[::-1], "done"]
        assert all("artifact" not in item for item in turn.output)
        assert sizes(await stored(world, ref)) < 10_000
        events = await world.any.events(ref, after=0, limit=100)
        said = codec.decode(events[1])
        assert isinstance(said, TurnCreated) and said.input == Message(LONG)
        assert (agent.texts, agent.replies) == ([LONG], [ANSWER])


async def test_models_are_shown_the_beginning_and_where_the_rest_is():
    """As of a tool's output; a function of the log, so the same on every replica. The payload is an artifact."""
    agent = Echo()
    async with fleet(agent, tuning=QUICK) as world:
        ref = await world.session()
        await world.ask(ref, LONG)
        first, last = agent.shown
        said = text_of(first[0])
        assert said.startswith(LONG[:PREVIEW_CHARS]) and len(said) < PREVIEW_CHARS + 300
        artifact = said.rsplit(" ", 1)[1].rstrip("]")
        assert (await world.any.artifact(TENANT, artifact)).decode() == LONG
        assert [len(text_of(item)) < PREVIEW_CHARS + 300 for item in last] == [True] * 4
        await world.start()
        await world.kill(0)
        await world.ask(ref, "again")
        assert agent.shown[2][: len(last)] == last


@pytest.mark.parametrize("lost", [False, True], ids=["hot", "hot tier lost"])
async def test_a_stream_is_whole_from_every_cursor(lost: bool):
    """P8: resumed in the middle of a large item, the rest of its text comes, then the item; units add up."""
    async with fleet(Echo()) as world:
        ref = await world.session()
        receipt = await world.say(ref, LONG)
        whole = await world.frames(ref, receipt, after=Cursor(receipt.seq - 1))
        if lost:
            world.cache.clear()
        durable = [frame.what for frame in whole if isinstance(frame.what, Event)]
        for cut in range(0, len(whole), 5):
            rest = await world.frames(ref, receipt, after=whole[cut].cursor)
            both = [*whole[: cut + 1], *rest]
            assert [frame.what for frame in both if isinstance(frame.what, Event)] == durable
            streamed: dict[str, str] = {}
            for frame in both:
                if isinstance(frame.what, Piece):
                    assert frame.what.item is not None or len(streamed[frame.what.item_id]) == frame.what.offset
                    streamed[frame.what.item_id] = streamed.get(frame.what.item_id, "") + frame.what.delta
            for event in durable:
                data = codec.decode(event)
                if isinstance(data, ItemDone) and str(data.item["id"]) in streamed:
                    assert text_of(data.item) == streamed[str(data.item["id"])]


async def test_a_recorded_answer_comes_back_whole_after_a_crash():
    """P6: another replica's agent is given the recorded words, not their beginning, and asks for nothing again."""
    agent = Echo()
    agent.hold = asyncio.Event()
    async with fleet(agent, count=2, tuning=QUICK) as world:
        ref = await world.session()
        receipt = await world.say(ref, LONG, place=0)

        async def holding() -> bool:
            return any(b'"holding"' in event.data for event in await world.log(ref))

        await wait_until(holding, description="the answer is on record")
        await world.kill(0)
        agent.hold.set()
        assert (await world.end_of(ref, receipt)).status == "completed"
        assert agent.texts == [LONG] * 2 and agent.replies[-1] == ANSWER
        assert len(agent.shown) == 2
        assert (await told(world, ref)).count(ANSWER) == 1


async def test_a_key_is_one_message_however_it_is_kept():
    """P2: a repeat is told the first receipt, also while the cold tier is away; another body is refused."""
    async with fleet(Echo()) as world:
        ref = await world.session()
        first = await world.say(ref, LONG, key="k1")
        await world.end_of(ref, first)
        mend = breaks(world, "put")
        breaks(world, "get")
        again = await world.say(ref, LONG, key="k1")
        assert (again.seq, again.replayed) == (first.seq, True)
        with pytest.raises(Refused, match="key_reused"):
            await world.say(ref, LONG + "!", key="k1")
        mend()


async def test_a_cold_tier_that_is_away_keeps_nobody_from_speaking():
    """The text stays in the log then, and so does the answer's."""
    async with fleet(Echo()) as world:
        ref = await world.session()
        breaks(world, "put")
        assert (await world.ask(ref, LONG)).status == "completed"
        assert world.objects == {}
        assert await told(world, ref) == [LONG, THOUGHT, ANSWER, ANSWER[::-1], "done"]


async def test_a_text_that_cannot_be_read_is_an_error():
    """P9: away, it is asked for again; lost, it is never an empty or a shorter text."""
    async with fleet(Echo()) as world:
        ref = await world.session()
        receipt = await world.say(ref, LONG)
        await world.end_of(ref, receipt)
        mend = breaks(world, "get")
        with pytest.raises(Unavailable):
            await world.any.items(ref, after=0, limit=100)
        with pytest.raises(Unavailable):
            await world.frames(ref, receipt)
        mend()
        world.objects.clear()
        with pytest.raises(Unreadable):
            await world.any.events(ref, after=0, limit=100)
        with pytest.raises(Unreadable):
            await world.frames(ref, receipt)


async def test_a_text_is_put_again_when_the_epoch_was_raised_meanwhile():
    """Between the put and the commit somebody sweeps, or runs a turn: the log points to what is there."""
    async with fleet(Echo(), tuning=QUICK) as world:
        ref = await world.session()
        await world.ask(ref, "short")
        one: Any = world.ones[0]
        put, names = one.blobs.put, []
        policy = Policy(archive_after=None, sweep_after=timedelta(0))
        archivist = Archivist(one.shelf, one.blobs, eraser=one.replica.eraser, policy=policy)

        async def meanwhile(name: str, content: bytes) -> None:
            await put(name, content)
            names.append(name)
            if len(names) == 1:
                while not await archivist.go_on():
                    pass

        one.blobs.put = meanwhile
        receipt = await world.say(ref, LONG)
        one.blobs.put = put
        assert len(names) == 2 and names[0] != names[1]
        assert names[0] not in world.objects and names[1] in world.objects
        await world.end_of(ref, receipt)
        assert LONG in await told(world, ref)


async def test_forks_exports_sweeps_and_deletions_know_large_texts():
    """A fork has its own, an export has them in full, a sweep spares them, and nothing of them outlives its session."""
    async with fleet(Echo(), tuning=QUICK) as world:
        ref = await world.session()
        await world.ask(ref, LONG)
        whole, one = await told(world, ref), world.ones[0]
        export = await world.any.events(ref, after=0, limit=100)
        fork = await world.any.fork(ref, at=None)
        policy = Policy(archive_after=timedelta(0), sweep_after=timedelta(0))
        archivist = Archivist(one.shelf, one.blobs, eraser=one.replica.eraser, policy=policy)
        while not await archivist.go_on():
            pass
        assert await told(world, ref) == whole
        await world.any.delete(ref)
        mine = folder(TENANT, ref.id)
        await wait_until(lambda: not any(name.startswith(mine) for name in world.objects), description="all is gone")
        copied = Ref(TENANT, fork.id)
        assert await told(world, copied) == whole
        assert sizes(await stored(world, copied)) < 10_000
        assert ref.id not in "".join(event.data.decode() for event in (await stored(world, copied))[1:])
        imported = await world.any.restore("other", export)
        items, _ = await world.any.items(Ref("other", imported.id), after=0, limit=100)
        assert [text_of(item) for item in items] == whole
        with pytest.raises(Refused, match="lacks texts"):
            await world.any.restore("other", await stored(world, copied))


async def test_a_new_session_may_begin_with_a_large_message():
    """There is no epoch yet: it is put under 0."""
    async with fleet(Echo()) as world:
        ref = Ref(TENANT, "01990000-0000-7000-8000-000000000001")
        receipt = await world.any.admit(ref, Message(LONG), opening=SessionCreated())
        assert (
            await world.any.turn(ref, turn_id(ref.id, receipt.turn), wait=timedelta(seconds=10))
        ).status == "completed"
        assert any("/0-" in name for name in world.objects)
        assert (await told(world, ref))[0] == LONG


async def test_a_message_of_items_may_be_large():
    """Its items come back as they were, and the agent has its text."""
    agent = Echo()
    async with fleet(agent) as world:
        ref = await world.session()
        parts: list[Json] = [{"type": "input_text", "text": LONG}, {"type": "input_text", "text": "!"}]
        said = Message(items=[{"type": "message", "role": "user", "content": parts, "mine": {"a": 1.5}}])
        receipt = await world.say(ref, said, key="k1")
        assert (await world.end_of(ref, receipt)).status == "completed"
        items, _ = await world.any.items(ref, after=0, limit=2)
        assert (items[0]["content"], items[0]["mine"]) == (parts, {"a": 1.5})
        assert agent.texts == [LONG + "!"]
        assert sizes(await stored(world, ref)) < 10_000
        assert len(text_of(agent.shown[0][0])) < PREVIEW_CHARS + 300
        assert (await world.say(ref, said, key="k1")).replayed


async def test_the_bound_is_a_setting():
    """`inline_max_bytes`: with a larger one the text stays in the log."""
    tuning = Tuning(bury_every=timedelta(milliseconds=10), inline_max_bytes=2**20)
    async with fleet(Echo(), tuning=tuning) as world:
        ref = await world.session()
        assert (await world.ask(ref, LONG)).status == "completed"
        assert world.objects == {}
        assert (await told(world, ref))[0] == LONG


async def test_what_joins_a_turn_may_be_large():
    """A message that steers is kept and given back like one that begins a turn."""
    agent = Echo()
    agent.hold = asyncio.Event()
    async with fleet(agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "hi")
        steered = await world.say(ref, Message(LONG, on_busy="steer"))
        agent.hold.set()
        assert (await world.end_of(ref, receipt)).status == "completed"
        assert steered.status == "steered" and LONG in await told(world, ref)
        assert sizes(await stored(world, ref)) < 10_000
