"""Being seen to live: a program outside of the fleet joins it when it takes a job, so that others can tell if it died.

It takes no turns, and its name stands behind those of all replicas, so nothing of a replica's work falls to it.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from itertools import count
from secrets import token_hex

from dalsegno.errors import DalsegnoError
from dalsegno.ports import Member, Warm
from dalsegno.runtime.patience import patiently

TTL = timedelta(seconds=5)
LAST_WORDS_SECONDS = 2.0


class Presence:
    """One process's, as owner of any number of jobs."""

    def __init__(self, warm: Warm) -> None:
        self._warm = warm
        self._name = f"outside-{token_hex(8)}"
        self._joined = False
        self._lock = asyncio.Lock()
        self._numbers = count(1)
        self._held: set[str] = set()
        self._leaving: dict[str, asyncio.Task[None]] = {}

    async def take(self) -> str:
        """A name to own a job by, that no other owner ever had; others see it alive until `drop`, or until we die."""
        async with self._lock:
            if not self._joined:
                await self._warm.join(Member(self._name, f"outside-{os.getpid()}", os.getpid()), ttl=TTL)
                self._joined = True
        owner = f"{self._name}/{next(self._numbers)}"
        self._held.add(owner)
        return owner

    def drop(self, owner: str) -> None:
        """That owner is no more."""
        self._held.discard(owner)

    def linger(self, owner: str, last_words: Callable[[], Awaitable[None]]) -> None:
        """The log is silent: the owner is no more once its last words are written or refused, or when we leave."""
        self._leaving[owner] = asyncio.get_running_loop().create_task(self._see_off(owner, last_words))

    async def alive(self, owner: str) -> bool:
        """Whether that owner may still write."""
        process, _, _ = owner.partition("/")
        if process == self._name:
            if owner in self._leaving:
                await asyncio.wait((self._leaving[owner],), timeout=LAST_WORDS_SECONDS)
            return owner in self._held
        await self._warm.bury()
        return any(member.incarnation == process for member in await self._warm.members())

    async def leave(self) -> None:
        """Stop being seen, after a moment for last words."""
        leaving = list(self._leaving.values())
        if leaving:
            _, late = await asyncio.wait(leaving, timeout=LAST_WORDS_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._joined:
            await self._warm.leave()

    async def _see_off(self, owner: str, last_words: Callable[[], Awaitable[None]]) -> None:
        try:
            with suppress(DalsegnoError):
                await patiently(last_words, closing=lambda: False)
        finally:
            self.drop(owner)
            del self._leaving[owner]
