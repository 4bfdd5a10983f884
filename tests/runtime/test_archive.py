"""Sessions that nobody touches leave the warm tier and come back when they are used; what nobody points to goes."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from dalsegno.agents.tool import tool
from dalsegno.core import idle
from dalsegno.core.append import Write
from dalsegno.core.cursor import Cursor
from dalsegno.core.idle import Policy
from dalsegno.core.ids import turn_id
from dalsegno.core.lifecycle import artifact_of
from dalsegno.core.part import ToolCall
from dalsegno.core.session import replace
from dalsegno.core.tier import Artifact, folder
from dalsegno.errors import Refused, Shelved, Unavailable, Unreadable
from dalsegno.ports import Ref
from dalsegno.runtime import archivist as archivists
from dalsegno.runtime import reading
from dalsegno.runtime.archivist import Archiving, Archivist, Tally
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.replica import Tuning
from tests.runtime.fleet import Fleet, One, fleet
from tests.support import wait_until

AT_ONCE = Policy(archive_after=timedelta(0), sweep_after=timedelta(0))
SWEEP = Policy(archive_after=None, sweep_after=timedelta(0))
RARELY = Tuning(bury_every=timedelta(milliseconds=10), sweep_every=timedelta(minutes=5))
QUICK = Tuning(bury_every=timedelta(milliseconds=10), erase_every=timedelta(milliseconds=10))
LARGE = 40_000


@tool("read")
async def look_up(number: str) -> str:
    return number * LARGE


async def model(context):
    if context.items[-1]["type"] == "function_call_output":
        yield "done"
    else:
        yield ToolCall("look_up", {"number": context.items[-1]["content"][0]["text"]})


async def agent(turn: Turn) -> None:
    """Answers each message with an artifact."""
    await turn.perform(await turn.generate(model, tools=[look_up]))
    await turn.generate(model)


def archivist(one: One, policy: Policy = AT_ONCE) -> Archivist:
    return Archivist(one.shelf, one.blobs, eraser=one.replica.eraser, policy=policy, incarnation=one.incarnation)


async def walk(made: Archivist) -> Tally:
    """One walk from its beginning to its end."""
    while not await made.go_on():
        pass
    return made.tally


async def talk(world: Fleet, *messages: str) -> Ref:
    ref = await world.session()
    for text in messages or ("1", "2"):
        assert (await world.ask(ref, text)).status == "completed"
    return ref


def objects(world: Fleet, ref: Ref, place: str = "") -> list[str]:
    return sorted(name for name in world.objects if name.startswith(folder(ref.tenant, ref.id) + place))


def artifacts(world: Fleet, ref: Ref) -> list[str]:
    return [name for name in objects(world, ref) if "/log/" not in name]


async def assert_whole(world: Fleet, ref: Ref) -> None:
    """The log is all there, and so is everything that it points to."""
    session = await world.any.get(ref)
    events = await world.ones[-1].shelf.read(ref, after=0, limit=10_000)
    assert [event.seq for event in events] == list(range(1, session.head + 1))
    for event in events:
        artifact = artifact_of(event)
        if artifact is not None:
            assert len(await world.any.artifact(ref.tenant, str(artifact))) == LARGE


def stops(owner: Any, method: str, *, before: bool) -> tuple[asyncio.Event, asyncio.Event]:
    """The next call of a method stops, before or behind what it does: (it stands there, let it go on)."""
    reached, go = asyncio.Event(), asyncio.Event()
    inner: Callable[..., Awaitable[Any]] = getattr(owner, method)

    async def stopping(*args: Any, **named: Any) -> Any:
        setattr(owner, method, inner)
        if before:
            reached.set()
            await go.wait()
        result = await inner(*args, **named)
        if not before:
            reached.set()
            await go.wait()
        return result

    setattr(owner, method, stopping)
    return reached, go


def _archived(world: Fleet, ref: Ref) -> bool:
    return world.database.rows[ref].shelf is not None


def _erased(world: Fleet, ref: Ref) -> bool:
    return world.database.rows[ref].erased


def _nothing_of(world: Fleet, ref: Ref) -> bool:
    return objects(world, ref) == []


USES: dict[str, Callable[[Fleet, Ref], Awaitable[Any]]] = {
    "its items": lambda world, ref: world.any.items(ref, after=0, limit=100),
    "its events": lambda world, ref: world.any.events(ref, after=0, limit=100),
    "an old turn": lambda world, ref: world.any.turn(ref, turn_id(ref.id, 2)),
    "its export": lambda world, ref: world.any.events(ref, after=3, limit=1),
    "a new message": lambda world, ref: world.ask(ref, "3"),
    "a fork": lambda world, ref: world.any.fork(ref, at=5),
}


@pytest.mark.parametrize("use", USES)
async def test_what_is_archived_comes_back_on_first_use(use: str):
    """Nobody but the store sees a difference: each use gives what it gave before."""
    async with fleet(agent) as world:
        ref = await talk(world)
        before = await world.log(ref)
        shown = await world.any.items(ref, after=0, limit=100)
        assert (await walk(archivist(world.ones[0]))).archived == 1
        assert world.database.rows[ref].events == {}
        await world.start()
        await world.kill(0)
        await USES[use](world, ref)
        assert (await world.log(ref))[: len(before)] == before
        assert (await world.any.items(ref, after=0, limit=100))[0][: len(shown[0])] == shown[0]
        await assert_whole(world, ref)


async def test_without_its_events_a_session_is_still_found_accepted_for_and_listed():
    """What the row holds needs no cold tier: `get`, a list, a replayed key and the receipt of a new message."""
    async with fleet(agent) as world:
        ref = await world.session()
        first = await world.say(ref, "1", key="k1")
        await world.end_of(ref, first)
        await walk(archivist(world.ones[0]))
        world.objects.clear()
        assert (await world.any.get(ref)).id == ref.id
        assert (await world.say(ref, "1", key="k1")) == replace(first, replayed=True)
        assert (await world.say(ref, "2")).seq > first.seq


@pytest.mark.parametrize("after", [Cursor(0), Cursor(3), Cursor(4, 0)], ids=str)
async def test_a_stream_is_resumed_in_archived_history(after: Cursor):
    """P8 and the stream contract, 6: cursors of archived history are served."""
    async with fleet(agent) as world:
        ref = await world.session()
        receipt = await world.say(ref, "1")
        await world.end_of(ref, receipt)
        before = [frame.what for frame in await world.frames(ref, receipt, after=after)]
        await walk(archivist(world.ones[0]))
        assert [frame.what for frame in await world.frames(ref, receipt, after=after)] == before


async def test_many_readers_bring_it_back_once():
    """Who asks meanwhile waits for the same; whoever goes away stops nobody."""
    async with fleet(agent) as world:
        ref = await talk(world)
        before = await world.log(ref)
        await walk(archivist(world.ones[0]))
        fetched: list[str] = []
        one: Any = world.ones[0]
        get = one.blobs.get

        async def counted(name: str) -> bytes | None:
            fetched.append(name)
            return await get(name)

        one.blobs.get = counted
        impatient = asyncio.create_task(one.shelf.read(ref, after=0))
        await asyncio.sleep(0)
        readers = [asyncio.create_task(one.shelf.read(ref, after=0)) for _ in range(20)]
        await wait_until(lambda: fetched, description="the archive is being fetched")
        impatient.cancel()
        assert all(found == before for found in await asyncio.gather(*readers))
        assert len(fetched) == len(set(fetched)) == 1


async def test_an_archive_that_is_lost_or_damaged_is_an_error():
    """P9: never an empty or older history, and no less when it is asked for again; mended, it is as it was."""
    async with fleet(agent, tuning=RARELY) as world:
        ref = await talk(world)
        before = await world.log(ref)
        await walk(archivist(world.ones[0]))
        (segment,) = objects(world, ref, "log/")
        content = world.objects.pop(segment)
        for _ in range(2):
            with pytest.raises(Unreadable) as told:
                await world.any.events(ref, after=0, limit=100)
            assert not isinstance(told.value, Shelved)
        world.objects[segment] = content[:-1] + bytes([content[-1] ^ 1])
        with pytest.raises(Unreadable):
            await world.any.items(ref, after=0, limit=100)
        # Another replica's contexts are not at hand: it needs the log.
        await world.start()
        await world.kill(0)
        # Whoever waits for the turn is told of its end, and does not have to look.
        told_at_once = await world.ask(ref, "anybody there?")
        assert told_at_once.status == "failed" and told_at_once.error.code == "unreadable"
        world.objects[segment] = content
        assert (await world.any.events(ref, after=0, limit=100))[: len(before)] == before


async def test_a_cold_tier_that_does_not_answer_is_waited_for():
    """Readers are told to come again; a turn waits, and goes on when it answers."""
    async with fleet(agent) as world:
        ref = await talk(world)
        await walk(archivist(world.ones[0]))
        get = world.ones[0].blobs.get

        async def nothing(name: str) -> bytes | None:
            raise Unavailable("the cold tier does not answer", outcome="not_applied")

        near: Any = world.ones[0]
        near.blobs.get = nothing
        with pytest.raises(Unavailable):
            await world.any.events(ref, after=0, limit=100)
        # Another replica's contexts are not at hand: it needs the log.
        await world.start()
        await world.kill(0)
        near = world.ones[0]
        near.blobs.get = nothing
        receipt = await world.say(ref, "3")
        await wait_until(lambda: world.ones[0].replica.turns == 1, description="the turn is under way")
        near.blobs.get = get
        assert (await world.end_of(ref, receipt)).status == "completed"
        await assert_whole(world, ref)


async def test_only_one_replica_walks_and_after_the_policys_time():
    """The smallest incarnation walks, the others look on; what is not idle long enough stays."""
    async with fleet(agent, count=3) as world:
        ref = await talk(world)
        walkers = [one.incarnation for one in world.ones if await archivist(one).may_walk()]
        assert walkers == [min(one.incarnation for one in world.ones)]
        assert not await archivist(world.ones[0], Policy(None, None)).may_walk()
        later = Policy(archive_after=timedelta(hours=1), sweep_after=timedelta(hours=1))
        assert await walk(archivist(world.ones[0], later)) == Tally(seen=1)
        assert world.database.rows[ref].shelf is None


async def test_the_duty_archives_by_itself():
    """`Archiving` walks when it starts, and again after `every`."""
    async with fleet(agent) as world:
        first = await talk(world)
        brief = timedelta(milliseconds=20)
        duty = Archiving(archivist(world.ones[0]), every=brief, pause=timedelta(milliseconds=1))
        duty.start()
        for ref in (first, await talk(world)):
            await wait_until(partial(_archived, world, ref), description="the session is archived")
        await duty.stop()


async def test_a_session_that_runs_again_is_archived_again_as_a_whole():
    """Back, forth and back: the new shelf has everything, and nothing is left of the old one."""
    async with fleet(agent) as world:
        ref = await talk(world, "1")
        await walk(archivist(world.ones[0]))
        old = objects(world, ref, "log/")
        assert (await walk(archivist(world.ones[0]))).archived == 0
        assert (await world.ask(ref, "2")).status == "completed"
        assert (await walk(archivist(world.ones[0]))).archived == 1
        assert len(objects(world, ref, "log/")) == 1 and not {*old} & {*objects(world, ref)}
        assert world.database.rows[ref].events == {}
        await assert_whole(world, ref)


async def test_what_came_back_leaves_nothing_behind():
    """The archive of a session that is back is an orphan, also where nobody archives any more."""
    async with fleet(agent) as world:
        ref = await talk(world, "1")
        await walk(archivist(world.ones[0]))
        await world.any.events(ref, after=0, limit=10)
        assert len(objects(world, ref, "log/")) == 1
        assert (await walk(archivist(world.ones[0], SWEEP))).removed == 1
        assert (await walk(archivist(world.ones[0], SWEEP))).removed == 0
        assert objects(world, ref, "log/") == []
        await assert_whole(world, ref)


async def test_a_long_log_is_several_segments(monkeypatch: pytest.MonkeyPatch):
    """Page by page and segment by segment; it comes back as one log."""
    monkeypatch.setattr(reading, "PAGE_EVENTS", 3)
    monkeypatch.setattr(archivists, "cut", lambda events: [events[:2], events[2:]] if len(events) > 2 else [events])
    async with fleet(agent) as world:
        ref = await talk(world, *"1234")
        before = await world.log(ref)
        await walk(archivist(world.ones[0]))
        assert len(objects(world, ref, "log/")) > 5
        assert await world.any.events(ref, after=0, limit=1000) == before


async def test_a_session_that_cannot_be_read_stops_no_other():
    """It is counted and passed over."""
    async with fleet(agent) as world:
        refs = [await talk(world, "1") for _ in range(3)]
        del world.database.rows[refs[1]].events[2]
        world.database.rows[refs[2]].state, world.database.rows[refs[2]].version = b"", 0
        del world.database.rows[refs[2]].events[3]
        tally = await walk(archivist(world.ones[0]))
        assert (tally.archived, tally.failed) == (1, 2)
        await assert_whole(world, refs[0])


async def test_a_message_in_the_middle_keeps_the_session():
    """Somebody speaks while the segments are put: nothing is shelved, and what was put is swept away later."""
    async with fleet(agent) as world:
        ref = await talk(world, "1")
        reached, go = stops(world.ones[0].blobs, "put", before=False)
        walking = asyncio.create_task(walk(archivist(world.ones[0])))
        await reached.wait()
        assert (await world.ask(ref, "2")).status == "completed"
        go.set()
        assert (await walking).archived == 0
        await assert_whole(world, ref)
        assert len(objects(world, ref, "log/")) == 1
        await walk(archivist(world.ones[0], SWEEP))
        assert objects(world, ref, "log/") == []
        await assert_whole(world, ref)


async def test_a_deletion_in_the_middle_leaves_nothing():
    """A segment that is put after the erasure is erased, too, by whoever put it or on a later walk."""
    async with fleet(agent, tuning=QUICK) as world:
        for dies in (False, True):
            ref = await talk(world, "1")
            reached, go = stops(world.ones[0].blobs, "put", before=True)
            walking = asyncio.create_task(walk(archivist(world.ones[0])))
            await reached.wait()
            await world.any.delete(ref)
            await wait_until(partial(_erased, world, ref), description="the session is erased")
            if dies:
                walking.cancel()
                await asyncio.gather(walking, return_exceptions=True)
                segment = f"{folder(ref.tenant, ref.id)}log/1-{'0' * 64}"
                world.objects[segment] = b"what arrived after its sender's death"
                await walk(archivist(world.ones[0], SWEEP))
            else:
                go.set()
                await walking
            await wait_until(partial(_nothing_of, world, ref), description="nothing is left of the session")


# ---------------------------------------------------------------------------- orphans


async def paused(world: Fleet, ref: Ref, *, before: bool) -> tuple[One, asyncio.Event, asyncio.Task[None]]:
    """A turn whose replica is paused around a put, is believed dead, and completed by another one.

    Returns the paused replica, what lets it go on, and its turn.
    """
    zombie = world.ones[0]
    reached, go = stops(zombie.blobs, "put", before=before)
    receipt = await world.say(ref, "7")
    await reached.wait()
    task = zombie.replica._turns[ref]
    await world.start()
    world.database.kill(zombie.incarnation)
    assert (await world.end_of(ref, receipt)).status == "completed"
    return zombie, go, task


@pytest.mark.parametrize("policy", [AT_ONCE, SWEEP], ids=["archived", "swept"])
async def test_what_a_paused_turn_left_is_removed_and_it_is_fenced(policy: Policy):
    """A turn stands between its put and its commit, however long: it is swept, goes on, and refers to nothing."""
    async with fleet(agent, tuning=QUICK) as world:
        ref = await talk(world, "1")
        _, go, task = await paused(world, ref, before=False)
        assert len(artifacts(world, ref)) == 3
        tally = await walk(archivist(world.ones[-1], policy))
        assert tally.removed == 1
        assert len(artifacts(world, ref)) == 2
        before = await world.ones[-1].shelf.read(ref, after=0)
        go.set()
        await asyncio.wait((task,))
        assert await world.ones[-1].shelf.read(ref, after=0) == before
        await assert_whole(world, ref)


async def test_what_a_paused_turn_puts_after_the_sweep_is_removed_by_the_next():
    """Whoever is fenced off has the session swept again."""
    async with fleet(agent, tuning=QUICK) as world:
        ref = await talk(world, "1")
        _, go, task = await paused(world, ref, before=True)
        assert (await walk(archivist(world.ones[-1], SWEEP))).removed == 0
        assert (await walk(archivist(world.ones[-1], SWEEP))) == Tally(seen=1)
        go.set()
        await asyncio.wait((task,))
        assert len(artifacts(world, ref)) == 3
        assert (await walk(archivist(world.ones[-1], SWEEP))).removed == 1
        await assert_whole(world, ref)


async def turn_during_a_sweep(world: Fleet) -> None:
    """Somebody speaks after the log was read, and before the objects are listed."""
    ref = await talk(world, "1")
    _, wake, zombie = await paused(world, ref, before=False)
    wake.set()
    await asyncio.wait((zombie,))
    one = world.ones[-1]
    first, begin = stops(one.blobs, "list", before=True)
    walking = asyncio.create_task(walk(archivist(one, SWEEP)))
    await first.wait()
    second, go = stops(one.blobs, "list", before=True)
    begin.set()
    await second.wait()
    assert (await world.end_of(ref, await world.say(ref, "8", place=-1))).status == "completed"
    go.set()
    await walking
    await assert_whole(world, ref)


async def sweep_during_an_archiving(world: Fleet) -> None:
    """One archives, and stops before it shelves; another one sweeps meanwhile."""
    ref = await talk(world, "1")
    world.objects[f"{folder(ref.tenant, ref.id)}0-{'0' * 64}"] = b"an orphan, so that there is something to sweep"
    reached, go = stops(world.ones[0].warm, "shelve", before=True)
    walking = asyncio.create_task(walk(archivist(world.ones[0])))
    await reached.wait()
    await walk(archivist(world.ones[0], SWEEP))
    go.set()
    await walking
    await assert_whole(world, ref)


RACES = [turn_during_a_sweep, sweep_during_an_archiving]


@pytest.mark.parametrize("race", RACES)
async def test_a_sweep_removes_nothing_that_is_wanted(race: Callable[[Fleet], Awaitable[None]]):
    """Whatever is put and pointed to while somebody sweeps is there afterwards."""
    async with fleet(agent, tuning=QUICK) as world:
        await race(world)


def _no_epoch_in_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Artifact, "name", lambda self, tenant: f"{folder(tenant, self.session)}0-{self.sha256}")


def _no_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The epoch is not raised, and what is not older than it goes, too: nothing else would ever be found."""

    def fence(session: Any, known: Any, now: int, *, seen: Any) -> Any:
        made = idle.fence(session, known, now, seen=seen)
        return Write(session, (), session) if isinstance(made, Write) else made

    def unwanted(names: Any, *, epoch: int, wanted: Any) -> Any:
        return idle.unwanted(names, epoch=epoch + 1, wanted=wanted)

    monkeypatch.setattr(archivists, "fence", fence)
    monkeypatch.setattr(archivists, "unwanted", unwanted)


