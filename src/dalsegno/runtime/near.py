"""What is kept near: things that this replica can work out again, put into the hot tier for whoever needs them next.

Nobody waits for a putting, and nobody for long for an answer. A hot tier that keeps nothing, or does not answer, is one
that has nothing (P10).
"""

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta

from dalsegno.errors import DalsegnoError
from dalsegno.ports import Cache, Ref

log = logging.getLogger("dalsegno.near")

PATIENCE_SECONDS = 0.1
"""The log is not far: who has waited so long reads on there."""
PUTS_MAX = 16
"""Puts under way; what would be one more is not put."""


class Near:
    """A replica's way to what is kept near."""

    def __init__(self, hot: object) -> None:
        self._cache = hot if isinstance(hot, Cache) else None
        self._putting: dict[tuple[Ref, str], asyncio.Task[None]] = {}

    @property
    def keeps(self) -> bool:
        """Whether the hot tier keeps anything at all."""
        return self._cache is not None

    async def get(self, ref: Ref, name: str) -> tuple[int, bytes] | None:
        """Version and content, if they are there soon."""
        if self._cache is None:
            return None
        with suppress(DalsegnoError, TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._cache.get(ref, name)
        return None

    def put(self, ref: Ref, name: str, version: int, content: bytes, *, keep: timedelta) -> None:
        """Have it kept, if nothing of that name is on its way already. Returns at once."""
        if self._cache is None or (ref, name) in self._putting or len(self._putting) >= PUTS_MAX:
            return
        work = self._put(self._cache, ref, name, version, content, keep)
        task = self._putting[ref, name] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda _: self._putting.pop((ref, name), None))

    async def forget(self, ref: Ref) -> None:
        """Have all that is kept of a session removed. Where that fails, it is gone when its time is over."""
        if self._cache is None:
            return
        try:
            await self._cache.forget(ref)
        except DalsegnoError as error:
            log.info("what is kept near of session %s will expire by itself: %s", ref.id, error)

    async def close(self) -> None:
        """What is not kept yet is not needed."""
        for task in (putting := list(self._putting.values())):
            task.cancel()
        await asyncio.gather(*putting, return_exceptions=True)

    async def _put(self, cache: Cache, ref: Ref, name: str, version: int, content: bytes, keep: timedelta) -> None:
        with suppress(DalsegnoError):
            await cache.put(ref, name, version, content, keep=keep)
