"""The suite can fail: hot and cold tiers that are wrong on purpose, each with the case that must catch it."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from dalsegno.core.stream import Piece
from dalsegno.errors import DalsegnoError, LeaseLost
from dalsegno.ports import Batch, Hint, OpenStep, Ref
from dalsegno.stores.memory import MemoryBlobs, MemoryHot
from dalsegno.testing.conformance import BlobsCases, CacheCases, HotCases, acts
from dalsegno.testing.conformance.memory import MemoryBlobsWorld, MemoryHotWorld

# ---------------------------------------------------------------------------- wrong hot tiers


class AcceptsZombies(MemoryHot):
    """Does not look at epochs."""

    def add(self, ref: Ref, epoch: int, pieces: Sequence[Piece]):
        step = self.cache.find(ref)
        super().add(ref, max(epoch, step.epoch if step else 0), pieces)


class LowersTheFence(MemoryHot):
    """Whoever fences last is right."""

    async def fence(self, ref: Ref, epoch: int):
        step = self.cache.find(ref)
        if step is not None:
            step.epoch = epoch
        return await super().fence(ref, epoch)


class ReturnsGaps(MemoryHot):
    """Keeps pieces as they come."""

    def add(self, ref: Ref, epoch: int, pieces: Sequence[Piece]):
        step = self.cache.touch(ref, epoch)
        step.epoch = step.author = epoch
        for piece in pieces:
            step.end = piece.at
            step.add(piece)


class MixesAttempts(MemoryHot):
    """Puts one attempt's pieces behind another's."""

    def add(self, ref: Ref, epoch: int, pieces: Sequence[Piece]):
        step = self.cache.touch(ref, epoch)
        step.author = step.epoch = epoch
        super().add(ref, epoch, pieces)


class ForgetsAtTheFence(MemoryHot):
    """The next attempt does not learn what was shown."""

    async def fence(self, ref: Ref, epoch: int):
        shown = await super().fence(ref, epoch)
        self.cache.steps[ref].forget(base=0)
        return shown and None


class KeepsTheStepBefore(MemoryHot):
    """A new step waits until the old one is cleared."""

    def add(self, ref: Ref, epoch: int, pieces: Sequence[Piece]):
        step = self.cache.find(ref)
        if step is None or not step.pieces or all(piece.base == step.base for piece in pieces):
            super().add(ref, epoch, pieces)


class FailsTogether(MemoryHot):
    """One that is refused is the end of the batch."""

    async def publish(self, batches: Sequence[Batch]):
        for ref, epoch, pieces in batches:
            self.add(ref, epoch, pieces)
        return {}


class NamesNobody(MemoryHot):
    """Refuses, and does not say whom."""

    async def publish(self, batches: Sequence[Batch]):
        await super().publish(batches)
        return {}


class NeverForgets(MemoryHot):
    """A step that is done stays."""

    async def clear(self, ref: Ref, epoch: int):
        return


class ClearsTheFence(MemoryHot):
    """Forgets the fence with the pieces."""

    async def clear(self, ref: Ref, epoch: int):
        self.cache.steps.pop(ref, None)


class KeepsForever(MemoryHot):
    """Keeps what nobody touches."""

    async def read(self, ref: Ref, *, base: int = 0, after: int = 0) -> OpenStep | None:
        for step in self.cache.steps.values():
            step.expires = float("inf")
        return await super().read(ref, base=base, after=after)


class IgnoresAfter(MemoryHot):
    """Gives everything to everybody."""

    async def read(self, ref: Ref, *, base: int = 0, after: int = 0) -> OpenStep | None:
        return await super().read(ref)


class TellsItselfOnly(MemoryHot):
    """Hints stay where they were said."""

    async def tell(self, hints: Sequence[Hint]):
        for heard in list(self.cache.listeners.values())[:1]:
            for hint in hints:
                heard(hint)


class LastPutWins(MemoryHot):
    """Does not look at versions."""

    async def put(self, ref: Ref, name: str, version: int, content: bytes, *, keep: timedelta):
        self.cache.entries._drop((ref, name))
        await super().put(ref, name, version, content, keep=keep)


class LooksThenPuts(MemoryHot):
    """Compares versions, and puts later."""

    async def put(self, ref: Ref, name: str, version: int, content: bytes, *, keep: timedelta):
        known = self.cache.entries.find(ref, name)
        await asyncio.sleep(0)
        if known is None or known.version <= version:
            self.cache.entries._drop((ref, name))
            self.cache.entries.put(ref, name, version, content, keep=keep)


class CutsOff(MemoryHot):
    """Keeps the beginning of what is large."""

    async def put(self, ref: Ref, name: str, version: int, content: bytes, *, keep: timedelta):
        await super().put(ref, name, version, content[:100_000], keep=keep)


class OneNameASession(MemoryHot):
    """Knows a session by what was put last."""

    async def put(self, ref: Ref, name: str, version: int, content: bytes, *, keep: timedelta):
        await super().put(ref, "", version, content, keep=keep)

    async def get(self, ref: Ref, name: str):
        return await super().get(ref, "")


class OneTimeForAll(MemoryHot):
    """A neighbour that is kept for long keeps everything."""

    async def put(self, ref: Ref, name: str, version: int, content: bytes, *, keep: timedelta):
        await super().put(ref, name, version, content, keep=timedelta(days=1))


class ForgetsForNow(MemoryHot):
    """What is on its way when a session is forgotten arrives all the same."""

    async def forget(self, ref: Ref):
        await super().forget(ref)
        self.cache.entries._forgotten.clear()


class ForgetsNothing(MemoryHot):
    """Waits for things to expire."""

    async def forget(self, ref: Ref):
        return


class TakesItsTime(MemoryHot):
    """Comes back when it is done."""

    async def get(self, ref: Ref, name: str):
        await asyncio.sleep(0.6)
        return await super().get(ref, name)


# ---------------------------------------------------------------------------- wrong cold tiers


class BelievesNames(MemoryBlobs):
    """Does not compare bytes with their name."""

    async def get(self, name: str):
        await asyncio.sleep(0)
        return self._objects.get(name)


class WritesHalves(MemoryBlobs):
    """Writes in two pieces, where others can see it; and reads without looking."""

    async def put(self, name: str, content: bytes):
        self._objects[name] = content[: len(content) // 2]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._objects[name] = content


class DeletesByFolder(MemoryBlobs):
    """Matches a prefix as a pattern."""

    async def delete(self, prefix: str):
        for name in list(self._objects):
            if name.startswith(prefix.rstrip("/_")):
                del self._objects[name]


class NeverDeletes(MemoryBlobs):
    """Keeps everything, in case."""

    async def delete(self, prefix: str):
        return


# ---------------------------------------------------------------------------- the tests

WRONG: dict[type, Callable[..., Any]] = {
    AcceptsZombies: HotCases.test_a_zombie_is_refused,
    LowersTheFence: HotCases.test_a_fence_is_never_lowered,
    ReturnsGaps: partial(HotCases.test_what_follows_a_lost_piece_is_not_read, lost=1),
    MixesAttempts: HotCases.test_the_next_attempt_may_begin_anew,
    ForgetsAtTheFence: HotCases.test_a_fence_shows_what_was_published,
    KeepsTheStepBefore: HotCases.test_a_new_step_replaces_the_one_before,
    FailsTogether: HotCases.test_each_of_what_is_published_together_fails_by_itself,
    NamesNobody: HotCases.test_each_of_what_is_published_together_fails_by_itself,
    NeverForgets: HotCases.test_a_step_that_is_done_is_forgotten,
    ClearsTheFence: HotCases.test_a_step_that_is_done_is_forgotten,
    KeepsForever: HotCases.test_what_nobody_touches_expires,
    IgnoresAfter: HotCases.test_a_reader_gets_what_it_lacks,
    TellsItselfOnly: HotCases.test_hints_reach_every_listener,
    LastPutWins: CacheCases.test_a_lower_version_never_wins,
    LooksThenPuts: CacheCases.test_the_highest_version_wins_a_race,
    CutsOff: partial(CacheCases.test_what_is_put_is_found_by_others, content=bytes(200_000)),
    OneNameASession: CacheCases.test_names_and_sessions_are_their_own,
    OneTimeForAll: CacheCases.test_everything_expires,
    ForgetsForNow: CacheCases.test_what_is_forgotten_does_not_come_back,
    ForgetsNothing: CacheCases.test_what_is_forgotten_does_not_come_back,
    TakesItsTime: CacheCases.test_no_call_takes_long,
    BelievesNames: partial(BlobsCases.test_damage_is_an_error, content=b"x"),
    WritesHalves: BlobsCases.test_an_object_is_never_seen_half_written,
    DeletesByFolder: BlobsCases.test_a_prefix_is_deleted_and_nothing_else,
    NeverDeletes: BlobsCases.test_a_prefix_is_deleted_and_nothing_else,
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
async def test_the_suite_catches(wrong: type, monkeypatch: pytest.MonkeyPatch):
    """Whoever breaks a promise fails the case that quotes it."""
    monkeypatch.setattr(acts, "EVENTUALLY_SECONDS", 0.3)
    if issubclass(wrong, MemoryHot):
        world: object = MemoryHotWorld(handle=wrong)
    else:
        assert issubclass(wrong, MemoryBlobs)
        world = MemoryBlobsWorld(handle=wrong)
    with pytest.raises((AssertionError, pytest.fail.Exception, DalsegnoError, LeaseLost)):
        await WRONG[wrong](None, world=world)
