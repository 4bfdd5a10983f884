"""Bringing in: items that no turn made become part of a session's log, or are refused. Needs no lease, as admission.

It is how an agent that runs elsewhere keeps its conversation here. While a turn is open the conversation is that
turn's, and nobody else adds to it.
"""

from collections.abc import Sequence

import msgspec

from dalsegno.core.append import ELSEWHERE, Decision, Draft, Keep, Known, Refusal, Write, record
from dalsegno.core.check import check_made
from dalsegno.core.event import Event, ItemDone, ItemsRemoved, SessionCreated
from dalsegno.core.ids import hash16, item_id, turn_id
from dalsegno.core.input import Key
from dalsegno.core.item import MESSAGE
from dalsegno.core.json import JsonObject, checked, dumps, dumps_sorted
from dalsegno.core.lifecycle import half
from dalsegno.core.session import Session
from dalsegno.core.stretch import misfit, since
from dalsegno.errors import Refused

replace = msgspec.structs.replace

ITEMS_MAX = 1000
"""Items of one append."""
BYTES_MAX = 16 * 1024 * 1024
"""Their JSON."""


class Brought(msgspec.Struct, frozen=True):
    """Items on their way into a log, each as it is to be held there.

    `expect` is the number that the session's last event must have (0 = there is no session), None takes any. With
    `after`, what the conversation had after that event is removed first. `opening` creates the session if it does not
    exist. `put_under` is the epoch in the names of the objects that hold large texts.
    """

    tenant: str
    session: str
    items: tuple[ItemDone, ...] = ()
    expect: int | None = None
    key: Key | None = None
    opening: SessionCreated = SessionCreated()
    after: int | None = None
    put_under: int | None = None


class Added(msgspec.Struct, frozen=True):
    """Where the session's log ends after an append."""

    head: int
    session: Session | None = None
    events: tuple[Event, ...] = ()


def parse_items(given: Sequence[object]) -> tuple[ItemDone, ...]:
    """Items as a program gives them. Raises `Refused` for what a log cannot hold, or a model cannot be shown."""
    if len(given) > ITEMS_MAX:
        raise Refused("too_large", f"more than {ITEMS_MAX} items in one append")
    items = checked(list(given))
    if len(dumps(items)) > BYTES_MAX:
        raise Refused("too_large", f"more than {BYTES_MAX} bytes in one append")
    assert isinstance(items, list)
    return tuple(ItemDone(_item(item, where=f"items[{place}]")) for place, item in enumerate(items))


def key_of(text: str, items: Sequence[ItemDone]) -> Key:
    """The key of an append as the log keeps it; the same key of an input is another's."""
    return Key(text, hash16("key", text), hash16("items", dumps_sorted([done.item for done in items])))


def bring(session: Session | None, known: Known | None, now: int, *, brought: Brought) -> Decision[Added]:
    """Decide about items from outside: they are written in one commit, after the event that was expected.

    A repeated key gives the first answer; the same key with other items is refused. `session_busy`: a turn is open,
    whatever was expected. `version_mismatch`: somebody else was faster.
    """
    if session is not None and session.moved:
        return ELSEWHERE
    if known is not None and brought.key is not None and session is not None and not session.deleted:
        if known.fingerprint != brought.key.fingerprint:
            return Refusal("key_reused", "this idempotency key was used for something else")
        return Keep(Added(known.seq))
    if (refused := _refusal(session, brought)) is not None:
        return refused
    if not brought.items and brought.after is None:
        return Keep(Added(0 if session is None else session.head))
    made = Session(brought.session, brought.tenant) if session is None else session
    first = [] if session is not None else [Draft(brought.opening)]
    first += [] if brought.after is None else [Draft(ItemsRemoved(brought.after))]
    session, events = record(made, first, now)
    for place, data in enumerate(brought.items):
        if why := misfit(session.stretch, data.item):
            return Refusal("invalid_request", f"items[{place}] {why}")
        session, written = record(session, [Draft(_placed(session, data))], now)
        events += written
    added = Added(session.head, session, events)
    if brought.key is None:
        return Write(session, events, added)
    return Write(session, events, added, ((brought.key.digest, Known(brought.key.fingerprint, added.head, 0, "done")),))


def _refusal(session: Session | None, brought: Brought) -> Refusal | None:
    head = 0 if session is None else session.head
    if session is not None and session.deleted:
        return Refusal("not_found", "no such session")
    if session is not None and (session.open or half(session)):
        return Refusal("session_busy", "a turn is open, or the session is a fork that is being made")
    if brought.expect is not None and brought.expect != head:
        return Refusal("version_mismatch", f"the session is at {head}, not at {brought.expect}")
    if brought.after is not None and (session is None or not _cuts(session, brought.after)):
        return Refusal("invalid_request", f"nothing can be removed after event {brought.after}")
    if brought.put_under is not None and brought.put_under != (0 if session is None else session.epoch):
        return Refusal("put_again", "the text was put into the cold tier under an epoch that is over")
    return None


def _cuts(session: Session, after: int) -> bool:
    return after == 0 or session.through <= after < session.head


def _placed(session: Session, data: ItemDone) -> ItemDone:
    """The item as the next event of the session."""
    seq, kind = session.head + 1, str(data.item["type"])
    name = item_id(turn_id(session.id, seq), kind, "0")
    return replace(data, item={"type": kind, "id": name, **data.item}, since=since(session.stretch, data.item, seq=seq))


def _item(item: object, *, where: str) -> JsonObject:
    if not isinstance(item, dict):
        raise Refused("invalid_request", f"{where} is not an object")
    found: JsonObject = {"type": MESSAGE, **item}
    check_made(found, where=where)
    return found
