"""What is kept near in the hot tier: contexts for whichever replica has the session next, and results of `read` tools.
Losing, damaging or delaying it changes latency and nothing else (P10).
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from dalsegno.agents.tool import tool
from dalsegno.core.append import Draft, record
from dalsegno.core.context import context
from dalsegno.core.event import SessionCreated, SessionUpdated
from dalsegno.core.frozen import CONTEXT, RESULT, freeze
from dalsegno.core.input import Message
from dalsegno.core.item import text_of
from dalsegno.core.part import ToolCall
from dalsegno.errors import ConfigError, Unavailable
from dalsegno.ports import Call, Ref
from dalsegno.runtime.contexts import Contexts
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.near import PATIENCE_SECONDS, PUTS_MAX, Near
from dalsegno.runtime.replica import Tuning
from dalsegno.stores.memory import MemoryCache, MemoryDatabase, MemoryHot, MemoryLog
from tests.runtime.fleet import TENANT, Fleet, fleet
from tests.support import wait_until

NEAR_EVENTS = 20
TUNING = Tuning(bury_every=timedelta(milliseconds=10), near_events=NEAR_EVENTS, context_limit_bytes=2_000)
SPACIOUS = Tuning(bury_every=timedelta(milliseconds=10), near_events=NEAR_EVENTS)
KEEP = timedelta(minutes=1)


class Shown:
    """What the model was shown, turn after turn."""

    def __init__(self) -> None:
        self.contexts: list[list[Any]] = []
        self.gate: asyncio.Event | None = None

    async def agent(self, turn: Turn) -> None:
        self.contexts.append(list(turn.context.items))
        if self.gate is not None:
            await self.gate.wait()
        await turn.say(f"you said {turn.text}")


class Reading(MemoryLog):
    """A log that remembers from where it was read."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.asked: list[int] = []

    async def read(self, ref: Ref, *, after: int, limit: int = 1000) -> Sequence[Any]:
        self.asked.append(after)
        return await super().read(ref, after=after, limit=limit)


async def kept(world: Fleet, ref: Ref) -> int:
    """How far the context goes that is near; 0 = there is none."""
    found = await MemoryHot(world.cache).get(ref, CONTEXT)
    return 0 if found is None else found[0]


async def converse(world: Fleet, ref: Ref, turns: int, *, place: int = 0) -> None:
    for number in range(turns):
        await world.end_of(ref, await world.say(ref, f"message {number}", place=place))


async def checked(world: Fleet, ref: Ref, shown: Shown, *, place: int) -> None:
    """One more turn there, whose model is shown what a fold of the whole log shows."""
    await converse(world, ref, 1, place=place)
    log = await world.log(ref)
    started = max(event.seq for event in log if event.type == "turn.started")
    summarised = [event.seq for event in log if event.type == "context.summarized"]
    if not summarised or max(summarised) < started:
        assert shown.contexts[-1] == list(context(log[:started], session=ref.id).items)


async def taken(world: Fleet, ref: Ref, *, before: int | None = None) -> list[int]:
    """From where a replica without a transcript reads the log, to have the session's context as it is, or was."""
    log = Reading(world.database)
    session = await log.load(ref)
    assert session is not None
    contexts = Contexts(log, Near(MemoryHot(world.cache)), worth_events=NEAR_EVENTS)
    head = before or session.head
    transcript = await contexts.take(ref, session, before=head)
    events = (await world.log(ref))[:head]
    assert transcript.context() == context(events, session=ref.id)
    assert transcript.head == head
    return log.asked


async def test_the_next_replica_reads_only_what_is_new():
    """A long context is put near after a turn; whoever has the session next reads what the log has after it."""
    shown = Shown()
    async with fleet(shown.agent, count=2, tuning=SPACIOUS) as world:
        ref = await world.session()
        await converse(world, ref, 3)
        assert await kept(world, ref) == 0
        await converse(world, ref, 7)
        await wait_until(lambda: kept(world, ref), description="the context is near")
        near = await kept(world, ref)
        assert await taken(world, ref) == [near - 1]
        await checked(world, ref, shown, place=1)
        await checked(world, ref, shown, place=0)
        assert len(shown.contexts[-1]) == 2 * 12 - 1


async def test_a_growing_context_is_put_now_and_then():
    """Not after every turn: when a quarter of it is new; and what is there never goes back."""
    shown, puts = Shown(), list[int]()
    async with fleet(shown.agent, tuning=SPACIOUS) as world:
        ref = await world.session()
        for _ in range(60):
            await converse(world, ref, 1)
            puts.append(await kept(world, ref))
    assert puts == sorted(puts)
    assert 4 <= len(set(puts) - {0}) <= 12


