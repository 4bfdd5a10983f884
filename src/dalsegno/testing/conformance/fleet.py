"""The port `Fleet`: who is alive, who is not, and when that is noticed."""

import time

import pytest

from dalsegno.ports import Fleet, Member
from dalsegno.testing.conformance.acts import accept, begin, joined, leased, session
from dalsegno.testing.conformance.worlds import FleetWorld


class FleetCases:
    """A subclass supplies the fixture `world`: a `FleetWorld`."""

    async def test_members_are_seen_as_they_joined(self, world: FleetWorld) -> None:
        """Fleet 1: between `join` and `leave` the member counts as alive."""
        one, other = await world.open(), await world.open()
        member = Member("a", "replica-1", pid=17, url="http://10.0.0.1:8000")
        assert list(await other.members()) == []
        await one.join(member, ttl=world.ttl)
        assert list(await other.members()) == list(await one.members()) == [member]
        await one.leave()
        assert list(await other.members()) == list(await one.members()) == []
        assert list(await other.bury()) == [], "who left in order did not die"

    async def test_a_member_lives_as_long_as_it_beats(self, world: FleetWorld) -> None:
        """Fleet 1: as long as its process lives and beats in time."""
        await joined(world, "a")
        other = await joined(world, "b")
        await world.pass_time(world.ttl * 2)
        assert await _living(other) == ["a", "b"]
        assert list(await other.bury()) == []

    async def test_a_busy_loop_loses_no_beat(self, world: FleetWorld) -> None:
        """Fleet 2: the beat comes from a thread of its own: a busy event loop does not lose it."""
        if not world.own_thread:
            pytest.skip("this store has no thread of its own, and says so")
        await joined(world, "a")
        other = await world.open()
        time.sleep(world.ttl.total_seconds() * 1.5)  # noqa: ASYNC251 - the loop is to be busy
        assert await _living(other) == ["a"]
        assert list(await other.bury()) == []

    async def test_who_misses_its_time_is_dead_until_it_beats_again(self, world: FleetWorld) -> None:
        """Fleet 3: a member that misses its time to live counts as dead until it beats again."""
        one, other = await joined(world, "a"), await joined(world, "b")
        await world.pause(one)
        await world.pass_time(world.ttl * 1.5)
        assert await _living(other) == ["b"]
        assert list(await other.bury()) == ["a"]
        assert await _living(other) == ["b"]
        await world.resume(one)
        await world.pass_time(world.ttl / 2)
        assert await _living(other) == ["a", "b"]
        assert list(await other.bury()) == []

    async def test_the_sessions_of_who_misses_its_time_can_be_claimed(self, world: FleetWorld) -> None:
        """Fleet 3, and Log 6: only if its owner is gone. Nobody needs to bury it first."""
        one, other = await joined(world, "a"), await joined(world, "b")
        await begin(one, session(1), owner="a")
        await begin(one, session(2), owner="a")
        await world.pause(one)
        await world.pass_time(world.ttl / 2)
        assert list(await other.claim("b", limit=10)) == [], "a beat that is not overdue was missed"
        await world.pass_time(world.ttl)
        (taken,) = await other.claim("b", limit=1)
        await world.resume(one)
        await world.pass_time(world.ttl / 2)
        assert list(await other.claim("b", limit=10)) == [], "it beats again: what was not taken is still its own"
        assert [ref.id for ref in await one.holdings("a")] == list({session(1).id, session(2).id} - {taken.session.id})

    async def test_who_is_not_alive_claims_nothing(self, world: FleetWorld) -> None:
        """Log 6: a claimant that is not alive itself gets nothing, be it late, gone, or somebody who never joined."""
        late, gone, log = await joined(world, "a"), await joined(world, "b"), await joined(world, "c")
        await accept(log, session())
        await world.pause(late)
        await gone.leave()
        await world.pass_time(world.ttl * 1.5)
        assert list(await late.claim("a", limit=10)) == []
        assert list(await gone.claim("b", limit=10)) == []
        assert list(await log.claim("a stranger", limit=10)) == []
        assert (await leased(log, "c")).attempt == 1

    async def test_an_outage_is_nobodys_death(self, world: FleetWorld) -> None:
        """Log 6: after an outage nobody takes the turns of the living, though everybody's time to live is over."""
        logs = {name: await joined(world, name) for name in "abc"}
        await begin(logs["a"], session(), owner="a")
        for log in logs.values():
            await world.pause(log)
        await world.pass_time(world.ttl * 1.5)
        for name, log in (*logs.items(), *logs.items()):
            assert list(await log.claim(name, limit=10)) == [], f"{name} has not beaten yet"
        await world.resume(logs["a"])
        await world.pass_time(world.ttl / 2)
        await world.resume(logs["b"])
        await world.pass_time(world.ttl / 2)
        assert list(await logs["b"].claim("b", limit=10)) == []
        assert [ref.id for ref in await logs["a"].holdings("a")] == [session().id]

    async def test_death_is_noticed_at_once(self, world: FleetWorld) -> None:
        """Fleet 4: where the operating system tells, `bury` notices a dead process at once."""
        one, other = await joined(world, "a"), await joined(world, "b")
        await begin(one, session(), owner="a")
        await world.kill(one)
        assert list(await other.bury()) == ["a"]
        assert await _living(other) == ["b"]
        assert list(await other.bury()) == []
        assert (await leased(other, "b")).orphaned

    async def test_who_leaves_lets_go(self, world: FleetWorld) -> None:
        """Fleet 1: after `leave` it is not alive, and what it still owned is anybody's."""
        one, other = await joined(world, "a"), await joined(world, "b")
        await begin(one, session(), owner="a")
        await one.leave()
        assert (await leased(other, "b")).epoch == 2

    async def test_a_restarted_replica_is_another_member(self, world: FleetWorld) -> None:
        """`Member`: `id` is stable, `incarnation` differs each time the process starts."""
        one, other = await world.open(), await world.open()
        await one.join(Member("a", "replica-1"), ttl=world.ttl)
        await begin(one, session(), owner="a")
        await world.kill(one)
        again = await world.open()
        await again.join(Member("a2", "replica-1"), ttl=world.ttl)
        assert list(await other.bury()) == ["a"]
        assert await _living(other) == ["a2"]
        assert (await leased(again, "a2")).attempt == 2

    async def test_who_never_joined_owns_nothing_for_long(self, world: FleetWorld) -> None:
        """Fleet 1: alive is who joined; a name that nobody knows is nobody alive."""
        log = await joined(world, "a")
        await accept(log, session(), taker="a stranger")
        assert (await leased(log, "a")).orphaned


async def _living(fleet: Fleet) -> list[str]:
    return sorted(member.incarnation for member in await fleet.members())
