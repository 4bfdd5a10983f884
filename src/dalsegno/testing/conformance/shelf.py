"""The port `Warm`: events that are shelved are asked for, never missed, and come back as they were."""

import asyncio
from collections.abc import Sequence

import pytest

from dalsegno.core.append import Keep, Write
from dalsegno.core.event import Event, SessionUpdated
from dalsegno.errors import Shelved, Unreadable
from dalsegno.ports import Query, Ref, Warm
from dalsegno.testing.conformance.acts import (
    DONE,
    accept,
    admission,
    begin,
    change,
    delete,
    history,
    joined,
    leased,
    note,
    session,
    speak,
    waiting,
    work,
    written,
)
from dalsegno.testing.conformance.worlds import LogWorld

SHELF = b"\0where it is\xff"
OTHER = b"somewhere else"
MANY = 1200


class ShelfCases:
    """A subclass supplies the fixture `world`: a `LogWorld`."""

    async def test_what_is_shelved_is_gone_and_comes_back(self, world: LogWorld) -> None:
        """`shelve`: remove all events. `unshelve`: put them back; each byte as it was."""
        log, other = await joined(world, "a"), await world.open()
        events = await _idle(log, session(), "𝄋 a\0b")
        await accept(log, session(2))
        before = await log.load(session())
        assert await _shelve(log, session())
        assert await world.seqs(session()) == []
        assert await world.seqs(session(2)) == [1, 2]
        assert await log.load(session()) == await other.load(session()) == before
        await other.unshelve(session(), SHELF, events)
        assert await world.seqs(session()) == [event.seq for event in events]
        for handle in (log, other, await world.open()):
            assert await history(handle, session()) == list(events)
            assert await handle.load(session()) == before

    async def test_what_is_shelved_is_asked_for_and_never_missed(self, world: LogWorld) -> None:
        """Warm 3: what was shelved raises `Shelved` where it is needed, and is never an empty or shorter log."""
        log = await joined(world, "a")
        events = await _idle(log, session())
        assert await _shelve(log, session())
        for handle in (log, await world.open()):
            for after, limit in ((0, 1000), (0, 1), (2, 1), (events[-1].seq - 1, 5)):
                with pytest.raises(Shelved) as told:
                    await handle.read(session(), after=after, limit=limit)
                assert (told.value.tenant, told.value.session, told.value.shelf) == (*_names(session()), SHELF)
            assert list(await handle.read(session(), after=events[-1].seq)) == []

    async def test_the_session_is_served_without_its_events(self, world: LogWorld) -> None:
        """Warm 3: sessions, keys and whatever was written since are served as before."""
        log = await joined(world, "a")
        written(await speak(log, admission(session(), "hello", key="k1")))
        await work(log, await leased(log, "a"), DONE, then="release")
        events = await history(log, session())
        head = events[-1].seq
        assert await _shelve(log, session())
        assert len((await log.list(session().tenant, Query())).sessions) == 1
        replayed = await speak(log, admission(session(), "hello", key="k1"))
        assert isinstance(replayed, Keep) and replayed.result.receipt.replayed
        assert await world.keys(session()) == len(await log.keys(session())) == 1
        assert (await change(log, session(), SessionUpdated({"a": 1}))).head == head + 1
        assert (await accept(log, session(), "again")).receipt.seq == head + 2
        assert (await leased(log, "a")).turn == head + 2
        assert await world.seqs(session()) == [head + 1, head + 2, head + 3]
        assert [event.seq for event in await log.read(session(), after=head)] == [head + 1, head + 2, head + 3]
        for after in (0, head - 1):
            with pytest.raises(Shelved):
                await log.read(session(), after=after)
        await log.unshelve(session(), SHELF, events)
        assert [event.seq for event in await history(log, session())] == list(range(1, head + 4))
        assert (await history(log, session()))[:head] == events

    async def test_a_walk_tells_which_are_shelved(self, world: LogWorld) -> None:
        """`walk`: `shelved` is set where a shelf is kept, and nowhere else."""
        log = await joined(world, "a")
        for number in (1, 2):
            await _idle(log, session(number))
        assert await _shelve(log, session(2))
        assert [(one.id, one.shelved) for one in await log.walk(limit=10)] == [
            (session(1).id, False),
            (session(2).id, True),
        ]
        found = await log.load(session(2))
        assert found is not None and not found.shelved

    async def test_only_an_idle_session_that_stands_there_is_shelved(self, world: LogWorld) -> None:
        """`shelve`: False: it stands elsewhere, is at work, is deleted or has a shelf already; nothing was done."""
        log = await joined(world, "a")
        idle, queued, running, parked, deleted = (session(number) for number in range(1, 6))
        head = (await _idle(log, idle))[-1].seq
        await accept(log, queued)
        await begin(log, running, owner="a")
        await work(log, await begin(log, parked, owner="a"), waiting(), then="release")
        await _idle(log, deleted)
        await delete(log, deleted)
        for ref in (queued, running, parked, deleted):
            before = await world.seqs(ref)
            assert not await _shelve(log, ref)
            assert await world.seqs(ref) == before
        assert not await log.shelve(session(9), SHELF, head=0, epoch=0)
        for wrong in ((head - 1, 1), (head + 1, 1), (head, 0), (head, 2)):
            assert not await log.shelve(idle, SHELF, head=wrong[0], epoch=wrong[1])
        assert len(await history(log, idle)) == head
        assert await log.shelve(idle, SHELF, head=head, epoch=1)
        assert not await log.shelve(idle, OTHER, head=head, epoch=1)
        with pytest.raises(Shelved) as told:
            await log.read(idle, after=0)
        assert told.value.shelf == SHELF

    async def test_a_shelf_is_brought_back_once(self, world: LogWorld) -> None:
        """`unshelve`: if the session has no such shelf any more, or is deleted, this does nothing."""
        log, other = await joined(world, "a"), await world.open()
        events = await _idle(log, session())
        await log.unshelve(session(), SHELF, events)
        await log.unshelve(session(9), SHELF, events)
        assert await _shelve(log, session())
        await log.unshelve(session(), OTHER, events)
        assert await world.seqs(session()) == []
        await asyncio.gather(*(handle.unshelve(session(), SHELF, events) for handle in (log, other, log)))
        await log.unshelve(session(), SHELF, events)
        assert await history(other, session()) == list(events)
        assert await _shelve(log, session(), OTHER)
        await log.unshelve(session(), SHELF, events)
        assert await world.seqs(session()) == []

    async def test_deleting_what_is_shelved_leaves_a_tombstone(self, world: LogWorld) -> None:
        """`erase`: the tombstone stays; nothing asks for the shelf of a deleted session."""
        log = await joined(world, "a")
        events = await _idle(log, session())
        assert await _shelve(log, session())
        epoch = await delete(log, session())
        last = (await log.read(session(), after=0))[-1]
        assert last.type == "session.deleted"
        await log.unshelve(session(), SHELF, events)
        assert await world.seqs(session()) == [last.seq]
        await log.erase(session(), epoch)
        assert await log.unerased(limit=10) == {}
        assert [one.shelved for one in await log.walk(limit=10)] == [False]
        await world.outdate(session())
        for handle in (log, await world.open()):
            found = await handle.load(session())
            assert found is not None and found.deleted
            assert list(await handle.read(session(), after=0)) == [last]

    async def test_a_state_that_cannot_be_read_asks_for_the_events(self, world: LogWorld) -> None:
        """Warm 3: raises `Shelved` where it is needed, also to fold a session again; then it is as it was."""
        log = await joined(world, "a")
        events = await _idle(log, session())
        before = await log.load(session())
        assert await _shelve(log, session())
        await change(log, session(), SessionUpdated({"a": 1}))
        await world.outdate(session())
        fresh = await world.open()
        for asking in (
            lambda: fresh.load(session()),
            lambda: fresh.list(session().tenant, Query()),
            lambda: fresh.walk(limit=10),
            lambda: speak(fresh, admission(session(), "anybody there?")),
        ):
            with pytest.raises(Shelved) as told:
                await asking()
            assert told.value.shelf == SHELF
        await fresh.unshelve(session(), SHELF, events)
        found = await fresh.load(session())
        assert before is not None and found is not None
        assert (found.head, found.metadata, found.created_at) == (before.head + 1, {"a": 1}, before.created_at)
        assert isinstance(await speak(fresh, admission(session(), "anybody there?")), Write)

    async def test_what_can_be_brought_back_is_not_given_up(self, world: LogWorld) -> None:
        """A claim passes over a session that it cannot read, takes the others, and asks for it when it is alone."""
        log = await joined(world, "a")
        events = await _idle(log, session())
        assert await _shelve(log, session())
        await accept(log, session(), "again")
        await world.outdate(session())
        await accept(log, session(2))
        fresh = await world.open()
        assert [found.session.id for found in await fresh.claim("a", limit=10)] == [session(2).id]
        with pytest.raises(Shelved):
            await fresh.claim("a", limit=10)
        await fresh.unshelve(session(), SHELF, events)
        assert [found.session.id for found in await fresh.claim("a", limit=10)] == [session().id]

    async def test_what_is_lost_is_not_called_shelved(self, world: LogWorld) -> None:
        """P9: an event that is neither here nor on a shelf is an error that bringing back does not mend."""
        log = await joined(world, "a")
        events = await _idle(log, session())
        assert await _shelve(log, session())
        await log.unshelve(session(), SHELF, events)
        await world.lose(session(), seq=2)
        with pytest.raises(Unreadable) as told:
            await log.read(session(), after=0)
        assert not isinstance(told.value, Shelved)

    async def test_a_long_log_is_shelved_as_a_whole(self, world: LogWorld) -> None:
        """`shelve`: all events; `unshelve`: all of them again."""
        log = await joined(world, "a")
        notes = (note(f"{n}") for n in range(MANY))
        await work(log, await begin(log, session(), owner="a"), *notes, DONE, then="release")
        found = await log.load(session())
        assert found is not None
        events = await history(log, session())
        assert await _shelve(log, session())
        assert await world.seqs(session()) == []
        await log.unshelve(session(), SHELF, events)
        assert await world.seqs(session()) == list(range(1, found.head + 1))


async def _idle(log: Warm, ref: Ref, text: str = "hello") -> Sequence[Event]:
    """A session with a turn that has ended; its events. Its epoch is 1."""
    await work(log, await begin(log, ref, owner="a"), note(text), DONE, then="release")
    return await history(log, ref)


async def _shelve(log: Warm, ref: Ref, shelf: bytes = SHELF) -> bool:
    found = await log.load(ref)
    assert found is not None
    return await log.shelve(ref, shelf, head=found.head, epoch=found.epoch)


def _names(ref: Ref) -> tuple[str, str]:
    return ref.tenant, ref.id