async def test_summaries_and_rollbacks_are_part_of_it():
    """Between two looks of a replica a turn was rolled back, another is queued, and a summary took the oldest ones'
    place: what it goes on from has all of that.
    """
    shown = Shown()
    async with fleet(shown.agent, count=2, tuning=TUNING) as world:
        ref = await world.session()
        for place in (0, 1) * 8:
            for _ in range(3):
                await checked(world, ref, shown, place=place)
            shown.gate = asyncio.Event()
            await world.say(ref, "never mind", place=place)
            await wait_until(lambda: text_of(shown.contexts[-1][-1]) == "never mind", description="the turn runs")
            receipt = await world.say(ref, Message("instead", on_busy="rollback"), place=place)
            later = await world.say(ref, "and then", place=place)
            shown.gate.set()
            shown.gate = None
            for said in (receipt, later):
                assert (await world.end_of(ref, said)).status == "completed"
            assert "never mind" not in [text_of(item) for item in shown.contexts[-1]]
            assert await taken(world, ref)
        assert "context.summarized" in await world.types(ref)
        assert await kept(world, ref) > 0


async def long_session(world: Fleet) -> Ref:
    """A session whose context is near."""
    ref = await world.session()
    await converse(world, ref, 10)
    await wait_until(lambda: kept(world, ref), description="the context is near")
    return ref


async def test_whatever_else_is_found_there_is_not_used():
    """Noise, another session's, another tenant's, a later one, one without its last event: the log is read instead."""
    shown = Shown()
    async with fleet(shown.agent, tuning=SPACIOUS) as world:
        ref, other = await long_session(world), await long_session(world)
        hot = MemoryHot(world.cache)
        found = await hot.get(ref, CONTEXT)
        theirs = await hot.get(other, CONTEXT)
        assert found is not None and theirs is not None
        head, mine = found
        from_beginning = [1]
        for version, content in (
            (head, b""),
            (head, b"noise"),
            (head, mine[:-1]),
            (head, theirs[1]),
            (head - 1, mine),
            (head + 1000, mine),
            (0, mine),
        ):
            world.cache.clear()
            await hot.put(ref, CONTEXT, version, content, keep=KEEP)
            assert await taken(world, ref) == from_beginning, (version, content[:8])
        world.cache.clear()
        await hot.put(Ref("mallory", ref.id), CONTEXT, head, mine, keep=KEEP)
        assert await taken(world, ref) == from_beginning
        await hot.put(ref, CONTEXT, head, mine, keep=KEEP)
        assert await taken(world, ref, before=head - 1) == from_beginning
        assert await taken(world, ref, before=head) == [head - 1]
        assert await taken(world, ref) == [head - 1]


async def test_what_another_log_came_to_is_not_used():
    """A database that was restored from a backup has other events under the same numbers: they are read, and what is
    near is not believed.
    """
    shown = Shown()
    async with fleet(shown.agent, tuning=SPACIOUS) as world:
        ref = await long_session(world)
        lost = Contexts(MemoryLog(world.database), Near(None))
        session = await world.any.get(ref)
        transcript = await lost.take(ref, session, before=session.head)
        # What was written after the backup, and is gone: as many events as are written now, and others.
        base = session
        _, events = record(base, [Draft(SessionUpdated({"n": n})) for n in range(NEAR_EVENTS)], session.updated_at)
        for event in events:
            transcript.add(event)
        content = freeze(transcript, tenant=TENANT)
        await MemoryHot(world.cache).put(ref, CONTEXT, transcript.head, content, keep=KEEP)
        for n in range(NEAR_EVENTS + 5):
            await world.any.update(ref, {"other": n}, head=None)
        asked = await taken(world, ref)
        assert asked == [transcript.head - 1, 1]


async def test_a_fork_does_not_share_its_parents():
    """A fork has a name of its own, and its own context near."""
    shown = Shown()
    async with fleet(shown.agent, tuning=SPACIOUS) as world:
        ref = await long_session(world)
        made = await world.any.fork(ref, at=None)
        fork = Ref(TENANT, made.id)
        assert await taken(world, fork) == [1]
        await checked(world, fork, shown, place=0)


class Broken(MemoryHot):
    """A hot tier that answers no question about what is near, or answers late."""

    def __init__(self, cache: MemoryCache, trouble: Any) -> None:
        super().__init__(cache)
        self._trouble = trouble

    async def put(self, *args: Any, **more: Any) -> None:
        await self._trouble()

    async def get(self, *args: Any) -> Any:
        await self._trouble()

    async def forget(self, ref: Ref) -> None:
        await self._trouble()


async def dead() -> None:
    raise Unavailable("no way to the hot tier")


