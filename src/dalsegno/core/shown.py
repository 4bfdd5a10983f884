"""What is shown of one turn, or of one stretch of brought-in items, and in which order. Works on the bytes of items.

Items follow the log, except that what came between a call and its result, and is neither, comes after the result; and
a message that joined while a model was answering comes after the answer, which knew nothing of it.
"""

import msgspec

from dalsegno.core import json
from dalsegno.core.event import Event
from dalsegno.core.ids import item_id, short_hash, turn_id
from dalsegno.core.item import CALL, CONVERSATION, MESSAGE, OUTPUT, output
from dalsegno.errors import Unreadable


class Head(msgspec.Struct):
    """As much of an item as its place depends on. A client's items may hold anything under these names."""

    type: str
    status: object = ""
    call_id: object = ""


class Done(msgspec.Struct):
    """As much of an `item.done` as its place depends on."""

    item: msgspec.Raw
    step: str | None = None
    since: int | None = None
    through: int | None = None


_head = msgspec.json.Decoder(Head).decode
_done = msgspec.json.Decoder(Done).decode


class Shown(msgspec.Struct):
    """A turn's items, or a stretch's, in the order they are shown. `waiting` are the calls of `step` that have no
    result yet, `held` is what came meanwhile: it is shown after their results. `joined` are messages, each with the
    number of its event, that came when the turn had begun: they are shown last until a model has been shown them.
    """

    items: list[bytes] = []
    step: str | None = None
    waiting: dict[str, None] = {}
    held: list[tuple[bytes, str | None]] = []
    joined: list[tuple[int, bytes]] = []
    asked: str | None = None
    """The model's step whose items came last."""
    partial: list[bytes] = []
    started: bool = False
    outside: bool = False
    weight: int = 0


def parsed(event: Event) -> tuple[Done, Head]:
    """What an `item.done` holds. Raises `Unreadable`."""
    try:
        done = _done(event.data)
        return done, _head(done.item)
    except msgspec.MsgspecError as error:
        raise Unreadable(f"event {event.seq} (item.done) cannot be understood: {error}") from error


def note(turn: Shown, event: Event) -> None:
    """Take an item that the turn made into account."""
    done, head = parsed(event)
    item = bytes(done.item)
    if head.type not in CONVERSATION:
        return
    if head.status == "incomplete" and head.type != OUTPUT:
        # a piece of an answer that was cut off: shown if nothing took its place, and only if it is text
        if head.type == MESSAGE:
            turn.partial.append(item)
        return
    turn.partial = []
    _meet(turn, done, head)
    place(turn, item, done.step, head)


def _meet(turn: Shown, done: Done, head: Head) -> None:
    """The messages that whoever said this was shown stand before it; all of them, if no model said it."""
    if done.through is not None:
        turn.asked, known = done.step, done.through
    elif head.type == OUTPUT or done.step == turn.asked:
        return
    else:
        known = None
    while turn.joined and (known is None or turn.joined[0][0] <= known):
        place(turn, turn.joined.pop(0)[1], None)


def place(turn: Shown, item: bytes, step: str | None, head: Head | None = None) -> None:
    """Put an item behind the others, or hold it until the calls before it have their results."""
    head = head or _head(item)
    if turn.waiting and not _fits(turn, head, step):
        turn.held.append((item, step))
        return
    turn.items.append(item)
    if head.type == CALL:
        turn.waiting[str(head.call_id)], turn.step = None, step
    elif head.type == OUTPUT:
        turn.waiting.pop(str(head.call_id), None)
        if not turn.waiting:
            held, turn.held = turn.held, []
            for later in held:
                place(turn, *later)


def _fits(turn: Shown, head: Head, step: str | None) -> bool:
    """Whether an item may stand between calls and their results: as one of either."""
    if head.type == OUTPUT:
        return head.call_id in turn.waiting
    if turn.outside:
        # no step says which calls were asked for together: those that come before the first result were
        return head.type != MESSAGE and _head(turn.items[-1]).type != OUTPUT
    return head.type == CALL and step is not None and step == turn.step


def shown(turn: Shown, missing: str, name: tuple[str, int]) -> list[bytes]:
    """All that a model is shown of a turn; calls without a result have `missing` as theirs."""
    items = list(turn.items)
    for call_id in turn.waiting:
        made = item_id(turn_id(*name), OUTPUT, f"0_{short_hash(call_id)[:8]}")
        items.append(json.dumps(output(call_id, missing, item_id=made, status="incomplete")))
    if turn.held:
        rest = Shown(outside=turn.outside)
        for later in turn.held:
            place(rest, *later)
        items += shown(rest, missing, name)
    return items + turn.partial + [item for _, item in turn.joined]
