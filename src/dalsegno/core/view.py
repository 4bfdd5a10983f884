"""What a client sees of a turn and of a conversation, folded from the log."""

from collections.abc import Iterable

from dalsegno.core import codec
from dalsegno.core.context import message_items
from dalsegno.core.event import (
    ContextSummarized,
    Event,
    ItemDone,
    TurnCompleted,
    TurnCreated,
    TurnError,
    TurnFailed,
    TurnInput,
    TurnStarted,
)
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Message
from dalsegno.core.item import CONVERSATION
from dalsegno.core.json import JsonObject
from dalsegno.core.part import add_usage
from dalsegno.core.session import Session
from dalsegno.core.turn import Status, Turn, advance, undecided


def conversation(session: Session, events: Iterable[Event]) -> list[JsonObject]:
    """The conversation's items in a part of the log; what was rolled back or removed is left out."""
    return [item for event in events for item in said(session, event)]


def records(session: Session, event: Event) -> list[JsonObject]:
    """The same, with the items that are shown to nobody."""
    data = codec.decode(event) if event.type == "item.done" else None
    if not isinstance(data, ItemDone) or data.item["type"] in CONVERSATION:
        return said(session, event)
    return [] if is_gone(session, event) else [data.item]


def said(session: Session, event: Event) -> list[JsonObject]:
    """The items that an event adds to the conversation."""
    if event.type not in ("turn.created", "turn.input", "item.done") or is_gone(session, event):
        return []
    data = codec.decode(event)
    if isinstance(data, ItemDone):
        shown = data.item["type"] in CONVERSATION or data.since is not None
        return [data.item] if shown else []
    if isinstance(data, TurnCreated | TurnInput) and isinstance(data.input, Message):
        return message_items(data.input, session=session.id, turn=event.turn or 0, seq=event.seq)
    return []


def summary_of(event: Event) -> list[JsonObject]:
    """The item that the context begins with from that event on."""
    data = codec.decode(event)
    return [data.item] if isinstance(data, ContextSummarized) else []


def is_gone(session: Session, event: Event) -> bool:
    """Whether what the event says was rolled back or removed."""
    return event.turn in session.hidden or any(first <= event.seq <= last for first, last in session.removed)


def view(session: Session, first: int, events: Iterable[Event]) -> Turn:
    """The turn `first` as its events tell it; events of other turns are passed over."""
    status: Status = "queued"
    attempt, last, output = 1, first, list[JsonObject]()
    usage: JsonObject | None = None
    error: TurnError | None = None
    for event in events:
        if event.turn != first:
            continue
        last = event.seq
        if event.type == "turn.created":
            continue
        status = advance(status, event.type, seq=event.seq)
        data = codec.decode(event)
        if isinstance(data, TurnStarted):
            attempt = data.attempt
        elif isinstance(data, ItemDone):
            usage = add_usage(usage, data.usage)
            if data.item["type"] in CONVERSATION:
                output.append(data.item)
        elif isinstance(data, TurnCompleted):
            usage = data.usage or usage
        elif isinstance(data, TurnFailed):
            error = data.error
    running = session.turn(first)
    actions = undecided(running) if running is not None and status == "waiting" else ()
    return Turn(
        id=turn_id(session.id, first),
        session=session.id,
        status=status,
        attempt=attempt,
        first_seq=first,
        last_seq=last,
        actions=actions,
        output=tuple(output),
        usage=usage,
        error=error,
    )