async def silent() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("trouble", [dead, silent])
async def test_a_hot_tier_that_is_gone_costs_time_only(trouble: Any):
    """P10: the log is read, soon; nobody waits for a putting; nothing piles up; deletion goes on."""
    world = Fleet(Shown().agent)
    await world.start()
    ref = await world.session()
    await converse(world, ref, 10)
    near = Near(Broken(world.cache, trouble))
    log = Reading(world.database)
    contexts = Contexts(log, near, worth_events=NEAR_EVENTS)
    session = await log.load(ref)
    assert session is not None
    clock = asyncio.get_running_loop().time
    began = clock()
    transcript = await contexts.take(ref, session, before=session.head)
    assert clock() - began < PATIENCE_SECONDS + 1
    assert transcript.context() == context(await world.log(ref), session=ref.id)
    for number in range(2 * PUTS_MAX):
        contexts.give_back(Ref(TENANT, f"{number}"), transcript)
    assert len(near._putting) <= PUTS_MAX
    if trouble is dead:
        await near.forget(ref)
    await near.close()
    assert not near._putting
    await world.ones[0].replica.stop()


async def test_one_putting_of_a_session_is_under_way():
    """A hot tier that is slow is not asked again before it has answered; and then it is."""
    release, put = asyncio.Event(), list[int]()

    class Slow(MemoryHot):
        async def put(self, ref: Ref, name: str, version: int, content: bytes, *, keep: timedelta) -> None:
            put.append(version)
            await release.wait()

    near, ref = Near(Slow()), Ref("t", "s")
    for version in range(5):
        near.put(ref, CONTEXT, version, b"", keep=KEEP)
        await asyncio.sleep(0)
    near.put(Ref("t", "other"), CONTEXT, 9, b"", keep=KEEP)
    await asyncio.sleep(0)
    assert put == [0, 9]
    release.set()
    await wait_until(lambda: not near._putting, description="all is put")
    near.put(ref, CONTEXT, 7, b"", keep=KEEP)
    await wait_until(lambda: put == [0, 9, 7], description="the next is put")
    await near.close()


async def test_a_deleted_session_is_forgotten():
    """P1: "until the session is deleted": nothing of it is near any more, and nothing that comes late stays."""
    async with fleet(Shown().agent, tuning=SPACIOUS) as world:
        ref, hot = await long_session(world), MemoryHot(world.cache)
        found = await hot.get(ref, CONTEXT)
        assert found is not None
        await world.any.delete(ref)
        await wait_until(lambda: _gone(world, ref), description="nothing is near")
        await hot.put(ref, CONTEXT, *found, keep=KEEP)
        assert await kept(world, ref) == 0


async def _gone(world: Fleet, ref: Ref) -> bool:
    return await kept(world, ref) == 0


# ---------------------------------------------------------------------------- results of tools


class Library:
    """A tool that counts, and an agent that calls it with what it is told."""

    def __init__(self, cache: timedelta | None = KEEP) -> None:
        self.calls: list[str] = []
        self.answer: Any = "found"

        @tool("read", cache=cache)
        async def look_up(call: Call, word: str, pages: list[int] | None = None) -> Any:
            """What the library has."""
            self.calls.append(f"{call.tenant}/{word}")
            if isinstance(self.answer, Exception):
                raise self.answer
            return f"{self.answer} {word} for {call.tenant}" if isinstance(self.answer, str) else self.answer

        self.look_up = look_up

    async def agent(self, turn: Turn) -> None:
        await turn.say(await turn.call(self.look_up, word=turn.text, pages=[1, 2]))


async def ask(world: Fleet, text: str, *, tenant: str = TENANT, place: int = 0, agent: str = "default") -> str:
    """The answer, in a session of its own."""
    service = world.ones[place].service
    ref = Ref(tenant, (await service.create(tenant, id=None, opening=SessionCreated(agent=agent))).id)
    turn = await world.end_of(ref, await service.admit(ref, Message(text), key=None))
    assert turn.status == "completed", turn
    return text_of(turn.output[-1])


async def results(world: Fleet, count: int) -> None:
    """Wait until so many results are near."""
    names = world.cache.entries._entries
    await wait_until(lambda: sum(name == RESULT for _, name in names) == count, description=f"{count} results")


async def test_an_identical_call_is_answered_for_a_while():
    """In any session of the tenant, on any replica; it is on record like any other result, and the tool is not run."""
    library = Library()
    async with fleet(library.agent, count=2, tuning=SPACIOUS) as world:
        assert await ask(world, "segno") == "found segno for t"
        await results(world, 1)
        library.answer = "lost"
        for place in (0, 1):
            assert await ask(world, "segno", place=place) == "found segno for t"
        assert await ask(world, "coda") == "lost coda for t"
        assert library.calls == ["t/segno", "t/coda"]
        world.cache.clear()
        assert await ask(world, "segno") == "lost segno for t"
        ref = await world.session()
        await world.ask(ref, "segno")
        kinds = await world.types(ref)
        assert kinds.count("tool.intent") == 1 and (await world.data(ref, "item.done"))[1].item["status"] == "completed"


