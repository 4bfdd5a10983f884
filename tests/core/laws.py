"""What several laws look at: a log with its content decoded, and whether a provider would take a context."""

from collections.abc import Iterable, Iterator, Sequence

from dalsegno.core import codec
from dalsegno.core.context import Transcript, removed
from dalsegno.core.event import Data, Event, Unknown
from dalsegno.core.session import fold
from dalsegno.testing.world.provider import refused_by_providers

__all__ = ["folded", "further", "refused_by_providers", "typed"]


def typed(events: Iterable[Event]) -> Iterator[tuple[Event, Data | Unknown]]:
    """Each event with its content."""
    return ((event, codec.decode(event)) for event in events)


def folded(events: Sequence[Event], session: str, *, head: int = 0) -> Transcript:
    """The transcript of a log, or of what comes behind `head`."""
    transcript = Transcript(session, head=head, removed=removed(events))
    for event in events[head:]:
        transcript.add(event)
    return transcript


def further(transcript: Transcript, events: Sequence[Event]) -> Transcript:
    """The transcript gone on with to the end of a log, as `runtime.contexts` does; anew if it does not go on."""
    if not transcript.goes_on(fold(transcript.session, "", events)):
        return folded(events, transcript.session)
    for event in events[transcript.head :]:
        transcript.add(event)
    return transcript
