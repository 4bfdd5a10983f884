"""A turn goes on from what an earlier one read of its thread, and knows what it would know without it, never more."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypedDict, cast

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from dalsegno.agents.langgraph import LangGraphAgent, book
from dalsegno.agents.langgraph.book import Book
from dalsegno.agents.langgraph.readings import Readings
from dalsegno.agents.langgraph.thread_of_turn import TurnThreads
from dalsegno.core.context import Context
from dalsegno.core.event import SessionCreated
from dalsegno.core.idle import Policy
from dalsegno.core.input import Cancel, Message, ToolResult
from dalsegno.errors import Refused
from dalsegno.ports import Ref
from dalsegno.runtime import notes
from dalsegno.runtime.archivist import Archivist
from dalsegno.runtime.notes import Notes
from dalsegno.runtime.patience import patiently
from dalsegno.runtime.replica import Tuning
from tests.agents.graphs import said
from tests.agents.test_langgraph_thread import plain
from tests.runtime.fleet import TENANT, Fleet
from tests.runtime.test_move import QUICK, remove, route
from tests.support import wait_until


class Watch:
    """What the turns of a test read."""

    def __init__(self) -> None:
        self.went_on = 0
        """How often a turn went on from what an earlier one had read."""
        self.bytes = 0
        self.reads = 0
        """How often they asked the log."""


@pytest.fixture(autouse=True)
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Each turn's thread is compared with what the log alone says at that moment, byte for byte."""
    seen = Watch()
    open_, read, go_on = Readings.open, Notes.read, Book.go_on

    async def compared(self: Readings, turn: Any) -> TurnThreads:
        threads, fresh, before = await open_(self, turn), TurnThreads(turn), (seen.bytes, seen.reads)
        assert known(threads.book(turn.session)) == known(fresh.book(turn.session), await fresh.read(None))
        seen.bytes, seen.reads = before
        return threads

    async def counted(self: Notes, *, after: int, limit: int) -> Any:
        found = await read(self, after=after, limit=limit)
        seen.bytes += sum(len(event.data) for event in found)
        return found

    async def asked(work: Any, **options: Any) -> Any:
        seen.reads += 1
        return await patiently(work, **options)

    def noted(self: Book, reading: Any) -> None:
        seen.went_on += 1
        go_on(self, reading)

    monkeypatch.setattr(Readings, "open", compared)
    monkeypatch.setattr(Notes, "read", counted)
    monkeypatch.setattr(notes, "patiently", asked)
    monkeypatch.setattr(Book, "go_on", noted)
    return seen


def known(found: Book, reading: object = None) -> list[Any]:
    """All that a book knows, as values."""
    thread, packer = found.thread, found._packer
    inside = [thread._newest, thread._mark, thread._past, packer._said, packer.size]
    return [found.head, found._since, found._complete, plain(thread), *inside]


class Gate:
    """Where the message `stop` waits, in the second node, once."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()


def served(gate: Gate | None = None) -> LangGraphAgent:
    """Says what it was told so far; `fail` fails behind the first node's checkpoint."""

    async def note(state: MessagesState) -> Any:
        return {"messages": []}

    async def answer(state: MessagesState) -> Any:
        texts = [str(message.text) for message in state["messages"] if message.type == "human"]
        if texts[-1] == "fail":
            raise RuntimeError("as it was told")
        if texts[-1] == "stop" and gate is not None:
            gate.reached.set()
            await gate.opened.wait()
        return {"messages": [AIMessage(" ".join(texts)[:100])]}

    graph = StateGraph(MessagesState).add_sequence([note, answer]).add_edge(START, "note")
    return LangGraphAgent(graph.compile())


@asynccontextmanager
async def fleet(*agents: LangGraphAgent, tuning: Tuning | None = None) -> AsyncIterator[Fleet]:
    """A replica for each agent."""
    world = Fleet(None, tuning=tuning)
    for agent in agents:
        world.agent = agent.run
        await world.start()
    try:
        yield world
    finally:
        for one in world.ones:
            await one.replica.drain()
            await one.replica.stop()


async def ask(world: Fleet, ref: Ref, text: str, *, place: int = 0) -> str:
    """What the turn said, run by the replica at that place."""
    turn = await world.end_of(ref, await world.say(ref, text, place=place))
    assert turn.status == "completed", turn.error
    return said(turn)


