"""Commits that take longer than a memory store's, in a test's own time."""

import asyncio
from collections.abc import Callable
from typing import Any

from dalsegno.core.append import Write
from dalsegno.errors import Unavailable

ROUNDS = 50
"""More rounds of the loop than an agent needs from one act to the next."""


class Held:
    """A commit that holds these bytes is written, and its answer comes when it is let go, or is `lost`; once."""

    def __init__(self, words: bytes) -> None:
        self.words = words
        self.written = asyncio.Event()
        self.answered = asyncio.Event()
        self.lost = False

    def before(self, commit: Callable[..., Any]) -> Callable[..., Any]:
        """The same, once held."""

        async def held(*given: Any, **named: Any) -> Any:
            decision = await commit(*given, **named)
            events = decision.events if isinstance(decision, Write) else ()
            if not self.written.is_set() and any(self.words in event.data for event in events):
                self.written.set()
                await self.answered.wait()
                if self.lost:
                    raise Unavailable("the answer was lost", outcome="unknown")
            return decision

        return held


def slow(commit: Callable[..., Any]) -> Callable[..., Any]:
    """The same, on a slow way there and back."""

    async def commit_slowly(*given: Any, **named: Any) -> Any:
        await rounds(ROUNDS)
        decision = await commit(*given, **named)
        await rounds(ROUNDS)
        return decision

    return commit_slowly


async def rounds(count: int) -> None:
    """Let the loop come round so often."""
    for _ in range(count):
        await asyncio.sleep(0)
