"""Whoever is interrupted while a session is deleted, and wherever: the fleet removes what belonged to it (law 9)."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from dalsegno.agents.tool import tool
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import Event
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Message
from dalsegno.core.lifecycle import delete as delete_it
from dalsegno.core.lifecycle import drop, half
from dalsegno.core.part import ToolCall
from dalsegno.errors import Refused, Unavailable
from dalsegno.ports import Ref
from dalsegno.runtime import eraser
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.replica import Tuning
from dalsegno.runtime.service import Service
from dalsegno.stores.memory import database
from tests.runtime.fleet import Fleet, One, fleet
from tests.support import wait_until

replace = msgspec.structs.replace
OFTEN = Tuning(bury_every=timedelta(milliseconds=10), erase_every=timedelta(milliseconds=10))
BY_HAND = Tuning(bury_every=timedelta(milliseconds=10), erase_every=timedelta(hours=1))
POINTS = [
    "before the artifacts",
    "among the artifacts",
    "behind the artifacts",
    "among the events",
    "behind the events",
]


@tool("read")
async def look_up(number: str) -> str:
    return number * 40_000


async def model(context):
    if context.items[-1]["type"] == "function_call_output":
        yield "done"
    else:
        yield ToolCall("look_up", {"number": context.items[-1]["content"][0]["text"]})


async def agent(turn: Turn) -> None:
    """Answers each message with an artifact."""
    await turn.perform(await turn.generate(model, tools=[look_up]))
    await turn.generate(model)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch):
    """Erasing these few events is a long erasure."""
    monkeypatch.setattr(database, "ERASED_AT_ONCE", 3)


async def talk(world: Fleet) -> Ref:
    """A session with events, keys and artifacts."""
    ref = await world.session()
    for number in ("1", "2"):
        receipt = await world.say(ref, Message(number), key=number)
        assert (await world.end_of(ref, receipt)).status == "completed"
    assert len(left(world, ref)) > 10
    return ref


def left(world: Fleet, ref: Ref) -> list[object]:
    """Events except the last, keys and artifacts, as they are stored."""
    row = world.database.rows[ref]
    objects = [name for name in world.objects if name.startswith(f"{ref.tenant}/{ref.id}/")]
    return [*sorted(set(row.events) - {row.head}), *row.known, *objects]


def falters(one: One, point: str, then: Callable[[], Awaitable[None]]) -> None:
    """Whenever the replica erases something it comes to `point`, and `then` is what happens."""
    handle, warm_erase, blobs_delete = one.warm, one.warm.erase, one.blobs.delete

    async def delete(prefix: str) -> None:
        if point == "before the artifacts":
            await then()
        if point == "among the artifacts":
            await blobs_delete(next(iter(name for name in one.blobs._objects if name.startswith(prefix)), prefix))
            await then()
        await blobs_delete(prefix)
        if point == "behind the artifacts":
            await then()

    async def erase(ref: Ref, epoch: int) -> None:
        if point == "among the events":
            handle.database.erase_some(ref, epoch)
            await then()
        await warm_erase(ref, epoch)
        if point == "behind the events":
            await then()

    broken: Any = one
    broken.warm.erase, broken.blobs.delete = erase, delete


async def assert_erased(world: Fleet, ref: Ref, neighbour: Ref) -> None:
    """Nothing is left of the session but its tombstone, and all of its neighbour."""
    warm = world.ones[-1].warm

    async def erased() -> bool:
        return await warm.unerased(limit=1) == {}

    await wait_until(erased, description="the session to count as erased")
    assert left(world, ref) == []
    assert await world.types(ref) == ["session.deleted"]
    tombstone = await warm.load(ref)
    assert tombstone is not None and tombstone.deleted
    with pytest.raises(Refused, match="not_found"):
        await world.any.delete(ref)
    assert len(left(world, neighbour)) > 10


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_at_any_point_of_a_deletion_is_made_up_for(point: str):
    """The replica that was asked to delete a session dies; another one finishes."""
    reached, dead = asyncio.Event(), asyncio.Event()

    async def die() -> None:
        reached.set()
        await dead.wait()
        raise Unavailable("dead", outcome="unknown")

    async with fleet(agent, tuning=OFTEN) as world:
        ref, neighbour = await talk(world), await talk(world)
        falters(world.ones[0], point, die)
        deletion = asyncio.create_task(world.ones[0].service.delete(ref))
        await reached.wait()
        dead.set()
        await world.kill()
        deletion.cancel()
        await world.start()
        await assert_erased(world, ref, neighbour)


@pytest.mark.parametrize("point", POINTS)
async def test_a_tier_that_does_not_answer_only_postpones_it(point: str):
    """The session is deleted, and says so; a replica that reaches the tiers finishes."""

    async def fail() -> None:
        raise Unavailable("gone", outcome="unknown")

    async with fleet(agent, tuning=OFTEN) as world:
        ref, neighbour = await talk(world), await talk(world)
        falters(world.ones[0], point, fail)
        await world.any.delete(ref)
        with pytest.raises(Refused, match="not_found"):
            await world.any.get(ref)
        await world.start()
        await assert_erased(world, ref, neighbour)


@pytest.mark.parametrize("point", POINTS)
async def test_two_may_erase_the_same_session(point: str):
    """The replica that carries out the deletion is slow, another one finishes before it: both come to the same."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await go_on.wait()

    async with fleet(agent, count=2, tuning=BY_HAND) as world:
        ref, neighbour = await talk(world), await talk(world)
        falters(world.ones[0], point, wait)
        deletion = asyncio.create_task(world.ones[0].service.delete(ref))
        await reached.wait()
        await world.ones[1].replica.eraser.finish()
        assert left(world, ref) == []
        go_on.set()
        await deletion
        await assert_erased(world, ref, neighbour)


