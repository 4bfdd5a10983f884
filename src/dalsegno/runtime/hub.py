"""One process's ear: what happened to which session, from here or from another replica. Holds nothing that matters.

Hints arrive from the hot tier and may be lost; a feed therefore looks at the log by itself from time to time. A feed is
shared by all readers of a session in this process, so that an event is read and decoded once, however many follow it.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Literal

from dalsegno.core.event import Event
from dalsegno.core.move import present
from dalsegno.core.session import Session
from dalsegno.core.stream import Piece, closes, start_of
from dalsegno.errors import DalsegnoError, Unavailable
from dalsegno.ports import Hint, Hot, Log, Ref

RING_EVENTS = 512
READ_EVENTS = 500
POST_SECONDS = 0.002

Where = Literal["log", "step"]


class Feed:
    """What readers of one session in this process share: the last events, and the open step's pieces."""

    def __init__(self, ref: Ref, session: Session, log: Log, hot: Hot) -> None:
        self.ref = ref
        self.head = session.head
        self.busy = bool(session.open)
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
        if self._base > self.head:
            return ()
        return self._pieces[bisect_right(self._pieces, after, key=attrgetter("end")) :]

    def knows(self, hint: Hint) -> bool:
        """Whether what the hint tells of is here already; `head` of a hint with units is the open step's base."""
        if hint.head > self.head:
            return False
        shown = self._pieces[-1].end if self._pieces and self._base == hint.head else 0
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
                    self._closed, self._base, self._pieces = event.seq, -1, []
                if event.type == "turn.started":
                    # what the dead attempt showed beyond what is carried on is not the open step's any more
                    start = start_of(event)
                    self._epoch = start.epoch
                    self._pieces = [piece for piece in self._pieces if piece.end <= start.carried]
        self._wake()

    def show(self, pieces: Sequence[Piece], *, epoch: int) -> None:
        """Pieces of the open step, as they were published; those of a step that is over, or of a zombie, are not."""
        if epoch < self._epoch:
            return
        for piece in pieces:
            if piece.base != self._base:
                unknown = piece.base < self._unseen and piece.base != self._verified
                if piece.at != 0 or unknown or piece.base < self._closed:
                    return
                self._base, self._pieces = piece.base, []
            if piece.at == (self._pieces[-1].end if self._pieces else 0):
                self._pieces.append(piece)
        self._wake()

    def hear(self, hint: Hint) -> None:
        """Something may have happened. Pieces of a step that is known to be open are in the hot tier alone."""
        if not self.knows(hint):
            words = hint.units and hint.head <= self.head and self.busy and self.failure is None
            self.refresh("step" if words else "log")

    def refresh(self, where: Where = "log") -> None:
        """Look at the log and the open step, or at the step alone, soon: one look at a time, and one more if asked
        meanwhile.
        """
        if self._wanted != "log":
            self._wanted = where
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def changed(self, seen: int) -> None:
        """Return when something has happened since `version` was `seen`."""
        if self.version == seen:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def close(self) -> None:
        """Nobody reads any more."""
        if self._looking is not None:
            self._looking.cancel()

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
        self.busy = session is not None and bool(present(session).open)
        self.failure = None

    async def _look_at_open_step(self, where: Where) -> None:
        known = self._pieces[-1].end if self._pieces else 0
        try:
            found = await self._hot.read(self.ref, base=max(self._base, 0), after=known)
        except Unavailable:
            return
        if found is None or found.base > self.head:
            return
        if found.epoch > self._epoch and where == "step":
            # Another attempt: the log says what it carries on of what is shown here, and its hint may be lost.
            self._wanted = "log"
            return
        if found.base != self._base:
            if any(closes(event) for event in await self._between(found.base)):
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