@pytest.mark.parametrize(
    ("mutate", "race"),
    [(_no_epoch_in_names, turn_during_a_sweep), (_no_fence, sweep_during_an_archiving)],
)
async def test_without_its_fence_a_sweep_would_be_caught(monkeypatch: pytest.MonkeyPatch, mutate: Any, race: Any):
    """These races can be lost: the tests above notice a sweep that relies on luck."""
    mutate(monkeypatch)
    async with fleet(agent, tuning=QUICK) as world:
        with pytest.raises((AssertionError, Unreadable, Refused)):
            await race(world)


async def test_many_archivists_at_once_do_no_harm():
    """Two replicas take themselves for the smallest, and an operator gives the command: nothing is lost."""
    async with fleet(agent, count=3) as world:
        refs = [await talk(world, "1") for _ in range(5)]
        for round_ in range(3):
            policies = (AT_ONCE, AT_ONCE, SWEEP)
            await asyncio.gather(*(walk(archivist(*pair)) for pair in zip(world.ones, policies, strict=True)))
            for ref in refs:
                await assert_whole(world, ref)
                assert (await world.ask(ref, str(round_))).status == "completed"


async def test_what_is_no_objects_of_ours_is_left_alone():
    """Sessions that the log does not know, and names that are none of ours, are nobody's to remove."""
    async with fleet(agent) as world:
        ref = await talk(world, "1")
        foreign = [f"t/{'1' * 36}/0-{'a' * 64}", f"{folder(ref.tenant, ref.id)}notes-{'a' * 64}"]
        world.objects.update(dict.fromkeys(foreign, b"x"))
        await walk(archivist(world.ones[0]))
        assert {*foreign} <= world.objects.keys()


