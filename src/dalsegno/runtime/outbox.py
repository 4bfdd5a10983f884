"""Drafts of a turn that wait for a commit, and for how long."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from dalsegno.core.append import Draft
from dalsegno.errors import LeaseLost

FLUSH_SECONDS, FLUSH_ROUNDS = 0.005, 4
"""A deferred draft waits so long, and then rounds of a busy loop: from an agent's last word to its turn's end."""

Append = Callable[[Sequence[Draft]], Awaitable[Any]]
"""Writes to the log what is in the box, and these behind it."""


class Outbox:
    """What leaves with the next commit, whoever makes it. True while there is something."""

    def __init__(self) -> None:
        self._drafts: list[Draft] = []
        self.begun = False
        """Some of it is not deferred: it is about to be written."""
        self._flushes: set[asyncio.Task[None]] = set()

    def __bool__(self) -> bool:
        return bool(self._drafts)

    def put(self, drafts: Sequence[Draft]) -> None:
        """Somebody writes it now."""
        self._drafts.extend(drafts)

    def defer(self, drafts: Sequence[Draft], append: Append) -> None:
        """Nobody need write it for a while."""
        self._drafts.extend(drafts)
        if drafts:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_soon, append, FLUSH_ROUNDS)

    async def send(self, drafts: Sequence[Draft], append: Append) -> None:
        """It is on its way when this returns."""
        self._drafts.extend(drafts)
        self.begun = True
        self._flush_soon(append, 0)
        await asyncio.sleep(0)

    def take(self) -> list[Draft]:
        """Everything: whoever takes it writes it, or gives it back."""
        drafts, self._drafts, self.begun = self._drafts, [], False
        return drafts

    def give_back(self, drafts: Sequence[Draft]) -> None:
        """It was not written, and comes before the rest."""
        self._drafts = [*drafts, *self._drafts]

    def _flush_soon(self, append: Append, rounds: int) -> None:
        if not self._drafts:
            return
        loop = asyncio.get_running_loop()
        if rounds:
            loop.call_soon(self._flush_soon, append, rounds - 1)
        else:
            flush = loop.create_task(_flush(append))
            self._flushes.add(flush)
            flush.add_done_callback(self._flushes.discard)


async def _flush(append: Append) -> None:
    with suppress(LeaseLost):
        await append(())
