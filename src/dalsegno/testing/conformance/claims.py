"""The port `Log`: claims, leases and fences."""

import asyncio
from datetime import timedelta

from dalsegno.core.append import Fenced, Write
from dalsegno.core.event import ItemDone, SessionUpdated
from dalsegno.core.input import Approval, Cancel
from dalsegno.core.lease import Lease
from dalsegno.ports import Warm
from dalsegno.testing.conformance.acts import (
    DONE,
    accept,
    admission,
    begin,
    change,
    eventually,
    history,
    joined,
    leased,
    note,
    only,
    session,
    speak,
    waiting,
    work,
    written,
)
from dalsegno.testing.conformance.worlds import LogWorld


class ClaimCases:
    """A subclass supplies the fixture `world`: a `LogWorld`."""

    async def test_a_claim_takes_what_is_ready(self, world: LogWorld) -> None:
        """Log 6 and `claim`: take ready sessions that nobody alive owns, of whatever tenant."""
        log = await joined(world, "a")
        refs = [session(1), session(2, tenant="other")]
        for ref in refs:
            await accept(await world.open(), ref)
        await change(log, session(3), SessionUpdated({"nothing": "to run"}))
        claimed = sorted(await log.claim("a", limit=10), key=lambda one: one.session.id)
        assert [one.lease for one in claimed] == [Lease(ref.tenant, ref.id, 1, "a", 2, 1) for ref in refs]
        for ref, one in zip(refs, claimed, strict=True):
            assert await log.load(ref) == one.session
            assert (await history(log, ref))[-1:] == list(one.events)
            assert one.events[-1].type == "turn.started"
        assert sorted(await log.holdings("a"), key=lambda ref: ref.id) == refs
        assert list(await log.holdings("b")) == []

    async def test_a_session_goes_to_one_claimant_only(self, world: LogWorld) -> None:
        """Log 6: `claim` gives a session to one claimant only, however many race for it."""
        logs = [await joined(world, name) for name in "abcd"]
        for number in range(1, 31):
            await accept(logs[number % 4], session(number))
        leases = [lease for taken in await asyncio.gather(*map(_claim_all, logs, "abcd")) for lease in taken]
        assert sorted(lease.session for lease in leases) == [session(number).id for number in range(1, 31)]
        for lease in leases:
            assert lease.epoch == 1
            assert isinstance(await work(logs[0], lease, note()), Write)

    async def test_an_admission_and_a_claim_race_for_one_lease(self, world: LogWorld) -> None:
        """Log 6: one claimant only, also when the accepting replica is one of them."""
        one, other = await joined(world, "a"), await joined(world, "b")
        for number in range(1, 11):
            admitted, claimed, again = await asyncio.gather(
                accept(one, session(number), "1", taker="a"),
                other.claim("b", limit=1),
                accept(other, session(number), "2", taker="b"),
            )
            leases = [lease for lease in (admitted.lease, *(one.lease for one in claimed), again.lease) if lease]
            assert len(leases) == 1, f"owners at once: {[lease.owner for lease in leases]}"

    async def test_a_living_owner_is_left_alone(self, world: LogWorld) -> None:
        """Log 6: only if its owner is gone."""
        one, other = await joined(world, "a"), await joined(world, "b")
        lease = await begin(one, session(), owner="a")
        await accept(other, session(), "more")
        assert list(await other.claim("b", limit=10)) == []
        assert list(await one.claim("a", limit=10)) == []
        await work(one, lease, then="release")
        assert await leased(other, "b") == _lease_of(lease, owner="b", epoch=2)

    async def test_the_longest_waiting_comes_first(self, world: LogWorld) -> None:
        """`claim`: the longest waiting first, up to `limit`."""
        log = await joined(world, "a")
        order = [4, 1, 5, 3, 2]
        for number in order:
            await accept(log, session(number))
            await world.pass_time(timedelta(milliseconds=20))
        first, second = await log.claim("a", limit=2), await log.claim("a", limit=10)
        assert [one.session.id for one in (*first, *second)] == [session(number).id for number in order]
        assert len(first) == 2

    async def test_the_dead_owners_session_goes_on_elsewhere(self, world: LogWorld) -> None:
        """Log 6: its owner is gone (see `Fleet`). The epoch grows and the attempt counts."""
        one, other = await joined(world, "a"), await joined(world, "b")
        first = await begin(one, session(), owner="a")
        await work(one, first, note())
        assert list(await other.claim("b", limit=10)) == []
        await world.kill(one)
        await other.bury()
        lease = await leased(other, "b")
        assert (lease.epoch, lease.attempt, lease.turn, lease.orphaned) == (2, 2, first.turn, True)
        assert list(await other.holdings("a")) == []

    async def test_a_turn_that_kills_three_replicas_is_poisoned(self, world: LogWorld) -> None:
        """P5: a turn that kills three replicas fails as `poisoned`, and its session stays usable."""
        victim, survivor = await joined(world, "a1"), await joined(world, "b")
        await begin(victim, session(), owner="a1")
        await accept(survivor, session(), "and then?")
        for attempt in (2, 3):
            await world.kill(victim)
            await survivor.bury()
            victim = await joined(world, f"a{attempt}")
            assert (await leased(victim, f"a{attempt}")).attempt == attempt
        await world.kill(victim)
        await survivor.bury()
        claimed = await only(survivor, "b")
        assert [event.type for event in claimed.events] == ["turn.failed", "turn.started"]
        assert b"poisoned" in claimed.events[0].data
        assert claimed.lease is not None and (claimed.lease.turn, claimed.lease.attempt) == (4, 1)
        written(await work(survivor, claimed.lease, DONE, then="release"))
        assert isinstance(await speak(survivor, admission(session(), "again")), Write)

    async def test_giving_back_costs_no_attempt(self, world: LogWorld) -> None:
        """`core.claim`: only a death counts."""
        log = await joined(world, "a")
        lease = await begin(log, session(), owner="a")
        for epoch in range(2, 7):
            await work(log, lease, then="release")
            lease = await leased(log, "a")
            assert (lease.epoch, lease.attempt, lease.orphaned) == (epoch, 1, False)

    async def test_a_parked_turn_is_not_ready(self, world: LogWorld) -> None:
        """Log 6: only if it is ready: once somebody has decided, or the time to decide is over."""
        log = await joined(world, "a")
        await work(log, await begin(log, session(1), owner="a"), waiting(), then="release")
        lease = await begin(log, session(2), owner="a")
        found = await log.load(session(2))
        assert found is not None
        await work(log, lease, waiting(expires_at=found.updated_at + 200), then="release")
        assert list(await log.claim("a", limit=10)) == []
        await accept(log, session(1), Approval("c1", "approve"))
        assert (await only(log, "a")).session.id == session(1).id
        await world.pass_time(timedelta(milliseconds=250))
        claimed = await only(log, "a")
        assert [event.type for event in claimed.events] == ["turn.input", "turn.started"]
        assert claimed.session.id == session(2).id

    async def test_a_cancelled_orphan_ends_in_the_claim(self, world: LogWorld) -> None:
        """`Claimed`: the lease, if something is left to run."""
        one, other = await joined(world, "a"), await joined(world, "b")
        await begin(one, session(), owner="a")
        await accept(other, session(), Cancel())
        await world.kill(one)
        await other.bury()
        claimed = await only(other, "b")
        assert claimed.lease is None and [event.type for event in claimed.events] == ["turn.cancelled"]
        assert list(await other.claim("b", limit=10)) == []
        assert list(await other.holdings("b")) == []

    async def test_who_lost_the_lease_writes_nothing(self, world: LogWorld) -> None:
        """Log 4. P4: a replica that lost its lease cannot append to a turn or end it."""
        one, other = await joined(world, "a"), await joined(world, "b")
        old = await begin(one, session(), owner="a")
        await world.kill(one)
        await other.bury()
        lease = await leased(other, "b")
        before = await _story(other)
        for stale in (old, _lease_of(lease, owner="a", epoch=2), _lease_of(lease, owner="b", epoch=1)):
            assert await work(other, stale, note("from the grave")) == Fenced()
            assert await work(other, stale, DONE, then="take") == Fenced()
        assert await _story(other) == before
        assert isinstance(await work(other, lease, DONE), Write)

    async def test_owners_that_take_turns_leave_one_story(self, world: LogWorld) -> None:
        """P4: one writer. Each epoch's items are written between its claim and the next, whoever races."""
        logs = {name: await joined(world, name) for name in "abc"}
        await accept(logs["a"], session())
        told = await asyncio.gather(*(_tell(log, name, session().id) for name, log in logs.items()))
        events = await history(logs["a"], session())
        items = [bytes(event.data) for event in events if event.type == "item.done"]
        assert len(items) == sum(told) and sum(told) > 0
        story = [event.type for event in events[2:]]
        assert story == ["turn.started", "item.done"] * (len(story) // 2)

    async def test_last_attempts_are_rationed(self, world: LogWorld) -> None:
        """`claim`: of those whose turn is on its last attempt, at most `chances`; they stand in nobody's way (P5)."""
        logs = {name: await joined(world, name) for name in "abc"}
        doubtful = [session(number) for number in (1, 2, 3)]
        for ref in doubtful:
            await begin(logs["a"], ref, owner="a")
        for dead, heir in (("a", "b"), ("b", "c")):
            await world.kill(logs[dead])
            await logs[heir].bury()
            if heir == "b":
                assert len(await logs[heir].claim(heir, limit=10)) == 3
        await accept(logs["c"], session(4))
        assert [one.session.id for one in await logs["c"].claim("c", limit=10, chances=0)] == [session(4).id]
        assert len(await logs["c"].claim("c", limit=10, chances=1)) == 1
        assert len(await logs["c"].claim("c", limit=10, chances=2)) == 2

    async def test_a_damaged_session_does_not_stop_the_others(self, world: LogWorld) -> None:
        """P5: every accepted turn reaches exactly one end, whatever is wrong with another session."""
        log = await joined(world, "a")
        for number in (1, 2, 3):
            await accept(log, session(number))
            await world.pass_time(timedelta(milliseconds=5))
        await world.outdate(session(1))
        await world.damage(session(1), seq=2)
        log = await joined(world, "b")
        taken: list[str] = []

        async def both() -> bool:
            taken.extend(one.session.id for one in await log.claim("b", limit=1))
            return len(taken) == 2

        await eventually(both, description="the sessions that are whole are claimed")
        assert taken == [session(2).id, session(3).id]
        assert await world.seqs(session(1)) == [1, 2]


def _lease_of(lease: Lease, *, owner: str, epoch: int) -> Lease:
    """The lease as somebody else would have it."""
    return Lease(lease.tenant, lease.session, epoch, owner, lease.turn, lease.attempt)


async def _story(log: Warm) -> tuple[object, object]:
    """Everything that a fenced writer must not change."""
    return await log.load(session()), await history(log, session())


async def _claim_all(log: Warm, owner: str) -> list[Lease]:
    leases: list[Lease] = []
    while claimed := await log.claim(owner, limit=3):
        leases.extend(one.lease for one in claimed if one.lease is not None)
    return leases


async def _tell(log: Warm, name: str, told: str) -> int:
    """Claim, write one item, give back; how many items were written."""
    count = 0
    for _ in range(10):
        for claimed in await log.claim(name, limit=1):
            assert claimed.lease is not None
            item = ItemDone({"type": "dalsegno:step", "id": f"it_{name}{claimed.lease.epoch}", "name": told})
            count += isinstance(await work(log, claimed.lease, item, then="release"), Write)
    return count
