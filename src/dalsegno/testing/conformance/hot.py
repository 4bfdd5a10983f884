"""The port `Hot`: open steps behind a fence, and hints. Sentence 5 (no call takes long) needs a wire to cut."""

import asyncio
from contextlib import suppress

import pytest

from dalsegno.core.json import JsonObject
from dalsegno.core.stream import Piece
from dalsegno.errors import LeaseLost
from dalsegno.ports import Batch, Hint, Hot, OpenStep
from dalsegno.testing.conformance.acts import eventually, publish, session
from dalsegno.testing.conformance.worlds import HotWorld

ITEM: JsonObject = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}


def pieces(text: str, *, base: int = 3) -> list[Piece]:
    """A step that opens one message and says `text`, a letter at a time."""
    said = [Piece(base, 1 + n, 2, "msg_1", field="text", offset=n, delta=letter) for n, letter in enumerate(text)]
    return [Piece(base, 0, 2, "msg_1", item=ITEM, step="model#1"), *said]


class HotCases:
    """A subclass supplies the fixture `world`: a `HotWorld`."""

    async def test_what_is_published_is_read_by_others(self, world: HotWorld) -> None:
        """`read`: the open step. Nothing was published, nothing is read."""
        one, other = await world.open(), await world.open()
        assert await other.read(session()) is None
        step = pieces("a\0𝄋é")
        await publish(one, session(), 1, step[:2])
        assert await other.read(session()) == OpenStep(3, 1, tuple(step[:2]))
        await publish(one, session(), 1, step[2:])
        assert await other.read(session()) == OpenStep(3, 1, tuple(step))
        assert await other.read(session(2)) is None
        assert await other.read(session(tenant="other")) is None

    async def test_a_reader_gets_what_it_lacks(self, world: HotWorld) -> None:
        """`read`: of the step with that `base` only the pieces that end after unit `after`."""
        hot, step = await world.open(), pieces("hello")
        await publish(hot, session(), 1, step)
        for after in range(6):
            assert await hot.read(session(), base=3, after=after) == OpenStep(3, 1, tuple(step[after:]))
        for after in (6, 7):
            rest = await hot.read(session(), base=3, after=after)
            assert rest is None or rest.pieces == ()
        assert await hot.read(session(), base=2, after=4) == OpenStep(3, 1, tuple(step))

    async def test_a_zombie_is_refused(self, world: HotWorld) -> None:
        """Hot 1: `publish` under an epoch lower than one that `fence` or `publish` has seen is refused. P4."""
        zombie, heir = await world.open(), await world.open()
        await publish(zombie, session(), 1, pieces("he"))
        await heir.fence(session(), 2)
        with pytest.raises(LeaseLost):
            await publish(zombie, session(), 1, pieces("hello")[3:])
        await publish(heir, session(), 2, pieces("good day", base=5))
        await publish(heir, session(2), 4, pieces("x"))
        for ref, epoch in ((session(), 1), (session(2), 3)):
            with pytest.raises(LeaseLost):
                await publish(zombie, ref, epoch, pieces("boo", base=9))
        assert await heir.read(session()) == OpenStep(5, 2, tuple(pieces("good day", base=5)))

    async def test_a_fence_is_never_lowered(self, world: HotWorld) -> None:
        """Hot 1: refused whatever an older epoch does: fence, publish or clear."""
        hot = await world.open()
        await hot.fence(session(), 5)
        await publish(hot, session(), 5, pieces("mine"))
        for _ in range(2):
            with suppress(LeaseLost):
                await hot.fence(session(), 4)
            with suppress(LeaseLost):
                await hot.clear(session(), 4)
            with pytest.raises(LeaseLost):
                await publish(hot, session(), 4, pieces("yours", base=9))
        assert await hot.read(session()) == OpenStep(3, 5, tuple(pieces("mine")))

    async def test_a_fence_shows_what_was_published(self, world: HotWorld) -> None:
        """`fence`: return what was published of the open step; asking again gives the same."""
        one, other = await world.open(), await world.open()
        assert await other.fence(session(), 1) is None
        await publish(one, session(), 1, pieces("hel"))
        for _ in range(2):
            shown = await other.fence(session(), 2)
            assert shown is not None and (shown.base, list(shown.pieces)) == (3, pieces("hel"))

    async def test_the_next_attempt_goes_on_where_the_last_one_stopped(self, world: HotWorld) -> None:
        """Hot 2: a contiguous beginning of one step, under the newest epoch (design §5: take-over in a generation)."""
        one, other = await world.open(), await world.open()
        step = pieces("hello")
        await publish(one, session(), 1, step[:3])
        await other.fence(session(), 2)
        await publish(other, session(), 2, step[3:4])
        await publish(other, session(), 2, step[4:])
        assert await one.read(session()) == OpenStep(3, 2, tuple(step))

    async def test_the_next_attempt_may_begin_anew(self, world: HotWorld) -> None:
        """Hot 2: one step, under the newest epoch: never a mixture of two attempts."""
        one, other = await world.open(), await world.open()
        await publish(one, session(), 1, pieces("hello"))
        await publish(other, session(), 2, pieces("good day")[:4])
        assert await one.read(session()) == OpenStep(3, 2, tuple(pieces("good day")[:4]))
        await publish(other, session(), 3, pieces("well")[4:])
        assert await one.read(session()) in (None, OpenStep(3, 3, ()))

    @pytest.mark.parametrize("lost", [0, 1, 3])
    async def test_what_follows_a_lost_piece_is_not_read(self, world: HotWorld, lost: int) -> None:
        """Hot 3: a piece that follows a lost one is not returned."""
        hot, step = await world.open(), pieces("hello")
        for piece in step[:lost] + step[lost + 1 :]:
            await publish(hot, session(), 1, [piece])
        found = await hot.read(session())
        assert (() if found is None else found.pieces) == tuple(step[:lost])
        assert found is None or lost > 0

    async def test_what_is_published_twice_is_read_once(self, world: HotWorld) -> None:
        """Hot 2: contiguous, also when a writer repeats what may not have arrived."""
        hot, step = await world.open(), pieces("hello")
        for start, end in ((0, 3), (0, 3), (2, 4), (4, 6), (0, 1)):
            await publish(hot, session(), 1, step[start:end])
        assert await hot.read(session()) == OpenStep(3, 1, tuple(step))

    async def test_a_new_step_replaces_the_one_before(self, world: HotWorld) -> None:
        """`publish`: pieces with a new `base` replace those of the step before."""
        hot = await world.open()
        await publish(hot, session(), 1, pieces("one"))
        await publish(hot, session(), 1, pieces("two", base=7)[:2])
        assert await hot.read(session()) == OpenStep(7, 1, tuple(pieces("two", base=7)[:2]))
        await publish(hot, session(), 1, pieces("one"))
        assert await hot.read(session(), base=3, after=2) == OpenStep(7, 1, tuple(pieces("two", base=7)[:2]))

    async def test_a_step_that_is_done_is_forgotten(self, world: HotWorld) -> None:
        """`clear`: the step is done: forget its pieces. The fence stays, and the next step is read."""
        hot = await world.open()
        await publish(hot, session(), 2, pieces("one"))
        await hot.clear(session(), 2)
        assert await hot.read(session()) is None
        with pytest.raises(LeaseLost):
            await publish(hot, session(), 1, pieces("boo"))
        assert await hot.fence(session(), 2) is None
        await publish(hot, session(), 2, pieces("two", base=7))
        assert await hot.read(session()) == OpenStep(7, 2, tuple(pieces("two", base=7)))
        await hot.clear(session(2), 1)

    async def test_what_nobody_touches_expires(self, world: HotWorld) -> None:
        """Hot 4: everything expires by itself."""
        hot = await world.open()
        await publish(hot, session(), 1, pieces("hello"))
        await world.pass_time(world.lifetime * 1.1)
        assert await hot.read(session()) is None
        await publish(hot, session(), 1, pieces("again"))
        assert await hot.read(session()) == OpenStep(3, 1, tuple(pieces("again")))

    async def test_each_of_what_is_published_together_fails_by_itself(self, world: HotWorld) -> None:
        """Hot 6: a stale epoch among them is refused, and named; the others' pieces are there. P4."""
        zombie, heir = await world.open(), await world.open()
        await heir.fence(session(2), 3)
        step = pieces("hello")
        failed = await zombie.publish([Batch(session(n), 1, step) for n in (1, 2, 3)])
        assert list(failed) == [session(2)]
        assert isinstance(failed[session(2)], LeaseLost)
        for n in (1, 3):
            assert await heir.read(session(n)) == OpenStep(base=3, epoch=1, pieces=tuple(step))
        assert await heir.read(session(2)) is None

    async def test_hints_reach_every_listener(self, world: HotWorld) -> None:
        """`tell`: send a hint to every replica, this one included. `listen`: until the context ends."""
        one, other = await world.open(), await world.open()
        hint = Hint("acme", session().id, head=17, units=240, ready=True)
        near: list[Hint] = []
        far: list[Hint] = []
        async with one.listen(near.append):
            async with other.listen(far.append):
                await _tell_until_heard(one, hint, near, far)
            await asyncio.sleep(0)
            far.clear()
            await _tell_until_heard(other, Hint("acme", session(2).id), near)
            assert set(near) == {hint, Hint("acme", session(2).id)}
        assert far == []


async def _tell_until_heard(hot: Hot, hint: Hint, *ears: list[Hint]) -> None:
    """Hints may be lost: a sender that wants to be heard says it again."""

    async def heard() -> bool:
        await hot.tell([hint])
        await asyncio.sleep(0)
        return all(hint in ear for ear in ears)

    await eventually(heard, description="the hint is heard")
