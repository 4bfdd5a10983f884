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
    """One turn's deltas on their way out. What is generated and recorded in one breath is never published at all.

    One task a turn, from its first piece to `leave`, so that a piece costs no task of its own.
    """

    def __init__(self, lease: Lease, *, hot: Hot, hub: Hub, on_lost: Callable[[], None]) -> None:
        self._ref = Ref(lease.tenant, lease.session)
        self._epoch = lease.epoch
        self._hot = hot
        self._hub = hub
        self._on_lost = on_lost
        self._waiting: list[Piece] = []
        self._shown = self._done = self._leaving = False
        """Something of the step is out; a step is on record that was; no more steps."""
        self._sending: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None
        self._next = 0.0

    def push(self, pieces: Sequence[Piece]) -> None:
        """Publish these when the loop next comes round, or when it is time for the next batch."""
        if pieces and not self._leaving:
            self._waiting.extend(pieces)
            self._wake()

    def hold(self) -> None:
        """The step is whole and about to be recorded: of one that nobody has been shown, nothing need go."""
        if not self._shown:
            self._waiting = []

    def close(self) -> None:
        """The step is whole, and soon on record: what is not out yet need not go. The hot tier forgets it with the next
        step, or the turn: until it is on record, whoever takes over goes on from there.
        """
        self._waiting = []
        if self._shown:
            self._shown, self._done = False, True

    def leave(self) -> None:
        """The turn is over here: nothing more goes out."""
        self._waiting, self._leaving = [], True
        if self._sending is not None:
            self._wake()

    def _wake(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send())
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting or self._done or not self._leaving:
            early = self._next - loop.time()
            if early > 0:
                await asyncio.sleep(early)
            try:
                if self._done:
                    self._done = False
                    await self._hot.clear(self._ref, self._epoch)
                if self._waiting:
                    self._next = loop.time() + PACE_SECONDS
                    await self._publish()
            except Unavailable:
                self._next = loop.time() + AGAIN_SECONDS
            except LeaseLost:
                self._on_lost()
            if not (self._waiting or self._done or self._leaving):
                self._idle = loop.create_future()
                await self._idle
        self._sending = None  # which holds, by its context, what a framework keeps of the turn

    async def _publish(self) -> None:
        pieces, self._waiting = self._waiting, []
        self._hub.live(self._ref, pieces, epoch=self._epoch)
        self._shown = True
        try:
            await self._hot.publish(self._ref, self._epoch, pieces)
        except Unavailable:
            # These go with what comes next, or by themselves: what the hot tier has of a step has no gaps.
            if not (self._done or self._leaving):
                self._waiting = [*pieces, *self._waiting] if len(pieces) < LATE_MAX else []
            raise
        self._hub.published(self._ref, pieces, epoch=self._epoch)
