"""One process's ear: what happened to which session, from here or from another replica. Holds nothing that matters.

Hints arrive from the hot tier and may be lost. A word or two of an open step travel in the hint itself, once the hot
tier has accepted them: its readers elsewhere need not ask for each.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from dalsegno.core.event import Event
from dalsegno.core.session import Session, replace
from dalsegno.core.stream import Piece
from dalsegno.errors import DalsegnoError, Unavailable
from dalsegno.ports import Hint, Hot, Log, Ref
from dalsegno.runtime.feed import Feed

POST_SECONDS = 0.002
ASKED_AT_ONCE = 1000
CARRIED_UNITS = 500
"""How many units of an open step a hint may carry."""


class Hub:
    """Who wants to know what: readers by feed, running turns by `watch`, the replica by `on_ready`."""

    def __init__(self, log: Log, hot: Hot) -> None:
        self._log = log
        self._hot = hot
        self._feeds: dict[Ref, Feed] = {}
        self._watchers: dict[Ref, Callable[[int | None], None]] = {}
        self._abreast: set[Ref] = set()
        """Whose watcher was told of a commit since the last sweep."""
        self._sweeps = 0
        self._outbox: dict[Ref, Hint] = {}
        self._own: dict[int, Hint] = {}
        """The hints that were posted last, by identity: they come back, and everybody here knows of them."""
        self._posting: asyncio.Event = asyncio.Event()
        self.on_ready: Callable[[], None] = nothing

    async def run(self) -> None:
        """Listen and post hints until cancelled. Hints of one session within `POST_SECONDS` of each other are one."""
        loop = asyncio.get_running_loop()
        async with self._hot.listen(self._hear):
            while True:
                await self._posting.wait()
                self._posting.clear()
                following = loop.time() + POST_SECONDS
                hints, self._outbox = list(self._outbox.values()), {}
                self._own = {id(hint): hint for hint in hints}
                with suppress(Unavailable):
                    await self._hot.tell(hints)
                await asyncio.sleep(following - loop.time())

    def announce(self, ref: Ref, session: Session, events: Sequence[Event]) -> None:
        """Events that this process committed."""
        feed = self._feeds.get(ref)
        if feed is not None:
            feed.busy = session.status == "running"
            feed.add(events)
            if feed.head < session.head:
                feed.refresh()
        poke = self._watchers.get(ref)
        if poke is not None:
            poke(session.head)
            self._abreast.add(ref)
        ready = session.owner is None and session.ready_at == 0
        self._post(ref, Hint(ref.tenant, ref.id, session.head, ready=ready))
        if ready:
            self.on_ready()

    def live(self, ref: Ref, pieces: Sequence[Piece], *, epoch: int) -> None:
        """Pieces of an open step that this process generates under `epoch`."""
        feed = self._feeds.get(ref)
        if feed is not None:
            feed.show(pieces, epoch=epoch)

    def published(self, ref: Ref, pieces: Sequence[Piece], *, epoch: int) -> None:
        """The hot tier has accepted these pieces of the open step: others may look."""
        last = pieces[-1]
        hint = Hint(ref.tenant, ref.id, last.base, last.end, epoch=epoch, pieces=_carried(last.base, last.end, pieces))
        feed = self._feeds.get(ref)
        if feed is not None:
            feed.hear(hint)  # it may have been attached since the pieces were shown to those that were there
        self._post(ref, hint)

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

    async def sweep(self) -> None:
        """The poll behind the hints: turns that wrote nothing since the last one, feeds that should move and do not,
        every fifth time all. The log is asked for all of them together; who is behind looks by itself.
        """
        self._sweeps += 1
        all_feeds = self._sweeps % 5 == 0
        feeds = [feed for feed in self._feeds.values() if all_feeds or (feed.busy and not feed.moved)]
        turns = {ref: poke for ref, poke in self._watchers.items() if ref not in self._abreast}
        self._abreast = set()
        for feed in self._feeds.values():
            feed.moved = False
        heads = await self._heads(list({*turns, *(feed.ref for feed in feeds)}))
        for feed in feeds:
            if feed.readers:
                feed.check(heads.get(feed.ref))
        for ref, poke in turns.items():
            if self._watchers.get(ref) == poke:
                poke(heads.get(ref))

    async def _heads(self, refs: Sequence[Ref]) -> Mapping[Ref, int]:
        heads: dict[Ref, int] = {}
        with suppress(DalsegnoError):  # who asks for more finds out, and says so
            for first in range(0, len(refs), ASKED_AT_ONCE):
                heads |= await self._log.heads(refs[first : first + ASKED_AT_ONCE])
        return heads

    def _post(self, ref: Ref, hint: Hint) -> None:
        before = self._outbox.get(ref)
        if before is not None:
            ready = before.ready or hint.ready
            later = hint if hint.head >= before.head else before
            same = before.pieces and (before.head, before.epoch) == (later.head, later.epoch) and later is hint
            pieces = (*before.pieces, *later.pieces) if same else later.pieces
            hint = replace(later, ready=ready, pieces=_carried(later.head, later.units, pieces))
        self._outbox[ref] = hint
        self._posting.set()

    def _hear(self, hint: Hint) -> None:
        if id(hint) in self._own:
            return
        ref = Ref(hint.tenant, hint.session)
        feed = self._feeds.get(ref)
        if feed is not None:
            feed.hear(hint)
        poke = self._watchers.get(ref)
        if poke is not None:
            poke(hint.head)
        if hint.ready:
            self.on_ready()


def _carried(base: int, units: int, pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """What a hint of so many units of that step carries: these pieces, if they are of it and not too much."""
    fits = pieces and pieces[0].base == base and units - pieces[0].at <= CARRIED_UNITS
    return tuple(pieces) if fits else ()


def nothing() -> None:
    """What is called where nobody listens."""
