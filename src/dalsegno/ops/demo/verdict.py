"""The verdict: figures computed from what a client saw, what the log says, and what the world outside was asked.

Pure: values in, values out. A figure that was not measured is a failure.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from dalsegno.client import ContractBroken, Event, Transcript

PROMISED_MS = 1000


class Sent(msgspec.Struct, frozen=True):
    """A message that was acknowledged: where, and what was said."""

    seq: int
    turn: str
    content: str


class Seen(msgspec.Struct):
    """What a client received of one turn, in order, and how long it heard nothing new after each kill."""

    sent: Sent
    events: list[Event] = []
    takeovers_ms: list[float] = []


class Verdict(msgspec.Struct, frozen=True):
    """The figures of the table."""

    kills: int
    takeovers_ms: tuple[float, ...]
    lost: int
    doubled: int
    missing: int
    gaps: int

    @property
    def in_time(self) -> bool:
        """Whether every kill was followed by a take-over, as soon as is promised for a process that dies."""
        return len(self.takeovers_ms) == self.kills and all(ms <= PROMISED_MS for ms in self.takeovers_ms)

    @property
    def holds(self) -> bool:
        """Whether everything that was promised was seen."""
        return self.in_time and self.lost == self.doubled == self.missing == self.gaps == 0


def judge(seen: Sequence[Seen], log: Sequence[Any], *, kills: int, bookings: int, wanted: int) -> Verdict:
    """Compare what was seen with the session's log (its export) and the number of bookings with those asked for."""
    return Verdict(
        kills=kills,
        takeovers_ms=tuple(ms for turn in seen for ms in turn.takeovers_ms),
        lost=sum(lost(turn.sent, log) for turn in seen),
        doubled=max(0, bookings - wanted),
        missing=max(0, wanted - bookings),
        gaps=sum(gaps(turn, log) for turn in seen),
    )


def lost(sent: Sent, log: Sequence[Any]) -> int:
    """1 unless the message stands in the log once, where the receipt said, and its turn was completed once."""
    said = [
        event["seq"]
        for event in _of(log, sent.turn, "turn.created")
        if event["data"]["input"]["content"] == sent.content
    ]
    completed = list(_of(log, sent.turn, "turn.completed"))
    return 0 if said == [sent.seq] and len(completed) == 1 else 1


def gaps(seen: Seen, log: Sequence[Any]) -> int:
    """How many of the turn's events were not seen once and in order, and how many texts were not seen whole."""
    wanted = [event["seq"] for event in log if event["turn"] == seen.sent.turn]
    got = [event.seq for event in seen.events if event.seq is not None]
    events = 0 if wanted == got else max(1, len(set(wanted) ^ set(got)))
    try:
        streamed = streamed_texts(seen.events)
    except ContractBroken:
        return events + 1
    done = {event["data"]["item"]["id"]: event["data"]["item"] for event in log if event["type"] == "item.done"}
    texts = sum(name in done and text != _text(done[name]) for name, text in streamed.items())
    return events + texts


def streamed_texts(events: Iterable[Event]) -> dict[str, str]:
    """What each item's deltas add up to; a delta that does not follow the one before it raises `ContractBroken`."""
    transcript, texts = Transcript(), dict[str, str]()
    for event in events:
        transcript.add(event)
        name = event.data.get("item_id")
        if event.type == "item.delta" and name is not None:
            texts[name] = transcript.texts[name]
        if event.type == "item.dropped":
            texts.pop(str(name), None)
    return texts


def _of(log: Sequence[Any], turn: str, kind: str) -> Iterable[Any]:
    return (event for event in log if event["turn"] == turn and event["type"] == kind)


def _text(item: Any) -> str:
    if item["type"] == "function_call":
        return str(item["arguments"])
    content = item.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)
