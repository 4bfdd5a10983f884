"""Export and import: a session's log as lines, one event's JSON each, in `seq` order. A line that is not the last one
begins with a space, which is nothing in JSON: so what was cut off is told from what is whole.

An import is believed nothing: every line must be the next event of a log that could have happened. The new session's
turns get ids of their own, since a turn's id is derived from its session's; here they are numbers again.
"""

import re
from datetime import UTC, datetime

import msgspec

from dalsegno.core import codec
from dalsegno.core.check import check_made
from dalsegno.core.event import (
    TYPES,
    Data,
    Event,
    ItemDone,
    SessionCreated,
    SessionUpdated,
    TurnCreated,
    TurnInput,
    Unknown,
)
from dalsegno.core.input import Cancel
from dalsegno.core.item import INSIDE, OWN_PREFIX
from dalsegno.core.json import Json, JsonObject, dumps, loads_strict
from dalsegno.core.session import Session, apply
from dalsegno.errors import Refused, Unreadable
from dalsegno.wire import requests
from dalsegno.wire.native import event_bytes

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_TURN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seq: int
    type: str
    turn: str | None
    at: str
    data: dict[str, object]


MORE = b" "
"""How a line begins that others follow."""


def export_line(session: str, event: Event, *, head: int) -> bytes:
    """One line of an export whose last event is `head`."""
    return (MORE if event.seq < head else b"") + event_bytes(session, event) + b"\n"


class Import:
    """Reads the lines of an export, one after another; `events` is what they add up to."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._session = Session(id="", tenant="")
        self._turns: dict[str, int] = {}
        self._more = False

    def line(self, text: bytes) -> None:
        """Take the next line. Raises `Refused` naming the line; nothing has been applied."""
        number = len(self.events) + 1
        try:
            event, data = self._event(loads_strict(text), number)
            self._session = apply(self._session, event, data)
        except Refused as error:
            raise Refused(error.code, f"line {number}: {error.detail}") from None
        except Unreadable as error:
            raise Refused("invalid_request", f"line {number}: {error}") from None
        except msgspec.ValidationError as error:
            raise Refused("invalid_request", f"line {number}: {error}") from None
        self.events.append(event)
        self._more = text.startswith(MORE)

    def done(self) -> list[Event]:
        """Everything, once the last line was read."""
        if not self.events:
            raise Refused("invalid_request", "an import has at least one line: session.created")
        if self._more:
            raise Refused("invalid_request", f"line {len(self.events)} is not the export's last: it was cut off")
        if self._session.deleted:
            raise Refused("invalid_request", "the log of a deleted session cannot be imported")
        return self.events

    def _event(self, value: Json, number: int) -> tuple[Event, Data]:
        line = msgspec.convert(value, _Line)
        if line.seq != number:
            raise Refused("invalid_request", f"`seq` is {line.seq}, expected {number}")
        if line.type not in TYPES or (line.type == "session.created") != (number == 1):
            raise Refused("invalid_request", f"an event of type {line.type[:64]!r} cannot stand here")
        event = Event(number, line.type, self._turn(line), _milliseconds(line.at), dumps(line.data))
        data = codec.decode(event)
        assert not isinstance(data, Unknown)
        _check(data)
        return event, data

    def _turn(self, line: _Line) -> int | None:
        if line.turn is None:
            if line.type.startswith(("turn.", "tool.")):
                raise Refused("invalid_request", f"{line.type} belongs to a turn")
            return None
        if line.type == "turn.created" and _TURN.fullmatch(line.turn) and int(line.turn[-8:], 16) == line.seq:
            self._turns[line.turn] = line.seq
        found = self._turns.get(line.turn)
        if found is None or line.type.startswith("session."):
            raise Refused("invalid_request", "`turn` is not the id of a turn that began before")
        return found


def _check(data: Data) -> None:
    match data:
        case SessionCreated(agent=agent, user=user, metadata=metadata):
            requests.check_session(metadata=metadata, agent=agent, user=user)
        case SessionUpdated(metadata=metadata):
            requests.check_session(metadata=metadata)
        case TurnCreated(input=said) | TurnInput(input=said):
            plain = msgspec.to_builtins(said)
            if isinstance(said, Cancel):
                plain.pop("hide", None)
            requests.parse_input(plain)
            requests.parse_key(data.key)
        case ItemDone(item=item):
            _check_item(item, "data.item")
        case _:
            pass


def _check_item(item: JsonObject, where: str) -> None:
    names = ("type", "id", "call_id") if item.get("type") == INSIDE else ("type", "id")
    for name in names:
        if not isinstance(item.get(name), str):
            raise Refused("invalid_request", f"{where}.{name} is a string")
    held = item.get("item")
    if item["type"] == INSIDE:
        _check_item(held if isinstance(held, dict) else {}, f"{where}.item")
    elif not str(item["type"]).startswith(OWN_PREFIX):
        check_made(item, where=where)


def _milliseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text) if _TIME.fullmatch(text) else None
    except ValueError:
        moment = None
    if moment is None or moment.year < 1970:
        raise Refused("invalid_request", "`at` is a time such as 2026-11-20T08:00:00.000Z")
    return round(moment.astimezone(UTC).timestamp() * 1000)