async def test_equal_arguments_in_other_words_are_identical():
    """Canonical arguments (RFC 8785), as for `dedupe`."""
    library = Library()
    spellings = ['{"word": "a", "pages": [1]}', '{"pages":[1.0],"word":"\\u0061"}', '{"word":"a","pages":[2]}']

    async def model(context: Any) -> Any:
        if context.items[-1]["type"] == "function_call_output":
            return str(context.items[-1]["output"])
        return ToolCall("look_up", spellings[int(text_of(context.items[-1]))])

    async def agent(turn: Turn) -> None:
        while (reply := await turn.generate(model, tools=[library.look_up])).calls:
            await turn.perform(reply)

    async with fleet(agent, tuning=SPACIOUS) as world:
        for number, near in ((0, 1), (1, 1), (2, 2)):
            assert await ask(world, str(number)) == "found a for t"
            await results(world, near)
        assert library.calls == ["t/a", "t/a"]


async def test_tenants_do_not_see_each_others():
    """P11: not even with names that look alike."""
    library = Library()
    async with fleet(library.agent, tuning=SPACIOUS) as world:
        for count, tenant in enumerate(("t", "u", "t/", "T"), 1):
            assert await ask(world, "segno", tenant=tenant) == f"found segno for {tenant}"
            await results(world, count)
            assert await ask(world, "segno", tenant=tenant) == f"found segno for {tenant}"
        assert library.calls == ["t/segno", "u/segno", "t//segno", "T/segno"]


async def test_what_is_planted_there_is_not_believed():
    """Another tenant's result, noise, or another call's under this one's name: the tool is run."""
    library = Library()
    async with fleet(library.agent, tuning=SPACIOUS) as world:
        await ask(world, "segno", tenant="mallory")
        await results(world, 1)
        ((_, theirs),) = world.cache.entries._entries.items()
        await ask(world, "segno")
        await results(world, 2)
        (mine,) = (ref for ref, _ in world.cache.entries._entries if ref.tenant == TENANT)
        for content in (theirs.content, b"", b"found \xff"):
            world.cache.clear()
            await MemoryHot(world.cache).put(mine, RESULT, 0, content, keep=KEEP)
            assert await ask(world, "segno") == "found segno for t"
        assert len(library.calls) == 5


async def test_only_what_a_tool_returned_is_kept():
    """An error is told to one model, and the next call is made; so is one of a tool that declares nothing."""
    library = Library()
    async with fleet(library.agent, tuning=SPACIOUS) as world:
        library.answer = ValueError("closed today")
        assert "closed today" in await ask(world, "segno")
        library.answer = "found"
        assert await ask(world, "segno") == "found segno for t"
    undeclared = Library(cache=None)
    async with fleet(undeclared.agent, tuning=SPACIOUS) as world:
        for _ in range(2):
            await ask(world, "segno")
        assert len(undeclared.calls) == 2
        assert not world.cache.entries._entries


async def test_agents_do_not_share_the_results_of_tools_of_one_name():
    """Two agents may each have a tool of that name, and mean another."""
    library = Library()
    async with fleet(library.agent, tuning=SPACIOUS) as world:
        for count, agent in enumerate(("default", "other"), 1):
            for _ in range(2):
                assert await ask(world, "segno", agent=agent) == "found segno for t"
                await results(world, count)
            assert len(library.calls) == count


async def test_a_large_result_is_each_sessions_own_artifact():
    """What was too much for one session's log is kept whole, and put into the other's cold tier."""
    library = Library()
    library.answer = ["page"] * 20_000
    async with fleet(library.agent, tuning=SPACIOUS) as world:
        for count in (1, 2):
            await ask(world, "segno")
            await results(world, 1)
            assert len(world.objects) == count
        assert len(library.calls) == 1


@pytest.mark.parametrize("trouble", [dead, silent])
async def test_without_an_answer_the_tool_is_run(trouble: Any):
    """P10."""
    library = Library()
    world = Fleet(library.agent, tuning=SPACIOUS)
    await world.start()
    world.ones[0].replica.near._cache = Broken(world.cache, trouble)
    for _ in range(2):
        assert await ask(world, "segno") == "found segno for t"
    assert len(library.calls) == 2
    await world.ones[0].replica.stop()


@pytest.mark.parametrize("effect", ["once", "keyed", "transactional"])
def test_only_reads_are_kept(effect: Any):
    """An effect that is answered from a cache would not happen: it cannot be declared."""
    with pytest.raises(ConfigError, match="read"):

        @tool(effect, cache=KEEP)
        async def pay() -> None:
            """Changes something."""

    with pytest.raises(ConfigError, match="read"):
        msgspec.structs.replace(Library().look_up.tool, effect=effect)
    with pytest.raises(ConfigError):
        Library(cache=timedelta(0))
