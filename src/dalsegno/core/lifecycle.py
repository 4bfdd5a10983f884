"""A session's beginning, its metadata, its end, and its copies: the decisions that are not about turns."""

from collections.abc import Sequence

from dalsegno.core import codec
from dalsegno.core.append import Decision, Draft, Keep, Known, Refusal, Write, record
from dalsegno.core.event import Event, ItemDone, SessionCreated, SessionDeleted, SessionUpdated, TurnCancelled
from dalsegno.core.json import JsonObject
from dalsegno.core.refs import Ref
from dalsegno.core.session import Session, apply, replace
from dalsegno.core.tier import Artifact, moved, pointer_of


def create(
    session: Session | None, known: Known | None, now: int, *, ref: Ref, opening: SessionCreated
) -> Decision[Session]:
    """Begin a session whose name nobody has had."""
    if session is not None:
        return Refusal("session_exists", "a session of this id exists, or existed")
    made, events = record(Session(id=ref.id, tenant=ref.tenant), [Draft(opening)], now)
    return Write(made, events, made)


def update(
    session: Session | None, known: Known | None, now: int, *, metadata: JsonObject, head: int | None
) -> Decision[Session]:
    """Replace the metadata; with `head`, only if that is still the last event."""
    if session is None or session.deleted:
        return Refusal("not_found", "no such session")
    if head is not None and head != session.head:
        return Refusal("version_mismatch", f"the session is at {session.head}")
    made, events = record(session, [Draft(SessionUpdated(metadata))], now)
    return Write(made, events, made)


def delete(session: Session | None, known: Known | None, now: int) -> Decision[Session]:
    """End a session for good. The epoch grows and nobody owns it, so whoever ran it is fenced off."""
    if session is None or session.deleted:
        return Refusal("not_found", "no such session")
    made, events = record(session, [Draft(SessionDeleted())], now)
    made = replace(made, owner=None, epoch=made.epoch + 1)
    return Write(made, events, made)


def erase_again(session: Session | None, known: Known | None, now: int) -> Decision[None]:
    """A fenced off turn may have put an artifact after its session's erasure: whatever was begun counts no more."""
    if session is None or not session.deleted:
        return Keep(None)
    return Write(replace(session, epoch=session.epoch + 1), (), None)


def replay(
    session: Session | None, known: Known | None, now: int, *, ref: Ref, events: Sequence[Event], by: str
) -> Decision[Session]:
    """Write events that another session had, and end the turns that are open after them."""
    if session is not None:
        return Refusal("session_exists", "a session of this id exists, or existed")
    made = Session(id=ref.id, tenant=ref.tenant)
    for event in events:
        codec.number_of(event.type)
        made = apply(made, event, codec.decode(event))
    cancelled = [Draft(TurnCancelled(by=by), turn.first) for turn in made.open]
    made, ended = record(made, cancelled, now)
    return Write(made, (*events, *ended), made)


def artifact_of(event: Event) -> Artifact | None:
    """The artifact that an event points to."""
    if event.type != "item.done" or b'"artifact"' not in event.data:
        return None
    data = codec.decode(event)
    return pointer_of(data.item) if isinstance(data, ItemDone) else None


def moved_event(event: Event, target: Ref, first: SessionCreated | None) -> Event:
    """The event as it stands in the fork: its artifacts are the fork's own."""
    if first is not None:
        return replace(event, data=codec.encode(first))
    if artifact_of(event) is None:
        return event
    data = codec.decode(event)
    assert isinstance(data, ItemDone)
    return replace(event, data=codec.encode(replace(data, item=moved(data.item, target.id))))