@pytest.mark.parametrize("puts", [0, 1])
async def test_half_a_fork_is_found_and_erased(puts: int):
    """A replica dies while it copies artifacts for a fork: the fork is deleted by the next walk, and they with it."""
    async with fleet(agent, count=2, tuning=QUICK) as world:
        ref = await talk(world)
        before = {*world.objects}
        one = world.ones[0]
        reached, go = stops(one.blobs, "put", before=not puts)
        forking = asyncio.create_task(one.service.fork(ref, at=None))
        await reached.wait()
        forking.cancel()
        (fork,) = [other for other in world.database.rows if other != ref]
        assert len({*world.objects} - before) == puts
        await walk(archivist(world.ones[1], SWEEP))
        await wait_until(lambda: world.database.rows[fork].erased, description="the half fork is erased")
        assert {*world.objects} == before
        go.set()
        await assert_whole(world, ref)


async def test_a_fork_that_was_given_up_is_not_made_after_all():
    """It stood for too long while it copied: whoever asked is told to ask again, and nothing of it stays."""
    async with fleet(agent, tuning=QUICK) as world:
        ref = await talk(world)
        before = {*world.objects}
        reached, go = stops(world.ones[0].blobs, "put", before=True)
        forking = asyncio.create_task(world.ones[0].service.fork(ref, at=None))
        await reached.wait()
        await walk(archivist(world.ones[0], SWEEP))
        go.set()
        with pytest.raises(Unavailable, match="given up"):
            await forking
        await walk(archivist(world.ones[0], SWEEP))
        await wait_until(lambda: {*world.objects} == before, description="nothing of the fork is left")
