"""What readers of one session in this process share: its last events, and the open step, as they become known here.

Hints tell of what happens elsewhere and may be lost; a feed therefore looks at the log by itself from time to time. An
event is read and decoded once, however many follow it.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Literal

from dalsegno.core.event import Event
from dalsegno.core.move import present
from dalsegno.core.session import Session
from dalsegno.core.stream import Piece, closes, start_of
from dalsegno.errors import DalsegnoError, Unavailable
from dalsegno.ports import Hint, Hot, Log, Ref

RING_EVENTS = 512
READ_EVENTS = 500

Where = Literal["log", "step"]


class Feed:
    """What readers of one session in this process share: the last events, and the open step's pieces."""

    def __init__(self, ref: Ref, session: Session, log: Log, hot: Hot) -> None:
        self.ref = ref
        self.head = session.head
        self.busy = session.status == "running"
        """A step may be open, which only the hot tier knows of."""
        self.readers = 0
        self.failure: DalsegnoError | None = None
        self._log = log
        self._hot = hot
        self._ring: deque[Event] = deque(maxlen=RING_EVENTS)
        self._unseen = session.head
        """Events up to here were not seen by this feed; a step that began before is shown once that was looked up."""
        self._verified = -1
        self._epoch = session.epoch
        self._closed = 0
        self._base = -1
        self._pieces: list[Piece] = []
        self._shown = 0
        """The open step's units up to the last piece."""
        self._waiters: list[asyncio.Future[None]] = []
        self._looking: asyncio.Task[None] | None = None
        self._wanted: Where | None = None
        self.version = 0
        """Changes with everything that happens."""
        self.moved = False
        """Something has happened since the hub last swept."""

    def since(self, seq: int) -> Sequence[Event] | None:
        """The events after `seq` that are at hand, or None when they must be read from the log."""
        ring = self._ring
        if not ring or ring[0].seq > seq + 1:
            return None
        return [ring[index] for index in range(seq + 1 - ring[0].seq, len(ring))]

    def pieces(self, after: int) -> Sequence[Piece]:
        """The open step's pieces that end after unit `after`; none while the log is not known up to where it began."""
        if self._base > self.head or self._shown <= after:
            return ()
        first = len(self._pieces) - 1
        while first and self._pieces[first].at > after:  # from the end: a reader mostly lacks the last one
            first -= 1
        return self._pieces[first:]

    def knows(self, hint: Hint) -> bool:
        """Whether what the hint tells of is here already; `head` of a hint with units is the open step's base."""
        if hint.head > self.head:
            return False
        shown = self._shown if self._base == hint.head else 0
        return hint.units <= shown or hint.head < self._closed

    def add(self, events: Sequence[Event]) -> None:
        """Events that follow the head; others are passed over, a gap is left for the next refresh."""
        for event in events:
            if event.seq == self.head + 1 or event.type == "session.deleted":
                if event.seq != self.head + 1:
                    self._ring.clear()
                self.head = event.seq
                self._ring.append(event)
                if closes(event):
                    self._closed, self._base, self._pieces, self._shown = event.seq, -1, [], 0
                if event.type == "turn.started":
                    # what the dead attempt showed beyond what is carried on is not the open step's any more
                    start = start_of(event)
                    self._epoch = start.epoch
                    self._pieces = [piece for piece in self._pieces if piece.end <= start.carried]
                    self._shown = self._pieces[-1].end if self._pieces else 0
        self._wake()

    def show(self, pieces: Sequence[Piece], *, epoch: int) -> None:
        """Pieces of the open step, as they were published; those of a step that is over, or of a zombie, are not."""
        if epoch < self._epoch:
            return
        shown = self._shown
        for piece in pieces:
            if piece.base != self._base:
                unknown = piece.base < self._unseen and piece.base != self._verified
                if piece.at != 0 or unknown or piece.base < self._closed:
                    return
                self._base, self._pieces, self._shown = piece.base, [], 0
                shown = 0
            if piece.at == self._shown:
                self._pieces.append(piece)
                self._shown = piece.end
        if self._shown > shown:
            self._wake()

    def hear(self, hint: Hint) -> None:
        """Something may have happened. Pieces of a step that is known to be open are in the hint, or in the hot tier
        alone.
        """
        if self.knows(hint):
            return
        words = hint.units > 0 and hint.head <= self.head and self.busy and self.failure is None
        if words and hint.epoch == self._epoch:
            self.show(hint.pieces, epoch=hint.epoch)
            if self.knows(hint):
                return
        self.refresh("step" if words else "log")

    def check(self, head: int | None) -> None:
        """The log had so many events when it was last asked; None: it did not say."""
        if head is None or head > self.head or self.failure is not None:
            self.refresh()
        elif self.busy:
            self.refresh("step")

    def refresh(self, where: Where = "log") -> None:
        """Look at the log and the open step, or at the step alone, soon: one look at a time, and one more if asked
        meanwhile.
        """
        if self._wanted != "log":
            self._wanted = where
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())

    def change(self) -> "asyncio.Future[None]":
        """Is done when `version` next changes."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def close(self) -> None:
        """Nobody reads any more."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None  # which holds this feed, until a collection

    async def _look(self) -> None:
        try:
            while self._wanted is not None:
                where, self._wanted = self._wanted, None
                if where == "log":
                    await self._look_at_log()
                if self.busy:
                    await self._look_at_open_step(where)
        except DalsegnoError as error:
            self._wanted = None
            self.failure = error
            self._wake()

    async def _look_at_log(self) -> None:
        while events := await self._log.read(self.ref, after=self.head, limit=READ_EVENTS):
            self.add(events)
        session = await self._log.load(self.ref)
        self.busy = session is not None and present(session).status == "running"
        self.failure = None

    async def _look_at_open_step(self, where: Where) -> None:
        try:
            found = await self._hot.read(self.ref, base=max(self._base, 0), after=self._shown)
        except Unavailable:
            return
        if found is None or found.base > self.head:
            return
        if found.epoch > self._epoch and where == "step":
            # Another attempt: the log says what it carries on of what is shown here, and its hint may be lost.
            self._wanted = "log"
            return
        if found.base != self._base:
            between = await self._between(found.base)
            erased = found.base < self.head and (not between or between[0].seq != found.base + 1)
            if erased or any(closes(event) for event in between):
                return
            self._verified = found.base
        self.show(found.pieces, epoch=found.epoch)

    async def _between(self, base: int) -> Sequence[Event]:
        at_hand = self.since(base)
        return at_hand if at_hand is not None else await self._log.read(self.ref, after=base, limit=READ_EVENTS)

    def _wake(self) -> None:
        self.version += 1
        self.moved = True
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
