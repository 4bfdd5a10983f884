"""The port `Warm`: what deleting leaves, what erasing removes, and that an unfinished erasure is never forgotten."""

import asyncio
from collections.abc import Mapping

import pytest

from dalsegno.core.append import Refusal
from dalsegno.core.event import SessionCreated
from dalsegno.core.lifecycle import erase_again
from dalsegno.core.session import Session
from dalsegno.ports import Ref, Warm
from dalsegno.testing.conformance.acts import (
    accept,
    admission,
    begin,
    change,
    delete,
    history,
    joined,
    note,
    session,
    speak,
    work,
    written,
)
from dalsegno.testing.conformance.worlds import LogWorld

MANY = 1200
"""Events that a store may remove in several pieces."""


class ErasureCases:
    """A subclass supplies the fixture `world`: a `LogWorld`."""

    async def test_what_is_erased_is_gone_for_good(self, world: LogWorld) -> None:
        """`erase`: remove a deleted session's events except its last, and its keys, for good. The tombstone stays."""
        log = await world.open()
        written(await speak(log, admission(session(), key="k1")))
        await accept(log, session(2))
        epoch = await delete(log, session())
        tombstone, last = await log.load(session()), (await history(log, session()))[-1]
        for handle in (log, await world.open()):
            await handle.erase(session(), epoch)
            assert (await world.seqs(session()), await world.keys(session())) == ([3], 0)
            assert await handle.load(session()) == tombstone
            for after, limit in ((0, 1000), (0, 1), (2, 1)):
                assert list(await handle.read(session(), after=after, limit=limit)) == [last]
            assert list(await handle.read(session(), after=3)) == []
            assert isinstance(await speak(handle, admission(session(), key="k1")), Refusal)
        assert await world.seqs(session(2)) == [1, 2]
        await world.outdate(session())
        assert await (await world.open()).load(session()) == tombstone

    async def test_a_tombstone_tells_nothing(self, world: LogWorld) -> None:
        """`load`: a tombstone; what was known of the session's user went with the session."""
        log = await world.open()
        await change(log, session(), SessionCreated("poet", "ann", {"secret": "plan"}))
        epoch = await delete(log, session())
        found = await log.load(session())
        assert found is not None
        bare = Session(session().id, session().tenant, head=2, epoch=epoch, updated_at=found.updated_at, deleted=True)
        assert found == bare
        await world.outdate(session())
        assert await (await world.open()).load(session()) == bare

    async def test_only_the_deleted_are_erased(self, world: LogWorld) -> None:
        """`erase`: a deleted session's events; whatever else is asked for stays."""
        log = await world.open()
        admitted = written(await speak(log, admission(session(), key="k1")))
        await log.erase(session(), 0)
        await log.erase(session(2), 0)
        assert await history(log, session()) == list(admitted.events)
        assert await world.keys(session()) == 1
        assert await log.unerased(limit=10) == {}

    async def test_what_is_deleted_is_named_until_it_is_erased(self, world: LogWorld) -> None:
        """Warm 1: `unerased` names a deleted session from its deletion on until it counts as erased."""
        log, other = await world.open(), await world.open()
        refs = [session(1), session(2), session(1, tenant="other")]
        for ref in (*refs, session(3)):
            await accept(log, ref)
        assert await other.unerased(limit=10) == {}
        epochs = {ref: await delete(log, ref) for ref in refs}
        for handle in (log, other):
            assert await handle.unerased(limit=10) == epochs
        await world.outdate(refs[0])
        for ref in refs:
            assert await (await world.open()).unerased(limit=10) == epochs
            await other.erase(ref, epochs.pop(ref))
        for handle in (log, other):
            assert await handle.unerased(limit=10) == {}

    async def test_the_unerased_are_named_one_behind_the_other(self, world: LogWorld) -> None:
        """`unerased`: in an order of the store's own, those behind `after`; there need not be such a session."""
        log = await world.open()
        refs = [session(number, tenant=tenant) for number in (3, 1, 2) for tenant in ("acme", "other", "acme2")]
        for ref in refs:
            await accept(log, ref)
            await delete(log, ref)
        order = list(await log.unerased(limit=100))
        assert sorted(order, key=str) == sorted(refs, key=str)
        for place, ref in enumerate(order):
            assert list(await log.unerased(after=ref, limit=2)) == order[place + 1 : place + 3]
        await log.erase(order[3], 1)
        assert list(await log.unerased(after=order[3], limit=2)) == order[4:6]

    @pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13])
    async def test_an_erasure_that_is_broken_off_is_not_forgotten(self, world: LogWorld, steps: int) -> None:
        """Warm 1: wherever an erasure was broken off."""
        log = await joined(world, "a")
        await work(log, await begin(log, session(), owner="a"), *(note(f"{n}") for n in range(MANY)))
        epoch = await delete(log, session())
        erasing = asyncio.create_task(log.erase(session(), epoch))
        for _ in range(steps):
            await asyncio.sleep(0)
        erasing.cancel()
        await asyncio.gather(erasing, return_exceptions=True)
        other = await world.open()
        if len(await world.seqs(session())) > 1:
            assert await other.unerased(limit=10) == {session(): epoch}
        assert (await history(other, session()))[-1].type == "session.deleted"
        await world.outdate(session())
        found = await other.load(session())
        assert found is not None and found.deleted
        await _erased(world, other, epoch)

    async def test_what_was_written_meanwhile_has_the_erasure_begin_again(self, world: LogWorld) -> None:
        """Warm 1: and again after any later write to it. `erase`: it counts as erased, if its epoch is `epoch`."""
        log, other = await world.open(), await world.open()
        await accept(log, session())
        first = await delete(log, session())
        written(await other.commit(session(), erase_again))
        await log.erase(session(), first)
        assert await world.seqs(session()) == [3]
        assert await other.unerased(limit=10) == {session(): first + 1}
        await _erased(world, log, first + 1)
        written(await other.commit(session(), erase_again))
        assert await log.unerased(limit=10) == {session(): first + 2}
        await _erased(world, log, first + 2)

    async def test_damage_does_not_keep_what_was_deleted(self, world: LogWorld) -> None:
        """Warm 1: however damaged it is. What cannot be read can be erased."""
        log = await world.open()
        await accept(log, session())
        epoch = await delete(log, session())
        await world.damage(session(), seq=2)
        await world.outdate(session())
        other = await world.open()
        assert await other.unerased(limit=10) == {session(): epoch}
        await _erased(world, other, epoch)
        found = await other.load(session())
        assert found is not None and found.deleted


async def _erased(world: LogWorld, log: Warm, epoch: int) -> None:
    """Erase the session, and look that it counts as erased and is."""
    await log.erase(session(), epoch)
    unerased: Mapping[Ref, int] = await log.unerased(limit=10)
    assert unerased == {}
    assert (len(await world.seqs(session())), await world.keys(session())) == (1, 0)
