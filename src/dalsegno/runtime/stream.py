"""Follow a session: the log from the cursor on, then live, with no gap between them. A reader keeps only its cursor.

There is no buffer per reader: each takes what it lacks from the session's feed or from the log, at its own pace.
"""

from collections import deque
from collections.abc import Sequence

from dalsegno.core.event import Event
from dalsegno.core.session import Session
from dalsegno.core.stream import Composer, Frame
from dalsegno.errors import Unavailable, Unreadable
from dalsegno.ports import Log, Ref
from dalsegno.runtime.feed import Feed
from dalsegno.runtime.hub import Hub
from dalsegno.runtime.texts import Texts

PAGE_EVENTS = 200


class Stream:
    """One reader's frames. Ends after the event that nothing can follow; raises `Unavailable` when it must be cut off.

    `ended` is true when nothing can follow the cursor it was opened at.
    """

    def __init__(self, composer: Composer, feed: Feed, *, log: Log, hub: Hub, texts: Texts) -> None:
        self.ended = composer.ended
        self._composer = composer
        self._feed = feed
        self._log = log
        self._hub = hub
        self._whole = texts.whole
        self._frames: deque[Frame] = deque()
        self._composed = -1
        """All of the feed is composed up to this version of it."""
        self._closed = False

    @property
    def shared(self) -> bool:
        """Whether others follow the session here."""
        return self._feed.readers > 1

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Frame:
        while not self._frames:
            if self._closed or self._composer.ended:
                raise StopAsyncIteration
            feed, composer = self._feed, self._composer
            if feed.failure is not None:
                raise Unavailable(f"the log cannot be followed: {feed.failure}", outcome="not_applied")
            if composer.cursor.seq < feed.head:
                await self._catch_up()
            elif self._composed == feed.version:
                await feed.change()
            else:
                self._composed = feed.version
                # what is read from the log can be ahead of the feed, whose pieces are then of a step that is over
                if composer.cursor.seq == feed.head:
                    self._frames.extend(composer.live(feed.pieces(composer.cursor.offset)))
        return self._frames.popleft()

    async def aclose(self) -> None:
        """Let the feed go. Harmless when repeated."""
        if not self._closed:
            self._closed = True
            self._hub.detach(self._feed)

    async def _catch_up(self) -> None:
        """Events that the feed knows of, from there if it has them."""
        at_hand = self._feed.since(self._composer.cursor.seq)
        events = at_hand if at_hand is not None else await self._read()
        try:
            self._compose(await self._whole(self._feed.ref.tenant, events))
        except Unreadable as error:
            self._compose(await self._end(error))

    async def _end(self, error: Unreadable) -> Sequence[Event]:
        """What is left of a session that is deleted and half erased: its last event. Any other is unreadable."""
        ref = self._feed.ref
        session = await self._log.load(ref)
        if session is None or not session.deleted:
            raise error
        return await self._log.read(ref, after=session.head - 1)

    def _compose(self, events: Sequence[Event]) -> None:
        for event in events:
            composer = self._composer
            if composer.ended:
                return
            if event.seq <= composer.cursor.seq:
                continue
            if event.seq != composer.cursor.seq + 1 and event.type != "session.deleted":
                raise Unreadable(f"event {event.seq} follows {composer.cursor.seq}")
            self._frames.extend(composer.durable(event))

    async def _read(self) -> Sequence[Event]:
        events = await self._log.read(self._feed.ref, after=self._composer.cursor.seq, limit=PAGE_EVENTS)
        if not events:
            # the log was erased behind the feed: its last event says so
            self._feed.refresh()
            await self._feed.change()
        return events


def open_stream(ref: Ref, composer: Composer, *, session: Session, log: Log, hub: Hub, texts: Texts) -> Stream:
    """A reader of a session that exists, from a cursor that is not ahead of it."""
    return Stream(composer, hub.attach(ref, session), log=log, hub=hub, texts=texts)
