"""The native protocol, outwards: sessions, turns, receipts and events as the contract's bytes.

An event's `data` is spliced in as the log holds it, never parsed; turn numbers become ids here. Times are arguments.
"""

from collections.abc import Hashable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TypeAlias, assert_never

import msgspec

from dalsegno.core.admit import Receipt
from dalsegno.core.event import Event
from dalsegno.core.ids import turn_id
from dalsegno.core.json import JsonObject, dumps
from dalsegno.core.session import Session
from dalsegno.core.stream import Dropped, Frame, Piece
from dalsegno.core.turn import Turn
from dalsegno.wire import shapes

PREFACE = b"retry: 500\n: dal segno\n\n"
"""The first bytes of every SSE body: when to come back, and proof that the way is open."""
BEAT = b":\n\n"
"""A comment: says that the stream lives, and moves no cursor."""

_EPOCH = datetime(1970, 1, 1)
_MILLISECOND_TEXTS = tuple(f".{milliseconds:03d}Z" for milliseconds in range(1000))
FRAMES_BYTES_MAX = 8 * 1024 * 1024
FRAME_BYTES_MAX = 64 * 1024


class _Record(msgspec.Struct, frozen=True):
    seq: int
    type: str
    turn: str | None
    at: str
    data: msgspec.Raw


class _Passing(msgspec.Struct, frozen=True):
    type: str
    turn: str | None
    at: str
    data: JsonObject


class _Page(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw]
    next: str | None


def time_text(at: int) -> str:
    """Unix milliseconds as RFC 3339, in UTC with milliseconds."""
    return _second_text(at // 1000) + _MILLISECOND_TEXTS[at % 1000]


@lru_cache(maxsize=1024)
def _second_text(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()


# ------------------------------------------------------------------------------------------------ objects


def session_shape(session: Session) -> shapes.Session:
    """A session as the contract shows it: nothing of its lease and nothing of its tenant."""
    running, parent = session.running, session.parent
    return shapes.Session(
        id=session.id,
        status=session.status,
        head=session.head,
        turn=turn_id(session.id, running.first) if running else None,
        queued=max(0, len(session.open) - 1),
        agent=session.agent,
        user=session.user,
        metadata=session.metadata,
        parent=shapes.Parent(parent.session, parent.seq) if parent else None,
        created_at=time_text(session.created_at),
        updated_at=time_text(session.updated_at),
    )


def session_bytes(session: Session) -> bytes:
    """One session."""
    return dumps(session_shape(session))


def session_page(sessions: Sequence[Session], following: str | None) -> bytes:
    """A page of sessions."""
    return dumps(shapes.SessionPage(tuple(session_shape(session) for session in sessions), following))


def item_page(items: Sequence[JsonObject], following: int | None) -> bytes:
    """A page of the conversation."""
    return dumps(shapes.ItemPage(tuple(items), None if following is None else str(following)))


def turn_bytes(turn: Turn) -> bytes:
    """One turn, every field present."""
    return dumps(
        {
            **msgspec.structs.asdict(turn),
            "actions": [msgspec.structs.asdict(action) for action in turn.actions],
            "error": None if turn.error is None else msgspec.structs.asdict(turn.error),
        }
    )


def receipt_shape(receipt: Receipt) -> JsonObject:
    """A receipt with the turn's id."""
    return {**msgspec.structs.asdict(receipt), "turn": turn_id(receipt.session, receipt.turn)}


def receipt_bytes(receipt: Receipt) -> bytes:
    """One receipt."""
    return dumps(receipt_shape(receipt))


def location_of(receipt: Receipt) -> str:
    """Where the turn's stream begins with the very event that the receipt is for."""
    turn = turn_id(receipt.session, receipt.turn)
    return f"/v1/sessions/{receipt.session}/events?turn={turn}&after={receipt.seq - 1}"


def event_bytes(session: str, event: Event) -> bytes:
    """One event of that session's log."""
    turn = None if event.turn is None else turn_id(session, event.turn)
    return dumps(_Record(event.seq, event.type, turn, time_text(event.at), msgspec.Raw(event.data)))


def event_page(session: str, events: Sequence[Event], following: int | None) -> bytes:
    """A page of events."""
    data = [msgspec.Raw(event_bytes(session, event)) for event in events]
    return dumps(_Page(data, None if following is None else str(following)))


# ------------------------------------------------------------------------------------------------ frames

_Encoded: TypeAlias = tuple[str, bytes]


def _passing(session: str, what: Piece | Dropped, now: int) -> _Encoded:
    data: JsonObject
    match what:
        case Dropped():
            kind, data = "item.dropped", {"item_id": what.item_id, "reason": what.reason}
        case Piece(item=None):
            kind = "item.delta"
            data = {"item_id": what.item_id, "field": what.field, "at": what.offset, "delta": what.delta}
        case Piece():
            kind, data = "item.added", {"item": what.item}
        case _:
            assert_never(what)
    return kind, dumps(_Passing(kind, turn_id(session, what.turn), time_text(now), data))


def _encode(session: str, frame: Frame, now: int) -> _Encoded:
    what = frame.what
    if isinstance(what, Event):
        return what.type, event_bytes(session, what)
    return _passing(session, what, now)


def sse_frame(session: str, frame: Frame, *, now: int) -> bytes:
    """One SSE event; `now` (Unix milliseconds) stamps what is not in the log. JSON keeps CR and LF out of `data`."""
    kind, body = _encode(session, frame, now)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (str(frame.cursor).encode(), kind.encode(), body)


def socket_frame(session: str, frame: Frame, *, now: int) -> bytes:
    """The same as a WebSocket message: the event with its cursor as `id`."""
    _, body = _encode(session, frame, now)
    return b'{"id":"%b",%b' % (str(frame.cursor).encode(), body[1:])


class Frames:
    """Encoded frames, so that the readers of a session share the work. The caller owns it; it forgets the older
    half.

    An entry is found by everything that decides its bytes, so that no two tenants can ever meet in one.
    """

    def __init__(self, *, bytes_max: int = FRAMES_BYTES_MAX) -> None:
        self._half = bytes_max // 2
        self._bytes = 0
        self._young: dict[Hashable, bytes] = {}
        self._old: dict[Hashable, bytes] = {}

    def sse(self, session: str, frame: Frame, *, now: int) -> bytes:
        """`sse_frame`, remembered."""
        key = _key("sse", session, frame)
        found = self._young.get(key) or self._old.get(key)
        return self._keep(key, sse_frame(session, frame, now=now)) if found is None else found

    def socket(self, session: str, frame: Frame, *, now: int) -> bytes:
        """`socket_frame`, remembered."""
        key = _key("socket", session, frame)
        found = self._young.get(key) or self._old.get(key)
        return self._keep(key, socket_frame(session, frame, now=now)) if found is None else found

    def _keep(self, key: Hashable, encoded: bytes) -> bytes:
        if key is None or len(encoded) > FRAME_BYTES_MAX:
            return encoded
        self._young[key] = encoded
        self._bytes += len(encoded)
        if self._bytes > self._half:
            self._old, self._young, self._bytes = self._young, {}, 0
        return encoded


def _key(kind: str, session: str, frame: Frame) -> Hashable:
    what, cursor = frame.what, frame.cursor
    if not isinstance(what, Piece):
        return kind, session, cursor, what
    if what.item is not None:
        return None  # an item that opens is a dictionary, and rare
    return kind, session, cursor, what.turn, what.item_id, what.field, what.offset, what.delta
