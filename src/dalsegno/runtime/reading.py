"""Reading a session's log from one number to another. What is missing is an error, and never a shorter log (P9)."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from dalsegno.core.event import Event
from dalsegno.errors import Unreadable
from dalsegno.ports import Ref

PAGE_EVENTS = 1000


class Read(Protocol):
    """`read` of the port `Log`, or what stands before it."""

    async def __call__(self, ref: Ref, *, after: int, limit: int) -> Sequence[Event]: ...


async def pages(read: Read, ref: Ref, *, through: int, after: int = 0) -> AsyncIterator[Sequence[Event]]:
    """The events behind `after`, up to number `through`, page by page; no page is empty. Raises `Unreadable`."""
    while after < through:
        events = await read(ref, after=after, limit=min(PAGE_EVENTS, through - after))
        if not events or events[0].seq != after + 1:
            raise Unreadable(f"session {ref.id}: its log has no event {after + 1}")
        yield events
        after = events[-1].seq