async def test_two_replicas_take_turns(watch: Watch):
    """Each reads what the other has added since."""
    async with fleet(served(), served()) as world:
        ref = await world.session()
        for number in range(8):
            told = " ".join(str(n) for n in range(number + 1))
            assert await ask(world, ref, str(number), place=number % 2) == told
    assert watch.went_on == 5  # all but the first, which finds no checkpoint, and the first two that find any


async def test_a_thread_is_read_in_one_round_trip(watch: Watch):
    """Begun in the middle or gone on with, a thread costs one round trip; a session's first turn asks for none."""
    async with fleet(served(), served()) as world:
        ref = await world.session()
        for number, place in enumerate((0, 0, 0, 1, 1)):
            before = watch.reads
            await ask(world, ref, "x" * 10, place=place)
            assert watch.reads == before + (number > 0), f"turn {number}"
    assert watch.went_on == 2


async def test_what_is_read_for_a_turn_does_not_grow(watch: Watch):
    """The hundredth turn is handed as many bytes of the log as the tenth."""
    async with fleet(served()) as world:
        ref, read = await world.session(), list[int]()
        for number in range(100):
            watch.bytes = 0
            await ask(world, ref, f"{number:03} " + os.urandom(200).hex())
            read.append(watch.bytes)
    assert 0 < max(read[90:]) < 1.2 * max(read[5:15])


async def test_a_turn_that_fails_after_checkpoints(watch: Watch):
    """What it left on record is read by the next one, and nothing else of it."""
    async with fleet(served()) as world:
        ref = await world.session()
        await ask(world, ref, "one")
        for _ in range(3):
            turn = await world.ask(ref, "fail")
            assert (turn.status, turn.error.message) == ("failed", "as it was told")
        assert (await ask(world, ref, "two")).startswith("one")
        assert (await ask(world, ref, "three")).endswith("two three")
    assert watch.went_on == 4


async def test_a_turn_that_is_cancelled(watch: Watch):
    """The same for one that somebody stops in its second node."""
    gate = Gate()
    async with fleet(served(gate)) as world:
        ref = await world.session()
        for text in ("one", "two"):
            await ask(world, ref, text)
        receipt = await world.say(ref, "stop")
        await gate.reached.wait()
        await world.say(ref, Cancel())
        assert (await world.end_of(ref, receipt)).status == "cancelled"
        assert (await ask(world, ref, "three")).startswith("one two")
        assert (await ask(world, ref, "four")).endswith("three four")
    assert watch.went_on == 3


async def test_two_who_open_a_thread_at_once(watch: Watch):
    """As a turn and one that was fenced off may, in one process: each has the thread for itself. Who comes later goes
    on from there, also if nothing was added.
    """
    agent = served()

    async def run(turn: Any) -> None:
        await turn.notes.settle()
        await asyncio.gather(*(agent._readings.open(turn) for _ in range(3)))
        before = watch.went_on
        for _ in range(2):
            await agent._readings.open(turn)
        assert watch.went_on - before == (2 if turn.context.items[1:] else 0)
        await agent.run(turn)

    world = Fleet(run)
    await world.start()
    ref = await world.session()
    for number in range(4):
        assert await ask(world, ref, str(number)) == " ".join(str(n) for n in range(number + 1))
    await world.ones[0].replica.stop()


class Earlier:
    """A turn that a replica began, and was fenced off from, before the others wrote what is there now."""

    def __init__(self, turn: Any) -> None:
        self.id, self.tenant, self.session, self.notes = turn.id, turn.tenant, turn.session, turn.notes
        self.context = Context(turn.context.items, turn.context.through - 3)


async def test_what_was_read_further_than_a_turn_may_see():
    """One that is late is shown what was there when it began."""
    agent = served()

    async def run(turn: Any) -> None:
        await turn.notes.settle()
        await agent._readings.open(turn)
        await agent._readings.open(cast(Any, Earlier(turn)))
        await agent.run(turn)

    world = Fleet(run)
    await world.start()
    ref = await world.session()
    for number in range(4):
        assert await ask(world, ref, str(number)) == " ".join(str(n) for n in range(number + 1))
    await world.ones[0].replica.stop()


