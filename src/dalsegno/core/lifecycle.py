"""A session's beginning, its metadata, its end, and its copies: the decisions that are not about turns."""

from collections.abc import Sequence

from dalsegno.core import codec
from dalsegno.core.append import ELSEWHERE, Decision, Draft, Keep, Known, Refusal, Write, record
from dalsegno.core.event import (
    Event,
    ItemDone,
    SessionCreated,
    SessionDeleted,
    SessionSettled,
    SessionUpdated,
    TurnCancelled,
    TurnCreated,
    TurnInput,
)
from dalsegno.core.input import Message
from dalsegno.core.item import OUTPUT
from dalsegno.core.json import JsonObject
from dalsegno.core.refs import Ref
from dalsegno.core.session import Session, apply, replace
from dalsegno.core.tier import Artifact, brought_back, moved, moved_brought, moved_message, pointer_of, restored, shown

UNSWEPT = -1
"""In `Session.swept`: whoever sweeps now began too early."""


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
    if session.moved:
        return ELSEWHERE
    if head is not None and head != session.head:
        return Refusal("version_mismatch", f"the session is at {session.head}")
    made, events = record(session, [Draft(SessionUpdated(metadata))], now)
    return Write(made, events, made)


def delete(session: Session | None, known: Known | None, now: int) -> Decision[Session]:
    """End a session for good. The epoch grows and nobody owns it, so whoever ran it is fenced off."""
    if session is None or session.deleted:
        return Refusal("not_found", "no such session")
    if session.moved:
        return ELSEWHERE
    made, events = record(session, [Draft(SessionDeleted())], now)
    made = replace(made, owner=None, epoch=made.epoch + 1)
    return Write(made, events, made)


def erase_again(session: Session | None, known: Known | None, now: int) -> Decision[None]:
    """A fenced off turn may have put an artifact after its session's erasure, or after the cold tier was swept:
    whatever was begun, or done, counts no more.
    """
    if session is None:
        return Keep(None)
    if not session.deleted:
        return unsweep(session)
    return Write(replace(session, epoch=session.epoch + 1), (), None)


def unsweep(session: Session) -> Decision[None]:
    """The cold tier has something again that the log does not point to; a sweep that is under way does not count."""
    return Keep(None) if session.swept == UNSWEPT else Write(replace(session, swept=UNSWEPT), (), None)


def replay(
    session: Session | None, known: Known | None, now: int, *, ref: Ref, events: Sequence[Event], by: str
) -> Decision[Session]:
    """Write events that another session had, and end the turns that are open after them, hidden where a rollback was
    asked for.

    They may end where that session moved to another store: this one lives here. Where only the first of them was
    written until now (`half`), the others follow.
    """
    if session is not None and session.deleted and by == "fork":
        return Refusal(ELSEWHERE.code, "the fork took so long that it was given up: ask again")
    if session is not None and not half(session):
        return Refusal("session_exists", "a session of this id exists, or existed")
    made = Session(id=ref.id, tenant=ref.tenant) if session is None else session
    events = events[made.head :]
    for event in events:
        codec.number_of(event.type)
        made = apply(made, event, codec.decode(event))
    ends = [Draft(SessionSettled(by))] if made.moved else []
    ends += [Draft(TurnCancelled(by=by, hidden=turn.hide), turn.first) for turn in made.open]
    made, ended = record(made, ends, now)
    return Write(made, (*events, *ended), made)


def half(session: Session) -> bool:
    """Whether it is a fork that was begun and has nothing of its parent yet."""
    begun = session.parent is not None and session.head == 1 and session.parent.seq > 1
    return begun and not session.deleted and session.epoch == 0


def drop(session: Session | None, known: Known | None, now: int) -> Decision[Session | None]:
    """End a fork that nobody goes on with: who made it died."""
    if session is None or not half(session):
        return Keep(None)
    return delete(session, known, now)


def artifact_of(event: Event) -> Artifact | None:
    """The artifact that an event points to."""
    holder = _holder(event)
    return None if holder is None else pointer_of(holder)


def own_artifact(event: Event, session: str) -> Artifact | None:
    """The same if it is that session's own: outputs in an import point to what the exported session has, or had."""
    artifact = artifact_of(event)
    return artifact if artifact is not None and artifact.session == session else None


def missing_text(event: Event) -> Artifact | None:
    """The artifact that holds what readers of this event are to be given: of a tool's output they get the preview."""
    holder = _holder(event)
    if holder is None or (isinstance(holder, dict) and holder["type"] == OUTPUT):
        return None
    return pointer_of(holder)


def with_text(event: Event, text: str) -> Event:
    """The event as it would be if its text had stayed in the log."""
    data = codec.decode(event)
    if isinstance(data, ItemDone):
        whole = replace(data, item=shown(data.item, text)) if data.artifact is None else brought_back(data, text)
        return replace(event, data=codec.encode(whole))
    assert isinstance(data, TurnCreated | TurnInput) and isinstance(data.input, Message)
    return replace(event, data=codec.encode(replace(data, input=restored(data.input, text))))


def moved_event(event: Event, target: Ref, first: SessionCreated | None) -> Event:
    """The event as it stands in the fork: its artifacts are the fork's own."""
    if first is not None:
        return replace(event, data=codec.encode(first))
    if artifact_of(event) is None:
        return event
    data = codec.decode(event)
    if isinstance(data, ItemDone):
        own = replace(data, item=moved(data.item, target.id)) if event.turn else moved_brought(data, target.id)
        return replace(event, data=codec.encode(own))
    assert isinstance(data, TurnCreated | TurnInput) and isinstance(data.input, Message)
    return replace(event, data=codec.encode(replace(data, input=moved_message(data.input, target.id))))


def _holder(event: Event) -> JsonObject | Message | ItemDone | None:
    """What in an event may have a pointer; decoded only if it may be one. In an item that somebody outside brought in
    whatever looks like one is theirs.
    """
    if b'"artifact"' not in event.data or event.type not in ("item.done", "turn.created", "turn.input"):
        return None
    data = codec.decode(event)
    if isinstance(data, ItemDone):
        return data.item if event.turn else data
    said = data.input if isinstance(data, TurnCreated | TurnInput) else None
    return said if isinstance(said, Message) else None
