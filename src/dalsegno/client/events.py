"""What the client makes of bytes: events, their order, the text they add up to, and what can be wrong. No I/O."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from http.client import responses
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from dalsegno.errors import DalsegnoError, Outcome

T = TypeVar("T")
Json: TypeAlias = dict[str, Any]
OnBusy: TypeAlias = Literal["queue", "reject", "interrupt", "rollback", "steer"]
TERMINAL = frozenset({"turn.completed", "turn.failed", "turn.cancelled"})


class ClientError(DalsegnoError):
    """What this module raises. `passing`: it may do better later; `everywhere`: another replica would say the same."""

    passing, everywhere, key, retry_after = False, False, "", timedelta(0)

    def __init__(self, detail: str, *, outcome: Outcome = "unknown") -> None:
        super().__init__(detail)
        self.outcome = outcome


class ApiError(ClientError):
    """The server refused. `code` is a documented one, or `http_<status>` from something in between."""

    def __init__(self, status: int, code: str, detail: str, outcome: Outcome) -> None:
        super().__init__(f"{status} {code}: {detail}", outcome=outcome)
        self.status, self.code, self.detail = status, code, detail
        self.passing, self.everywhere = status == 429 or status >= 500, status == 429


class Unreachable(ClientError):
    """No replica could be connected to (`not_applied`), or its answer got lost (`unknown`)."""

    passing = True


class ContractBroken(ClientError):
    """Never skipped over: a history with a hole is not a history."""


class TurnNotCompleted(ClientError):
    """`event` says how the turn ended, or what it waits for. Once answered a waiting turn goes on: `stream` it."""

    def __init__(self, event: "Event") -> None:
        super().__init__(f"{event.type} {event.turn}: {event.data}")
        self.event = event


class Receipt(msgspec.Struct, frozen=True):
    """The input is in the log as event `seq`. The same `key` and input again give the same receipt."""

    session: str
    turn: str
    seq: int
    status: Literal["queued", "running", "steered", "done"]
    replayed: bool = False
    key: str = ""


class Event(msgspec.Struct, frozen=True):
    """One event of a stream; `id` is the cursor to go on from. Without `seq` it tells of an unfinished item."""

    type: str
    turn: str | None = None
    at: str = ""
    data: Json = {}
    seq: int | None = None
    id: str = ""


class SseParser:
    """Server-sent events, as (id, data), from bytes split anywhere. What has no end yet is no event."""

    def __init__(self) -> None:
        self._id, self._data, self._line, self._after_cr = "", list[bytes](), bytearray(), False

    def feed(self, chunk: bytes) -> Iterator[tuple[str, bytes]]:
        """The events that these bytes complete."""
        text = chunk[1:] if self._after_cr and chunk.startswith(b"\n") else chunk
        self._after_cr = chunk.endswith(b"\r") or (self._after_cr and not chunk)
        *ends, rest = re.split(rb"\r\n?|\n", text)
        for end in ends:
            name, colon, value = bytes(self._line + end).partition(b":")
            self._line.clear()
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
            elif name == b"id" and b"\0" not in value:
                self._id = value.removeprefix(b" ").decode(errors="replace")
            elif not name and not colon and self._data:
                yield self._id, b"\n".join(self._data)
                self._data.clear()
        self._line += rest


class Transcript:
    """`texts`: what each item of a session says so far, by its id. Raises `ContractBroken` at a gap or a repetition."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self._open: dict[str, str | None] = {}  # and whose turn it is

    def add(self, event: Event) -> None:
        """Take the stream's next event. An `item.done` counts more than all that was streamed of the item."""
        data, body = event.data, event.data.get("item") or {}
        item = str(body.get("id") or data.get("item_id"))
        if event.type == "item.added" and item not in self.texts:
            self.texts[item], self._open[item] = "", event.turn
        elif event.type == "item.delta" and item in self._open and data["at"] == len(self.texts[item]):
            self.texts[item] += data["delta"]
        elif event.type in ("item.added", "item.delta"):
            raise ContractBroken(f"{event} does not follow {self.texts.get(item)!r}")
        elif event.type == "item.done":
            self.texts[item] = text_of(body)
            self._open.pop(item, None)
        else:  # dropped, or left behind by an attempt that ended
            starts_over = event.type == "turn.started" and "." not in event.id
            left = starts_over or event.type in (*TERMINAL, "turn.waiting")
            for gone in [name for name, turn in self._open.items() if name == item or (left and turn == event.turn)]:
                del self._open[gone], self.texts[gone]


def text_of(item: Json) -> str:
    """What an item's deltas add up to: a call's arguments, the text of anything else."""
    content = item.get("arguments") if item.get("type") == "function_call" else item.get("content")
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content or ())


def place_of(cursor: str) -> tuple[int, int]:
    seq, _, offset = cursor.partition(".")
    return int(seq), int(offset or 0)


def follow(event: Event, place: tuple[int, int], turn: str | None) -> tuple[int, int]:
    """Where a stream stands after the event. Raises `ContractBroken` if it came before, or one before it did not."""
    try:
        there = place_of(event.id)
    except ValueError as error:
        raise ContractBroken(f"{event} has no cursor for an id") from error
    new = there > place or (there == place and event.type == "item.dropped")  # the one that leaves the cursor alone
    numbered = event.seq in (None, there[0]) and (turn is not None or there[0] - place[0] == (event.seq is not None))
    if not new or not numbered:
        raise ContractBroken(f"{event} cannot come after {place}")
    return there


def read(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ContractBroken(f"not {kind}: {error}: {body[:200]!r}") from error


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Every replica is asked `rounds` times; pauses are random up to `base` at first, up to `longest` at last.

    A `Retry-After` beyond `longest` is raised at once. Replicas that are busy, or cannot reach their store, ask for one
    second: with less patience than that there is none. A stream silent for `idle` is dead: live ones speak every 15 s.
    """

    rounds: int = 10
    base: timedelta = timedelta(milliseconds=200)
    longest: timedelta = timedelta(seconds=5)
    idle: timedelta = timedelta(seconds=40)


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """What an answer that is no success says; an answer from something in between says less."""
    try:
        problem = msgspec.json.decode(body, type=Json)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = {}
    wait, phrase = headers.get("retry-after", ""), responses.get(status, "")
    code, detail = problem.get("code", f"http_{status}"), problem.get("detail", phrase)
    outcome = problem.get("outcome", "unknown" if status >= 500 else "not_applied")
    error = ApiError(status, code, detail, "not_applied" if outcome == "not_applied" else "unknown")
    error.passing = error.passing and headers.get("x-should-retry") != "false"
    error.retry_after = timedelta(seconds=int(wait)) if re.fullmatch("[0-9]{1,6}", wait) else timedelta(0)
    return error