async def test_a_turn_that_is_rolled_back(watch: Watch):
    """Its checkpoints are gone for whoever has read them."""
    gate = Gate()
    async with fleet(served(gate), served()) as world:
        ref = await world.session()
        for text in ("one", "two"):
            await ask(world, ref, text)
        await world.say(ref, "stop")
        await gate.reached.wait()
        receipt = await world.say(ref, Message("three", on_busy="rollback"))
        gate.opened.set()
        assert said(await world.end_of(ref, receipt)) == "one two three"
        assert await ask(world, ref, "four", place=1) == "one two three four"
        assert await ask(world, ref, "five") == "one two three four five"
    assert watch.went_on > 2


@pytest.mark.parametrize("end", ["killed", "zombie"])
async def test_what_never_came_to_be_on_record(watch: Watch, end: str):
    """A replica that was paused has written checkpoints in its memory only: nobody goes on from them, not even who
    shares that memory, and not after it has woken up.
    """
    gate = Gate()
    agent = served(gate)
    async with fleet(agent, agent) as world:
        ref = await world.session()
        for text in ("one", "two"):
            await ask(world, ref, text)
        paused, first = asyncio.Event(), world.ones[0]
        commit: Callable[..., Any] = first.warm.commit

        async def silent(*positional: Any, **named: Any) -> Any:
            if gate.reached.is_set():
                await paused.wait()
            return await commit(*positional, **named)

        vars(first.warm)["commit"] = silent
        receipt = await world.say(ref, "stop")
        await gate.reached.wait()
        gate.opened.set()
        if end == "zombie":
            world.database.kill(first.incarnation)
        else:
            await world.kill(0)
        assert said(await world.end_of(ref, receipt)) == "one two stop"
        paused.set()
        if end == "zombie":
            await wait_until(lambda: first.replica.turns == 0, description="the zombie to leave")
        assert await ask(world, ref, "three", place=-1) == "one two stop three"
    assert watch.went_on >= 2


async def test_another_log_under_the_same_names(watch: Watch):
    """A log that was restored from a backup, or a session that was deleted with its whole store and made again: what
    was read of the other one is not seen.
    """
    shared, other = served(), served()
    async with fleet(shared) as one, fleet(shared, other) as two:
        ref = await one.session()
        for text in ("secret one", "secret two"):
            await ask(one, ref, text)
        await two.ones[0].service.create(TENANT, id=ref.id, opening=SessionCreated())
        for text in ("a", "b", "c"):
            await ask(two, ref, text, place=1)
        assert await ask(two, ref, "d", place=0) == "a b c d"
        assert watch.went_on == 1  # within the second replica


async def test_the_id_of_a_deleted_session_is_not_used_again():
    """In one store there is no second session of that name that a thread could be shown to."""
    async with fleet(served()) as world:
        ref = await world.session()
        await ask(world, ref, "secret")
        await world.any.delete(ref)
        with pytest.raises(Refused):
            await world.any.create(TENANT, id=ref.id, opening=SessionCreated())


async def test_two_tenants_with_the_same_session_id(watch: Watch):
    """Each has its own thread, and both go on from what was read."""
    async with fleet(served()) as world:
        mine = await world.session()
        made = await world.any.create("other", id=mine.id, opening=SessionCreated())
        yours = Ref("other", made.id)
        for number in range(3):
            mine_told, yours_told = (" ".join(f"{who}{n}" for n in range(number + 1)) for who in ("m", "y"))
            assert await ask(world, mine, f"m{number}") == mine_told
            assert await ask(world, yours, f"y{number}") == yours_told
    assert watch.went_on == 2


async def test_the_least_recently_used_go_first(watch: Watch):
    """What is kept stays within the budget; what is gone is read again."""
    agent = served()
    async with fleet(agent) as world:
        refs = [await world.session() for _ in range(3)]
        for ref in refs:
            await ask(world, ref, "one")
            await ask(world, ref, "two")
        kept = agent._readings
        assert list(kept._kept) == [(ref.tenant, ref.id) for ref in refs]
        kept._budget = kept._weight * 7 // 6  # the first grows by itself, so that all are too much by a half of one
        assert await ask(world, refs[0], "three") == "one two three"
        assert list(kept._kept) == [(ref.tenant, ref.id) for ref in (refs[2], refs[0])]
        assert kept._weight == sum(one.weight for one in kept._kept.values()) <= kept._budget
        assert (await ask(world, refs[1], "three"), watch.went_on) == ("one two three", 1)
        kept._budget = 1
        for ref in refs:
            assert await ask(world, ref, "four") == "one two three four" if ref != refs[2] else "one two four"
        assert (dict(kept._kept), kept._weight) == ({}, 0)