async def test_a_repeated_deletion_finishes_an_interrupted_one():
    """It removes what a failing tier had kept, and answers like any other after the first."""

    async def fail() -> None:
        raise Unavailable("gone", outcome="not_applied")

    async with fleet(agent, count=2, tuning=BY_HAND) as world:
        ref, neighbour = await talk(world), await talk(world)
        falters(world.ones[0], "before the artifacts", fail)
        await world.ones[0].service.delete(ref)
        assert len(left(world, ref)) > 10
        with pytest.raises(Refused, match="not_found"):
            await world.ones[1].service.delete(ref)
        assert left(world, ref) == []
        await assert_erased(world, ref, neighbour)


async def test_what_cannot_be_erased_stops_nothing_else(monkeypatch: pytest.MonkeyPatch):
    """However many they are; and they are erased when they can be."""
    monkeypatch.setattr(eraser, "FINISHED_AT_ONCE", 2)
    async with fleet(agent, tuning=OFTEN) as world:
        refs = [await talk(world) for _ in range(6)]
        stuck = set(sorted(refs, key=lambda ref: ref.id)[:5])
        delete = world.ones[0].blobs.delete

        async def fail(prefix: str) -> None:
            if any(f"{ref.tenant}/{ref.id}/" == prefix for ref in stuck):
                raise Unavailable("no permission", outcome="not_applied")
            await delete(prefix)

        broken: Any = world.ones[0]
        broken.blobs.delete = fail
        last = next(ref for ref in refs if ref not in stuck)
        for ref in refs:
            await world.ones[0].warm.commit(ref, delete_it)
        await wait_until(lambda: left(world, last) == [], description="the last one to be erased")
        assert all(len(left(world, ref)) > 10 for ref in stuck)
        stuck.clear()
        await wait_until(lambda: not any(left(world, ref) for ref in refs), description="all of them to be erased")


async def stopped_at_its_put(world: Fleet) -> tuple[Ref, asyncio.Event]:
    """A session whose turn is about to put an artifact, on a replica that does not go on until the event is set."""
    ref, one = await talk(world), world.ones[0]
    reached, go_on, put = asyncio.Event(), asyncio.Event(), one.blobs.put

    async def wait(name: str, content: bytes) -> None:
        reached.set()
        await go_on.wait()
        await put(name, content)

    slow: Any = one
    slow.blobs.put = wait
    await world.say(ref, "3")
    await reached.wait()
    return ref, go_on


async def fenced_off(world: Fleet) -> None:
    await wait_until(lambda: world.ones[0].replica.turns == 0, description="the turn to be fenced off")


async def test_p4_an_artifact_that_comes_too_late_is_erased():
    """A turn puts an artifact when its session has been deleted and erased; it is fenced off, and that goes, too."""
    async with fleet(agent, count=2, tuning=BY_HAND) as world:
        ref, go_on = await stopped_at_its_put(world)
        await world.ones[1].service.delete(ref)
        assert left(world, ref) == []
        go_on.set()
        await fenced_off(world)
        assert len(left(world, ref)) == 1, "the artifact"
        await world.ones[1].replica.eraser.finish()
        assert left(world, ref) == []
        assert await world.any._warm.unerased(limit=1) == {}


