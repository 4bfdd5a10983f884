"""What a turn needs to know before it can think: its session's context and its own journal, from the log.

Transcripts of sessions that were busy here are kept, within a budget of bytes, so that the next turn reads only what
is new. They are derived: losing them costs the reading of the context, never of the whole history.
"""

from collections import OrderedDict

from dalsegno.core.context import Transcript
from dalsegno.core.event import Event
from dalsegno.core.session import Session
from dalsegno.errors import Unreadable
from dalsegno.ports import Log, Ref

READ_EVENTS = 1000
BUDGET_BYTES = 32 * 1024 * 1024


class Contexts:
    """Transcripts at hand, the least recently used first to go."""

    def __init__(self, log: Log, *, budget_bytes: int = BUDGET_BYTES) -> None:
        self._log = log
        self._budget = budget_bytes
        self._kept: OrderedDict[Ref, Transcript] = OrderedDict()
        self._weight = 0

    async def take(self, ref: Ref, session: Session, *, before: int) -> Transcript:
        """The transcript up to event `before`, for the caller alone until it is given back."""
        transcript = self._kept.pop(ref, None)
        if transcript is not None:
            self._weight -= transcript.weight
        if transcript is None or transcript.head > before:
            transcript = Transcript(session.id)
            transcript.head = session.through
        while transcript.head < before:
            wanted = min(READ_EVENTS, before - transcript.head)
            events = await self._log.read(ref, after=transcript.head, limit=wanted)
            _contiguous(session, transcript.head, events[0].seq if events else 0)
            for event in events:
                transcript.add(event)
        return transcript

    def give_back(self, ref: Ref, transcript: Transcript) -> None:
        """Keep it for the session's next turn."""
        self._kept[ref] = transcript
        self._weight += transcript.weight
        while self._weight > self._budget and self._kept:
            _, oldest = self._kept.popitem(last=False)
            self._weight -= oldest.weight


async def turn_events(ref: Ref, first: int, *, log: Log, through: int) -> list[Event]:
    """The events of the turn that began at `first`, up to event `through`."""
    found: list[Event] = []
    after = first - 1
    while after < through:
        events = await log.read(ref, after=after, limit=READ_EVENTS)
        if not events:
            raise Unreadable(f"session {ref.id} ends at {after}, not at {through}")
        found += [event for event in events if event.turn == first and event.seq <= through]
        after = events[-1].seq
    return found


def _contiguous(session: Session, head: int, first: int) -> None:
    if first != head + 1:
        raise Unreadable(f"session {session.id}: its log has no event {head + 1}")
