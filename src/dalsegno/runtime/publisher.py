"""Publishes the open step's pieces: to readers in this process at once, to the hot tier in batches, under the epoch.

Losing pieces costs latency only (P10); being refused means that the session has another owner (P4).
"""

import asyncio
from collections.abc import Callable, Sequence

from dalsegno.core.lease import Lease
from dalsegno.core.stream import Piece
from dalsegno.errors import LeaseLost, Unavailable
from dalsegno.ports import Hot, Ref
from dalsegno.runtime.hub import Hub

PACE_SECONDS = 0.002
"""Between two batches: a model that says everything at once would otherwise cost one for each word."""
AGAIN_SECONDS = 0.25
LATE_MAX = 1000
"""Pieces that wait for the hot tier to come back; if it stays away, readers elsewhere wait for the item as a whole."""


class Publisher:
    """One turn's deltas on their way out. What is generated and recorded in one breath is never published at all."""

    def __init__(self, lease: Lease, *, hot: Hot, hub: Hub, on_lost: Callable[[], None]) -> None:
        self._ref = Ref(lease.tenant, lease.session)
        self._epoch = lease.epoch
        self._hot = hot
        self._hub = hub
        self._on_lost = on_lost
        self._waiting: list[Piece] = []
        self._scheduled = False
        self._sending: asyncio.Task[None] | None = None
        self._clearing: asyncio.Task[None] | None = None
        self._sent = False
        self._next = 0.0

    def push(self, pieces: Sequence[Piece]) -> None:
        """Publish these when the loop next comes round, or when it is time for the next batch."""
        self._waiting.extend(pieces)
        self._look_soon()

    def hold(self) -> None:
        """The step is whole and about to be recorded: of one that nobody has been shown, nothing need go."""
        if not self._sent:
            self._waiting = []

    def close(self) -> None:
        """The step is on record: what is not out yet need not go, what the hot tier has may. Nobody waits for that."""
        self._waiting = []
        if self._sent:
            self._sent = False
            self._clearing = asyncio.get_running_loop().create_task(self._clear())

    async def _clear(self) -> None:
        try:
            await self._hot.clear(self._ref, self._epoch)
        except Unavailable:
            return
        except LeaseLost:
            self._on_lost()

    def _look_soon(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        early = self._next - loop.time()
        if early > 0 and self._waiting:
            loop.call_later(early, self._look)
            return
        self._scheduled = False
        if self._waiting and (self._sending is None or self._sending.done()):
            self._next = loop.time() + PACE_SECONDS
            self._sending = loop.create_task(self._send())

    async def _send(self) -> None:
        if self._clearing is not None:
            await self._clearing
            self._clearing = None
        pieces, self._waiting = self._waiting, []
        if not pieces:
            return
        self._hub.live(self._ref, pieces, epoch=self._epoch)
        self._sent = True
        try:
            await self._hot.publish(self._ref, self._epoch, pieces)
        except Unavailable:
            # These go with what comes next, or by themselves: what the hot tier has of a step has no gaps.
            self._waiting = [*pieces, *self._waiting] if len(pieces) < LATE_MAX else []
            self._next = asyncio.get_running_loop().time() + AGAIN_SECONDS
            self._look_soon()
        except LeaseLost:
            self._on_lost()
        else:
            self._hub.published(self._ref, pieces, epoch=self._epoch)
            self._look_soon()
