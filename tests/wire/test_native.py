"""The native protocol's bytes, golden: what a client of today reads tomorrow."""

from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core.admit import Receipt
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import Action, Event, Origin, TurnError
from dalsegno.core.ids import turn_id
from dalsegno.core.json import loads_strict
from dalsegno.core.session import Session
from dalsegno.core.stream import Dropped, Frame, Piece
from dalsegno.core.turn import OpenTurn, Turn
from dalsegno.wire import native

S = "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b"
T = turn_id(S, 2)
AT = 1_795_000_000_007


def sse(frame: Frame) -> str:
    return native.sse_frame(S, frame, now=AT).decode()


def test_times_have_milliseconds_and_a_z():
    """Also before the year 2001 and with a round number of seconds."""
    assert native.time_text(AT) == "2026-11-18T11:06:40.007Z"
    assert native.time_text(0) == "1970-01-01T00:00:00.000Z"


def test_a_durable_event():
    """The log's bytes of `data` stand in the frame as they are, whatever their spelling."""
    event = Event(18, "turn.created", 2, AT, b'{"input": {"content":"\\u00e9"}}')
    assert sse(Frame(Cursor(18, 251), event)) == (
        "id: 18.251\nevent: turn.created\n"
        f'data: {{"seq":18,"type":"turn.created","turn":"{T}","at":"2026-11-18T11:06:40.007Z",'
        '"data":{"input": {"content":"\\u00e9"}}}\n\n'
    )


def test_an_item_that_opens():
    """No `seq`: it is not in the log."""
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
    piece = Piece(3, 0, 2, "msg_1", item=item)  # type: ignore[arg-type]
    assert sse(Frame(Cursor(3, 1), piece)) == (
        "id: 3.1\nevent: item.added\n"
        f'data: {{"type":"item.added","turn":"{T}","at":"2026-11-18T11:06:40.007Z","data":{{"item":'
        '{"type":"message","id":"msg_1","role":"assistant","status":"in_progress","content":[]}}}\n\n'
    )


def test_a_delta():
    """`at` counts the code points of the item before it."""
    piece = Piece(3, 5, 2, "msg_1", field="text", offset=4, delta="\n\n👋")
    assert sse(Frame(Cursor(3, 8), piece)) == (
        "id: 3.8\nevent: item.delta\n"
        f'data: {{"type":"item.delta","turn":"{T}","at":"2026-11-18T11:06:40.007Z","data":'
        '{"item_id":"msg_1","field":"text","at":4,"delta":"\\n\\n👋"}}\n\n'
    )


def test_a_dropped_item():
    """Forget what you have of it."""
    assert sse(Frame(Cursor(9), Dropped(2, "msg_1", "lost"))) == (
        "id: 9\nevent: item.dropped\n"
        f'data: {{"type":"item.dropped","turn":"{T}","at":"2026-11-18T11:06:40.007Z","data":'
        '{"item_id":"msg_1","reason":"lost"}}\n\n'
    )


def test_a_websocket_message_is_the_event_with_its_cursor():
    """`id` and then the same bytes."""
    event = Event(1, "session.created", None, AT, b"{}")
    assert native.socket_frame(S, Frame(Cursor(1), event), now=AT) == (
        b'{"id":"1","seq":1,"type":"session.created","turn":null,"at":"2026-11-18T11:06:40.007Z","data":{}}'
    )


def test_a_session():
    """Every field, always; nothing of tenant, lease or deletion."""
    session = Session(
        id=S, tenant="t", parent=Origin(S, 4), head=9, epoch=3, owner="r1", open=(OpenTurn(2, "waiting"), OpenTurn(8))
    )
    assert loads_strict(native.session_bytes(session)) == {
        "id": S,
        "status": "waiting",
        "head": 9,
        "turn": T,
        "queued": 1,
        "agent": "default",
        "user": None,
        "metadata": {},
        "parent": {"session": S, "seq": 4},
        "created_at": "1970-01-01T00:00:00.000Z",
        "updated_at": "1970-01-01T00:00:00.000Z",
    }


def test_a_turn():
    """Every field, always, also those with defaults."""
    turn = Turn(T, S, "failed", 2, 2, 9, (Action("approval", "c", "f"),), ({"type": "x"},), None, TurnError("a", "b"))
    assert loads_strict(native.turn_bytes(turn)) == {
        "id": T,
        "session": S,
        "status": "failed",
        "attempt": 2,
        "first_seq": 2,
        "last_seq": 9,
        "actions": [
            {
                "type": "approval",
                "call_id": "c",
                "name": "f",
                "arguments": "{}",
                "reason": None,
                "expires_at": None,
                "decided": "",
            }
        ],
        "output": [{"type": "x"}],
        "usage": None,
        "error": {"code": "a", "message": "b"},
    }


def test_a_receipt_and_where_it_points():
    """The stream begins with the event that the receipt is for."""
    receipt = Receipt(S, 2, 17, "steered", replayed=True)
    assert native.receipt_bytes(receipt) == (
        f'{{"session":"{S}","turn":"{T}","seq":17,"status":"steered","replayed":true}}'.encode()
    )
    assert native.location_of(receipt) == f"/v1/sessions/{S}/events?turn={T}&after=16"


@given(st.text(), st.integers(0, 9999), st.integers(0, 9999))
def test_no_text_can_forge_a_frame(text: str, seq: int, offset: int):
    """A frame has three lines and a blank one, whatever is said in it."""
    piece = Piece(3, 5, 2, "msg_1", field="text", offset=4, delta=text)
    frame = native.sse_frame(S, Frame(Cursor(seq, offset), piece), now=AT)
    assert frame.endswith(b"\n\n") and frame.count(b"\n") == 4 and b"\r" not in frame


def test_subscribers_share_a_frame():
    """The second one gets the very bytes that the first one got."""
    frames = native.Frames()
    event = Event(18, "item.done", 2, AT, b"{}")
    piece = Piece(3, 5, 2, "msg_1", field="text", offset=4, delta="x")
    for what in (event, piece, Dropped(2, "m", "lost")):
        frame, again = Frame(Cursor(18), what), Frame(Cursor(18), what)
        assert frames.sse(S, frame, now=AT) is frames.sse(S, again, now=AT + 5)
        assert frames.sse(S, frame, now=AT) != frames.socket(S, frame, now=AT)


def test_what_differs_is_never_shared():
    """Not by cursor, session, content or kind: two tenants may use one session id."""
    frames = native.Frames()
    events = [Event(18, "item.done", 2, AT, b"{}"), Event(18, "item.done", 2, AT, b'{"a":1}')]
    made = [
        frames.sse(session, Frame(cursor, event), now=AT)
        for session in (S, S.replace("0198", "0199"))
        for cursor in (Cursor(18), Cursor(18, 1))
        for event in events
    ]
    assert len(set(made)) == len(made)


def test_frames_are_bounded():
    """The oldest are forgotten, what was just made never is; huge ones are not kept at all."""
    frames = native.Frames(bytes_max=1000)
    first = Frame(Cursor(1), Event(1, "x", None, AT, b"{}"))
    kept = frames.sse(S, first, now=AT)
    for seq in range(2, 20):
        frame = Frame(Cursor(seq), Event(seq, "x", None, AT, b"{}"))
        assert frames.sse(S, frame, now=AT) is frames.sse(S, frame, now=AT)
    assert frames.sse(S, first, now=AT) is not kept
    huge = Frame(Cursor(99), Event(99, "x", None, AT, b'"' + b"x" * 100_000 + b'"'))
    assert native.Frames().sse(S, huge, now=AT) == native.sse_frame(S, huge, now=AT)