class Hub:
    """Who wants to know what: readers by feed, running turns by `watch`, the replica by `on_ready`."""

    def __init__(self, log: Log, hot: Hot) -> None:
        self._log = log
        self._hot = hot
        self._feeds: dict[Ref, Feed] = {}
        self._watchers: dict[Ref, Callable[[int | None], None]] = {}
        self._sweeps = 0
        self._outbox: dict[Ref, Hint] = {}
        self._posting: asyncio.Event = asyncio.Event()
        self.on_ready: Callable[[], None] = _nothing

    async def run(self) -> None:
        """Listen and post hints until cancelled. Hints of one session within `POST_SECONDS` of each other are one."""
        async with self._hot.listen(self._hear):
            while True:
                await self._posting.wait()
                self._posting.clear()
                outbox, self._outbox = self._outbox, {}
                with suppress(Unavailable):
                    await self._hot.tell(list(outbox.values()))
                await asyncio.sleep(POST_SECONDS)

    def announce(self, ref: Ref, session: Session, events: Sequence[Event]) -> None:
        """Events that this process committed."""
        feed = self._feeds.get(ref)
        if feed is not None:
            feed.busy = bool(session.open)
            feed.add(events)
            if feed.head < session.head:
                feed.refresh()
        poke = self._watchers.get(ref)
        if poke is not None:
            poke(session.head)
        ready = session.owner is None and session.ready_at == 0
        self._post(ref, Hint(ref.tenant, ref.id, session.head, ready=ready))
        if ready:
            self.on_ready()

    def live(self, ref: Ref, pieces: Sequence[Piece], *, epoch: int) -> None:
        """Pieces of an open step that this process generates under `epoch`."""
        feed = self._feeds.get(ref)
        if feed is not None:
            feed.show(pieces, epoch=epoch)

    def published(self, ref: Ref, base: int, units: int) -> None:
        """The hot tier has the open step up to here: others may look."""
        self._post(ref, Hint(ref.tenant, ref.id, base, units))

    def watch(self, ref: Ref, poke: Callable[[int | None], None]) -> None:
        """Call `poke` with the log's head, as far as known, when something may have been said to the running turn."""
        self._watchers[ref] = poke

    def unwatch(self, ref: Ref, poke: Callable[[int | None], None]) -> None:
        """That turn is over here; another one of the session may be watching by now."""
        if self._watchers.get(ref) == poke:
            del self._watchers[ref]

    def attach(self, ref: Ref, session: Session) -> Feed:
        """The session's feed, for one more reader; every `attach` is paired with a `detach`."""
        feed = self._feeds.get(ref)
        if feed is None:
            feed = self._feeds[ref] = Feed(ref, session, self._log, self._hot)
            feed.refresh()
        feed.readers += 1
        return feed

    def detach(self, feed: Feed) -> None:
        """One reader less; the last one takes the feed with it."""
        feed.readers -= 1
        if feed.readers == 0:
            feed.close()
            self._feeds.pop(feed.ref, None)

    def sweep(self) -> None:
        """The poll behind the hints: running turns look, feeds that should move and do not, every fifth time all."""
        self._sweeps += 1
        for feed in self._feeds.values():
            if self._sweeps % 5 == 0 or (feed.busy and not feed.moved):
                feed.refresh()
            feed.moved = False
        for poke in list(self._watchers.values()):
            poke(None)

    def _post(self, ref: Ref, hint: Hint) -> None:
        before = self._outbox.get(ref)
        if before is not None:
            ready = before.ready or hint.ready
            later = hint if hint.head >= before.head else before
            hint = Hint(hint.tenant, hint.session, later.head, later.units, ready)
        self._outbox[ref] = hint
        self._posting.set()

    def _hear(self, hint: Hint) -> None:
        ref = Ref(hint.tenant, hint.session)
        feed = self._feeds.get(ref)
        if feed is not None:
            feed.hear(hint)
        poke = self._watchers.get(ref)
        if poke is not None:
            poke(hint.head)
        if hint.ready:
            self.on_ready()


def _nothing() -> None:
    return None