async def test_a_session_that_was_archived_and_came_back(watch: Watch):
    """The log has the same event where the reading ended, wherever it was in the meantime."""
    async with fleet(served()) as world:
        ref = await world.session()
        for text in ("one", "two"):
            await ask(world, ref, text)
        one = world.ones[0]
        policy = Policy(archive_after=QUICK.bury_every * 0, sweep_after=QUICK.bury_every * 0)
        made = Archivist(one.shelf, one.blobs, eraser=one.replica.eraser, policy=policy, incarnation=one.incarnation)
        while not await made.go_on():
            pass
        assert made.tally.archived == 1
        assert await ask(world, ref, "three") == "one two three"
    assert watch.went_on == 1


async def test_a_session_that_was_moved_and_came_back(watch: Watch):
    """What was said elsewhere is read."""
    async with fleet(served(), tuning=QUICK) as a, fleet(served(), tuning=QUICK) as b:
        b.objects = a.objects
        ref = await a.session()
        for text in ("one", "two"):
            await ask(a, ref, text)
        await remove(route(a, b))
        for text in ("three", "four"):
            await ask(b, ref, text)
        await remove(route(b, a, names="BA"))
        assert await ask(a, ref, "five") == "one two three four five"
    assert watch.went_on == 2


class Replaced(TypedDict):
    blob: str


def chain(name: str, inner: Any = None) -> Any:
    """A graph whose every step replaces the whole state."""

    async def replace(state: Replaced) -> Any:
        return {"blob": os.urandom(150).hex()}

    graph = StateGraph(Replaced)
    for number in range(6):
        graph.add_node(f"{name}{number}", inner if inner is not None and number == 3 else replace)
        graph.add_edge(START if number == 0 else f"{name}{number - 1}", f"{name}{number}")
    return graph.compile()


@pytest.mark.parametrize("inner", [None, chain("inner")])
@pytest.mark.parametrize("least", [1000, 1700, 2600, 4000])
async def test_a_state_that_is_repeated_in_the_middle_of_a_turn(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, inner: Any, least: int
):
    """Wherever the page falls that needs none before it, also within a subgraph: every turn finds the thread, and the
    replica that goes on from what it read finds the same.
    """
    monkeypatch.setattr(book, "REPEAT_BYTES_MIN", least)
    monkeypatch.setattr(book, "REPEAT_RATIO", 2)
    graph = chain("outer", inner)
    agents = [LangGraphAgent(graph, input=lambda new: {"blob": ""}) for _ in range(2)]
    async with fleet(*agents) as world:
        ref = await world.session()
        for number in range(8):
            turn = await world.end_of(ref, await world.say(ref, "go", place=number % 3 % 2))
            assert turn.status == "completed", turn.error
    assert watch.went_on == 5


async def test_a_subgraph_that_waits_behind_a_page_that_repeats(monkeypatch: pytest.MonkeyPatch):
    """What it came to is repeated, too, while its step is under way: others go on, and not from its beginning."""
    monkeypatch.setattr(book, "REPEAT_BYTES_MIN", 10)
    monkeypatch.setattr(book, "REPEAT_RATIO", 1)
    runs: list[str] = []

    async def work(state: MessagesState) -> Any:
        runs.append("work")
        return {"messages": [AIMessage("x" * 500)]}

    async def wait(state: MessagesState) -> Any:
        return {"messages": [AIMessage(interrupt("go on?") + interrupt("sure?"))]}

    inner = StateGraph(MessagesState).add_sequence([work, wait]).add_edge(START, "work").compile()
    outer = StateGraph(MessagesState).add_node("inner", inner).add_edge(START, "inner").compile()
    async with fleet(LangGraphAgent(outer), LangGraphAgent(outer)) as world:
        ref = await world.session()
        for _ in range(3):
            turn = await world.end_of(ref, await world.say(ref, "go"))
            for place in (1, 0):
                answer = ToolResult(turn.actions[0].call_id, output='"yes"')
                turn = await world.end_of(ref, await world.say(ref, answer, place=place))
            assert turn.status == "completed", turn.error
    assert runs == ["work"] * 3
