"""What a turn needs to know before it can think: its session's context and its own journal, from the log.

Transcripts of sessions that were busy here are kept, within a budget of bytes, so that the next turn reads only what
is new. Long ones are put near, too, for the replica that has the session next. Both are derived: losing them costs the
reading of the context, never of the whole history. What was near is gone on with only if the log has, at that number,
the very event that was folded in last: a log that was restored from a backup has another.
"""

from collections import OrderedDict

from dalsegno.core.context import Transcript
from dalsegno.core.event import Event
from dalsegno.core.frozen import CONTEXT, CONTEXT_KEPT, WORTH_EVENTS, freeze, thaw, worth
from dalsegno.core.session import Session
from dalsegno.errors import Unreadable
from dalsegno.ports import Log, Ref
from dalsegno.runtime.near import Near
from dalsegno.runtime.reading import PAGE_EVENTS, pages

BUDGET_BYTES = 32 * 1024 * 1024
HEADS_MAX = 10_000


class Contexts:
    """Transcripts at hand, the least recently used first to go."""

    def __init__(
        self, log: Log, near: Near, *, budget_bytes: int = BUDGET_BYTES, worth_events: int = WORTH_EVENTS
    ) -> None:
        self._log = log
        self._near = near
        self._budget = budget_bytes
        self._worth_events = worth_events
        self._kept: OrderedDict[Ref, Transcript] = OrderedDict()
        self._weight = 0
        self._heads: OrderedDict[Ref, int] = OrderedDict()
        """How far what is near goes, as far as is known here."""

    async def take(self, ref: Ref, session: Session, *, before: int) -> Transcript:
        """The transcript up to event `before`, for the caller alone until it is given back."""
        transcript = self._kept.pop(ref, None)
        if transcript is not None:
            self._weight -= transcript.weight
        if transcript is None or transcript.head > before or not transcript.goes_on(session):
            # a session's first event says that it was created, and nothing that a model is shown
            beginning = session.through or min(before, 1)
            transcript = Transcript(session.id, head=beginning, removed=session.removed)
        if before - transcript.head >= self._worth_events:
            transcript = await self._nearby(ref, session, after=transcript.head, before=before) or transcript
        async for events in pages(self._log.read, ref, after=transcript.head, through=before):
            if events[0].seq != transcript.head + 1:
                raise Unreadable(f"session {ref.id}: somebody else has gone on with its transcript")
            for event in events:
                transcript.add(event)
        return transcript

    def give_back(self, ref: Ref, transcript: Transcript) -> None:
        """Keep it for the session's next turn, here and, if it is long, near whoever has that turn."""
        if (other := self._kept.pop(ref, None)) is not None:
            # A turn that parked gives back while the task that goes on with it runs, or has ended.
            self._weight -= other.weight
        self._kept[ref] = transcript
        self._weight += transcript.weight
        while self._weight > self._budget and self._kept:
            _, oldest = self._kept.popitem(last=False)
            self._weight -= oldest.weight
        if self._near.keeps and worth(transcript, near=self._heads.get(ref, 0), least=self._worth_events):
            self._near.put(ref, CONTEXT, transcript.head, freeze(transcript, tenant=ref.tenant), keep=CONTEXT_KEPT)
            self._note(ref, transcript.head)

    async def _nearby(self, ref: Ref, session: Session, *, after: int, before: int) -> Transcript | None:
        """What is near, if it goes further than `after`, and what the log has after it; nothing if it is of another
        log.
        """
        found = await self._near.get(ref, CONTEXT)
        head, content = found or (0, b"")
        transcript = thaw(content, tenant=ref.tenant, session=ref.id) if after < head <= before else None
        self._note(ref, head if transcript is not None else 0)
        if transcript is None or transcript.head != head or not transcript.goes_on(session):
            return None
        events = await self._log.read(ref, after=head - 1, limit=min(PAGE_EVENTS, before - head + 1))
        if not events or events[0] != transcript.last:
            return None
        for event in events[1:]:
            transcript.add(event)
        return transcript

    def _note(self, ref: Ref, head: int) -> None:
        self._heads[ref] = head
        self._heads.move_to_end(ref)
        while len(self._heads) > HEADS_MAX:
            self._heads.popitem(last=False)


async def turn_events(ref: Ref, first: int, *, log: Log, through: int) -> list[Event]:
    """The events of the turn that began at `first`, up to event `through`."""
    rest = pages(log.read, ref, after=first - 1, through=through)
    return [event async for page in rest for event in page if event.turn == first]
