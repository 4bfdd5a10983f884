"""Reading a session's log from one number to another. What is missing is an error, and never a shorter log (P9)."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from dalsegno.core import codec
from dalsegno.core.admit import answers
from dalsegno.core.event import Event, TurnWaiting
from dalsegno.core.input import Approval, ToolResult
from dalsegno.core.session import Session
from dalsegno.errors import Unreadable
from dalsegno.ports import Ref

PAGE_EVENTS = 1000


class Read(Protocol):
    """`read` of the port `Log`, or what stands before it."""

    async def __call__(self, ref: Ref, *, after: int, limit: int) -> Sequence[Event]: ...


async def pages(read: Read, ref: Ref, *, through: int, after: int = 0) -> AsyncGenerator[Sequence[Event]]:
    """The events behind `after`, up to number `through`, page by page; no page is empty. Raises `Unreadable`.

    Who may stop half-way closes it: left to a collection, it would cost the loop a task.
    """
    while after < through:
        events = await read(ref, after=after, limit=min(PAGE_EVENTS, through - after))
        if not events or events[0].seq != after + 1:
            raise Unreadable(f"session {ref.id}: its log has no event {after + 1}")
        yield events
        after = events[-1].seq


async def has_waited(read: Read, session: Session, said: Approval | ToolResult) -> bool:
    """Whether a turn waited for this decision once, and none does now. Reads the log: for who comes too late."""
    if any(action.call_id == said.call_id for turn in session.open if not turn.cancel for action in turn.actions):
        return False
    async with aclosing(pages(read, Ref(session.tenant, session.id), through=session.head)) as reading:
        async for page in reading:
            for event in page:
                data = codec.decode(event) if event.type == "turn.waiting" else None
                if isinstance(data, TurnWaiting) and any(answers(said, action) for action in data.actions):
                    return True
    return False
