"""Erasing: what belonged to a deleted session is removed, by the replica that was asked to delete it or by any other.

A deletion is a commit and then removals in the other tiers; a crash may come between any of them, and a tier may not
answer. The warm tier's own is the last: it names the session (`Warm.unerased`) until everything else is gone, too, so
whatever was left is found again. Each of it may be done twice, and by several replicas at once. What the hot tier keeps
of the session is removed with it, or expires.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from dalsegno.core.lifecycle import erase_again
from dalsegno.core.tier import folder
from dalsegno.errors import DalsegnoError, LeaseLost
from dalsegno.ports import Blobs, Hot, Ref, Warm
from dalsegno.runtime.near import Near
from dalsegno.runtime.patience import patiently

log = logging.getLogger("dalsegno.eraser")

FINISHED_AT_ONCE = 50


class Eraser:
    """Erases deleted sessions.

    A turn learns that its session was deleted when it is fenced off, and until then may put an artifact where all of
    them were gone already. So whoever is fenced off has a deleted session erased again, under a new epoch, so that an
    erasure that is under way does not count. Who is killed between that put and this commit cannot: for their sake a
    deleted session is erased once more later (`core.idle`).
    """

    def __init__(self, warm: Warm, blobs: Blobs, near: Near, hot: Hot) -> None:
        self._warm = warm
        self._hot = hot
        self._blobs = blobs
        self._near = near
        self._after: Ref | None = None

    async def erase(self, ref: Ref) -> None:
        """Erase the session, if it is deleted. What does not answer now postpones it: see `finish`."""
        try:
            session = await self._warm.load(ref)
            if session is not None and session.deleted:
                await self._erase(ref, session.epoch)
        except DalsegnoError as error:
            log.warning("the erasure of session %s is postponed: %s", ref.id, error)

    async def finish(self) -> None:
        """Erase some of the deleted sessions that are not erased yet, whoever began."""
        after, self._after = self._after, None
        for ref, epoch in (await self._warm.unerased(after=after, limit=FINISHED_AT_ONCE)).items():
            # If this fails, the next call begins behind it: nobody stands in another one's way.
            self._after = ref
            await self._erase(ref, epoch)
        self._after = None

    async def again(self, ref: Ref, *, closing: Callable[[], bool]) -> None:
        """A turn of the session was fenced off here. If that was by its deletion, erasing it begins anew."""
        with suppress(LeaseLost):
            await patiently(partial(self._warm.commit, ref, erase_again), closing=closing)

    async def _erase(self, ref: Ref, epoch: int) -> None:
        await self._near.forget(ref)
        await self._silence(ref, epoch)
        await self._blobs.delete(folder(ref.tenant, ref.id))
        await self._warm.erase(ref, epoch)

    async def _silence(self, ref: Ref, epoch: int) -> None:
        """What was shown of an open step goes, and nobody shows more. Where that fails, it expires."""
        try:
            await self._hot.fence(ref, epoch)
            await self._hot.clear(ref, epoch)
        except LeaseLost:
            return  # a later erasure was here
        except DalsegnoError as error:
            log.info("what was shown of session %s will expire by itself: %s", ref.id, error)
