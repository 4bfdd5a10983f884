"""The port `Warm`: what a whole store holds, session by session, with all that a session is known by."""

import asyncio
from functools import partial

import msgspec
import pytest

from dalsegno.core.append import Fenced, Known, Refusal
from dalsegno.core.event import SessionSettled
from dalsegno.core.input import Message, key_for
from dalsegno.core.move import Luggage, differences, land, seal
from dalsegno.core.session import Session
from dalsegno.errors import Damaged
from dalsegno.ports import Ref, Warm
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


class WalkCases:
    """A subclass supplies the fixture `world`: a `LogWorld`."""

    async def test_a_walk_comes_past_every_session(self, world: LogWorld) -> None:
        """Warm 2: a `walk` comes past every session. Of any tenant, deleted ones too, as `load` gives them."""
        log = await joined(world, "a")
        refs = [session(number, tenant=tenant) for number in (3, 1, 2) for tenant in ("acme", "other", "acme2")]
        for ref in refs[:-2]:
            await accept(log, ref)
        await work(log, await begin(log, refs[-2], owner="a"), note("half"))
        await work(log, await begin(log, refs[-1], owner="a"), waiting(), then="release")
        await delete(log, refs[0])
        await log.erase(refs[1], await delete(log, refs[1]))
        expected = {ref: await log.load(ref) for ref in refs}
        for handle in (log, await world.open()):
            for limit in (1, 2, 4, len(refs), 100):
                found = await _walked(handle, limit=limit)
                assert len(found) == len(refs)
                assert {Ref(one.tenant, one.id): one for one in found} == expected

    async def test_heads_are_told_of_many_at_once(self, world: LogWorld) -> None:
        """`heads`: how many events each has by now; none of those that were never created; of any tenant."""
        log, other = await joined(world, "a"), await world.open()
        refs = [session(number, tenant=tenant) for number in (3, 1, 2) for tenant in ("acme", "other")]
        assert await log.heads([]) == await log.heads(refs) == {}
        for count, ref in enumerate(refs[:-1]):
            for _ in range(count + 1):
                await accept(log, ref)
        await log.erase(refs[1], await delete(log, refs[1]))
        expected = {ref: (await history(log, ref))[-1].seq for ref in refs[:-1]}
        assert await log.heads(refs) == await other.heads(refs) == expected
        assert await other.heads(refs[2:4]) == {ref: expected[ref] for ref in refs[2:4]}

    async def test_an_empty_store_is_an_empty_walk(self, world: LogWorld) -> None:
        """`walk`: sessions; where there are none, none."""
        log = await world.open()
        assert list(await log.walk(limit=10)) == []
        assert await log.keys(session()) == {}

    async def test_a_walk_goes_on_behind_where_it_was(self, world: LogWorld) -> None:
        """`walk`: in an order of the store's own, those behind `after`; what happens meanwhile leaves none out."""
        log, other = await joined(world, "a"), await world.open()
        refs = [session(number) for number in (5, 3, 9, 1, 7)]
        for ref in refs:
            await accept(log, ref)
        met: list[Ref] = []
        while page := await log.walk(after=met[-1] if met else None, limit=2):
            assert len(page) <= 2
            met.extend(Ref(one.tenant, one.id) for one in page)
            # the one that was met is written, deleted, and others begin
            if len(met) == 2:
                await accept(other, met[0], "again")
                await delete(other, met[1])
                for number in (0, 4, 10):
                    await accept(other, session(number))
        assert len(met) == len(set(met)), "the walk came past a session twice"
        assert set(refs) <= set(met)

    async def test_a_walk_rebuilds_what_another_version_wrote(self, world: LogWorld) -> None:
        """`core.session`: `fold` rebuilds a session from the log when its `version` is not today's."""
        log = await joined(world, "a")
        await begin(log, session(), owner="a")
        before = await log.load(session())
        await world.outdate(session())
        for handle in (log, await world.open()):
            assert list(await handle.walk(limit=10)) == [before]

    @pytest.mark.parametrize("limit", [1, 2, 3, 10])
    async def test_a_walk_leaves_no_damaged_session_out(self, world: LogWorld, limit: int) -> None:
        """Warm 2: one that cannot be read ends its page; at the beginning of a page it raises `Damaged`: go on behind
        the one it names. P9: never silently nothing.
        """
        log = await world.open()
        refs = [session(number) for number in (1, 2, 3, 4, 5)]
        for ref in refs:
            await accept(log, ref)
        order = [Ref(one.tenant, one.id) for one in await log.walk(limit=10)]
        damaged = {order[0], order[2], order[3]}
        for ref in damaged:
            await world.outdate(ref)
            await world.damage(ref, seq=2)
        other = await world.open()
        met: list[Ref] = []
        raised: set[Ref] = set()
        while True:
            try:
                page = await other.walk(after=met[-1] if met else None, limit=limit)
            except Damaged as error:
                met.append(Ref(error.tenant, error.session))
                raised.add(met[-1])
                continue
            if not page:
                break
            met.extend(Ref(one.tenant, one.id) for one in page)
        assert (met, raised) == (order, damaged)

    async def test_keys_are_all_there_is_under_a_session(self, world: LogWorld) -> None:
        """`keys`: all that is known under the session's keys, and nothing of another's."""
        log = await joined(world, "a")
        lease = await begin(log, session(), owner="a")
        expected: dict[bytes, Known] = {}
        for number in range(20):
            heard = Message(content=f"number {number}", on_busy="steer" if number % 2 else "queue")
            admitted = written(await speak(log, admission(session(), heard, key=f"k{number}")))
            key = key_for(f"k{number}", heard)
            receipt = admitted.receipt
            expected[key.digest] = Known(key.fingerprint, receipt.seq, receipt.turn, receipt.status)
            await speak(log, admission(session(2), heard, key=f"other {number}"))
        await work(log, lease, note(), DONE)
        for handle in (log, await world.open()):
            assert await handle.keys(session()) == expected
            assert await handle.keys(session(tenant="other")) == {}
        epoch = await delete(log, session())
        assert await log.keys(session()) == expected
        await log.erase(session(), epoch)
        assert await log.keys(session()) == {}
        assert len(await log.keys(session(2))) == 20

    async def test_a_walk_stops_no_writer(self, world: LogWorld) -> None:
        """Log 2, while somebody walks: what is written during a walk is written as ever."""
        log, other = await world.open(), await world.open()
        refs = [session(number) for number in range(1, 9)]
        for ref in refs:
            await accept(log, ref)

        walking = asyncio.create_task(_walked(other, limit=1))
        await asyncio.gather(*(accept(log, ref, "again") for ref in refs))
        found = await walking
        assert {Ref(one.tenant, one.id) for one in found} == set(refs)
        assert {one.head for one in await _walked(other, limit=3)} == {3}

    async def test_what_moved_is_nobodys_to_claim(self, world: LogWorld) -> None:
        """`core.move`: a session that lives in another store is not claimed, stands in nobody's way, and its owner is
        fenced off; also when it is folded again. Once it is back it is claimed like any other.
        """
        log, other = await joined(world, "a"), await joined(world, "b")
        lease = await begin(log, session(), owner="a")
        sealed = written(await log.commit(session(), partial(seal, to="elsewhere", when="now")))
        assert sealed is not None and (sealed.moved, sealed.owner) == ("elsewhere", None)
        await accept(log, session(2))
        assert await work(log, lease, note()) == Fenced()
        assert list(await log.holdings("a")) == []
        await world.outdate(session())
        for handle in (log, other):
            assert await handle.load(session()) == sealed
        assert isinstance(await speak(other, admission(session(), "anybody there?")), Refusal)
        assert [one.session.id for one in await other.claim("b", limit=1)] == [session(2).id]
        assert list(await other.claim("b", limit=10)) == []
        assert sealed in await other.walk(limit=10)
        await change(other, session(), SessionSettled("elsewhere"))
        found = await leased(other, "b")
        assert (found.session, found.epoch > lease.epoch) == (session().id, True)

    async def test_a_whole_log_lands_at_once(self, world: LogWorld) -> None:
        """Log 2, 3, 5: a long log from elsewhere, with its keys, is one commit; and so is what follows it."""
        log = await joined(world, "a")
        lease = await begin(log, session(), owner="a")
        for number in range(30):
            await work(log, lease, *(note(f"{number} {text} 𝄋\0") for text in range(40)))
            written(await speak(log, admission(session(), Message(f"{number}", on_busy="steer"), key=f"k{number}")))
        target = session(1, tenant="other")
        there = await _sealed(log, session(), target)
        landed = written(await log.commit(target, partial(land, luggage=there, origin="here", after=0)))
        assert landed.head == len(there.events) + 1 == len(await world.seqs(target))
        written(await speak(log, admission(target, Message("on", on_busy="steer"), key="one more")))
        back = await _sealed(await world.open(), target, session())
        assert differences(there, back) == [] and len(back.keys) == len(there.keys) + 1
        written(await log.commit(session(), partial(land, luggage=back, origin="there", after=len(there.events))))
        found = await (await world.open()).load(session())
        assert found is not None
        kept = Luggage(found, await history(log, session()), await log.keys(session()))
        assert differences(back, kept) == [] and kept.keys == back.keys


async def _sealed(log: Warm, ref: Ref, target: Ref) -> Luggage:
    """The session, sealed, as one that goes by another name in the same store."""
    sealed = written(await log.commit(ref, partial(seal, to="there", when="now")))
    assert sealed is not None
    named = msgspec.structs.replace(sealed, id=target.id, tenant=target.tenant)
    return Luggage(named, await history(log, ref), await log.keys(ref))


async def _walked(log: Warm, *, limit: int) -> list[Session]:
    """The whole walk, page by page."""
    found: list[Session] = []
    while page := await log.walk(after=Ref(found[-1].tenant, found[-1].id) if found else None, limit=limit):
        assert len(page) <= limit
        found.extend(page)
    return found
