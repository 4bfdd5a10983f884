"""A stretch: items that were brought in from outside, and no turn made, as they follow each other without a break.

To the context it is what a turn is: it begins with a message of the user, goes on through calls and their results, and
gives way as a whole when the context becomes too long. The session's row knows which of its calls wait for a result, so
a result that answers nothing can be refused without a look at the log. Knows no session and no other turn.
"""

import msgspec

from dalsegno.core.event import ItemDone
from dalsegno.core.item import CALL, MESSAGE, OUTPUT, OWN_PREFIX
from dalsegno.core.json import JsonObject
from dalsegno.errors import Unreadable

WAITING_MAX = 128
"""Calls of a stretch without a result, at one time."""


class Stretch(msgspec.Struct, frozen=True, omit_defaults=True):
    """The stretch that began at event `first`, and its calls without a result."""

    first: int
    waiting: tuple[str, ...] = ()


def since(stretch: Stretch | None, item: JsonObject, *, seq: int) -> int | None:
    """Where the stretch of an item that becomes event `seq` began; None for one that is shown to no model."""
    kind = str(item["type"])
    if kind.startswith(OWN_PREFIX):
        return None
    begins = kind == MESSAGE and item.get("role") == "user"
    if stretch is None or (begins and not stretch.waiting):
        return seq
    return stretch.first


def misfit(stretch: Stretch | None, item: JsonObject) -> str:
    """Why the item cannot stand where the stretch ends; empty if it can."""
    waiting = () if stretch is None else stretch.waiting
    call_id = item.get("call_id")
    match item["type"]:
        case "function_call_output" if call_id not in waiting:
            return "answers no call that waits"
        case "function_call" if call_id in waiting:
            return "repeats the call_id of a call that waits"
        case "function_call" if len(waiting) >= WAITING_MAX:
            return f"is one more than {WAITING_MAX} calls without a result"
        case _:
            return ""


def joined(stretch: Stretch | None, data: ItemDone, *, seq: int) -> Stretch | None:
    """The stretch with one more item. Raises `Unreadable` for one that cannot stand there."""
    item = data.item
    if data.since != since(stretch, item, seq=seq):
        raise Unreadable(f"event {seq}: an item of the stretch that began at {data.since} cannot stand here")
    if data.since is None:
        return stretch
    if why := misfit(stretch, item):
        raise Unreadable(f"event {seq}: the item {why}")
    waiting = stretch.waiting if stretch is not None and stretch.first == data.since else ()
    if item["type"] == CALL:
        waiting = (*waiting, str(item["call_id"]))
    elif item["type"] == OUTPUT:
        waiting = tuple(call_id for call_id in waiting if call_id != item["call_id"])
    return Stretch(data.since, waiting)


def without(removed: tuple[tuple[int, int], ...], *, after: int, seq: int) -> tuple[tuple[int, int], ...]:
    """What is removed once event `seq` removed all that came after event `after`: from which event to which. Parts that
    touch are one, so a conversation whose last item is replaced again and again has few.
    """
    kept = tuple((first, last) for first, last in removed if first <= after)
    if kept and kept[-1][1] >= after:
        return (*kept[:-1], (kept[-1][0], seq))
    return (*kept, (after + 1, seq))