async def test_p4_an_artifact_that_comes_while_others_are_erased_is_not_forgotten():
    """The erasure that was under way when the turn was fenced off does not count: its artifacts were gone already."""
    reached, finish = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await finish.wait()

    async with fleet(agent, count=2, tuning=BY_HAND) as world:
        ref, go_on = await stopped_at_its_put(world)
        falters(world.ones[1], "among the events", wait)
        deletion = asyncio.create_task(world.ones[1].service.delete(ref))
        await reached.wait()
        go_on.set()
        await fenced_off(world)
        finish.set()
        await deletion
        assert len(left(world, ref)) == 1, "the artifact"
        await world.ones[0].replica.eraser.finish()
        assert left(world, ref) == []
        assert await world.any._warm.unerased(limit=1) == {}


ASKED: dict[str, Callable[[Service, Ref], Awaitable[object]]] = {
    "fork": lambda service, ref: service.fork(ref, at=None),
    "events": lambda service, ref: service.events(ref, after=0, limit=1000),
    "items": lambda service, ref: service.items(ref, after=0, limit=1000),
    "turn": lambda service, ref: service.turn(ref, turn_id(ref.id, 2)),
}
LOST = ["all events", "some events", "texts"]


def deletes_at_the_next_read(world: Fleet, ref: Ref, lost: str) -> None:
    """Whoever reads the log next does so while the session is being deleted: that much of it is gone already."""
    warm: Any = world.ones[0].warm
    read = warm.read

    async def late(asked: Ref, *, after: int, limit: int = 1000) -> Any:
        warm.read = read
        events = await read(asked, after=after, limit=limit)
        if lost == "some events":
            await warm.commit(ref, delete_it)
            world.database.erase_some(ref, 0)
        else:
            await world.ones[0].service.delete(ref)
        return events if lost == "texts" else await read(asked, after=after, limit=limit)

    warm.read = late


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("asked", ASKED)
async def test_who_reads_while_it_is_deleted_does_not_find_it(asked: str, lost: str):
    """What is left of a session while it is erased is never told as a shorter session, nor forked (P9)."""
    async with fleet(agent, tuning=replace(BY_HAND, inline_max_bytes=2)) as world:
        ref = await talk(world)
        deletes_at_the_next_read(world, ref, lost)
        with pytest.raises(Refused, match="not_found"):
            await ASKED[asked](world.ones[0].service, ref)
        alive = [session for session in world.database.walk(None, 10) if not session.deleted and not half(session)]
        assert not alive


@pytest.mark.parametrize("lost", LOST)
async def test_who_follows_while_it_is_deleted_is_told_so(lost: str):
    """A stream that meets a session without its texts, or without its beginning, ends with `session.deleted`."""
    async with fleet(agent, tuning=replace(BY_HAND, inline_max_bytes=2)) as world:
        ref = await talk(world)
        stream = await world.ones[0].service.follow(ref, after=Cursor(0))
        deletes_at_the_next_read(world, ref, lost)
        async with asyncio.timeout(10):
            frames = [frame async for frame in stream]
        await stream.aclose()
        last = frames[-1].what
        assert isinstance(last, Event) and last.type == "session.deleted"


async def test_a_fork_that_was_given_up_as_half():
    """Whoever copies for so long that the fork is dropped has what is copied afterwards erased again."""
    async with fleet(agent, tuning=BY_HAND) as world:
        ref = await talk(world)
        one: Any = world.ones[0]
        put = one.blobs.put

        async def late(name: str, content: bytes) -> None:
            fork = next(ref for ref, row in world.database.rows.items() if row.head == 1)
            await one.warm.commit(fork, drop)
            await one.replica.eraser.erase(fork)
            one.blobs.put = put
            await put(name, content)

        one.blobs.put = late
        with pytest.raises(Unavailable, match="given up"):
            await one.service.fork(ref, at=None)
        fork = next(ref for ref, row in world.database.rows.items() if row.deleted)
        await one.replica.eraser.finish()
        assert left(world, fork) == []


async def test_a_fork_of_an_import_whose_original_is_gone():
    """Outputs in an import point to what the exported session had; a fork of it does as it does."""
    async with fleet(agent) as world:
        ref = await talk(world)
        service = world.ones[0].service
        copy = await service.restore(ref.tenant, await service.events(ref, after=0, limit=1000))
        await service.delete(ref)
        fork = await service.fork(Ref(ref.tenant, copy.id), at=None)
        imported, forked = [await world.log(Ref(ref.tenant, made.id)) for made in (copy, fork)]
        assert forked[1:] == imported[1:]
