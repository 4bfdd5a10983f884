"""What several laws look at: a log with its content decoded, and whether a provider would take a context."""

from collections.abc import Iterable, Iterator

from dalsegno.core import codec
from dalsegno.core.event import Data, Event, Unknown
from dalsegno.testing.world.provider import refused_by_providers

__all__ = ["refused_by_providers", "typed"]


def typed(events: Iterable[Event]) -> Iterator[tuple[Event, Data | Unknown]]:
    """Each event with its content."""
    return ((event, codec.decode(event)) for event in events)
