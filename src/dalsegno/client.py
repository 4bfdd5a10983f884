"""The Python client: sessions and their streams over HTTP, on any replica. Knows the contract, nothing of the server.

    async with Client(["http://a:8000", "http://b:8000"], api_key="...") as client:
        session = await client.sessions.create()
        async for event in session.run("hi"):
            print(event.type, event.data)

JSON objects are those of the API reference. What may pass is tried again, on the next replica (`Retry`). What is raised:

    DalsegnoError
    └── ClientError           `outcome`: was anything applied; `key`: repeat an input under it, and nothing is doubled
        ├── ApiError          the server refused: change the request (4xx) or come back later (429, 5xx)
        ├── Unreachable       no replica answered, or the answer was lost: come back later
        ├── ContractBroken    an answer makes no sense, a stream has a gap or a repetition: report it
        └── TurnNotCompleted  `ask` only: the turn failed, was cancelled or waits for somebody: see `event`
"""

import json
import random
import re
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any, Literal, Self, TypeAlias, TypeVar

import anyio
import msgspec

from dalsegno.errors import DalsegnoError, Outcome

try:
    import httpx2
except ModuleNotFoundError as missing:
    raise ImportError("the client needs httpx2: pip install 'dalsegno[client]'") from missing

T = TypeVar("T")
Json: TypeAlias = dict[str, Any]
OnBusy: TypeAlias = Literal["queue", "reject", "interrupt", "rollback", "steer"]
TERMINAL = frozenset({"turn.completed", "turn.failed", "turn.cancelled"})


class ClientError(DalsegnoError):
    """What this module raises. `passing`: the same request may do better later."""

    passing, key, retry_after = False, "", timedelta(0)

    def __init__(self, detail: str, *, outcome: Outcome = "unknown") -> None:
        super().__init__(detail)
        self.outcome = outcome


class ApiError(ClientError):
    """The server refused. `code` is a documented one, or `http_<status>` from something in between."""

    def __init__(self, status: int, code: str, detail: str, outcome: Outcome) -> None:
        super().__init__(f"{status} {code}: {detail}", outcome=outcome)
        self.status, self.code, self.detail, self.passing = status, code, detail, status == 429 or status >= 500


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


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Every replica is asked `rounds` times; pauses are random up to `base` at first, up to `longest` at last.

    A `Retry-After` beyond `longest` is raised. A stream silent for `idle` is dead: the server's never are for over 15 s.
    """

    rounds: int = 10
    base: timedelta = timedelta(milliseconds=200)
    longest: timedelta = timedelta(seconds=5)
    idle: timedelta = timedelta(seconds=40)


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
            left = event.type in (*TERMINAL, "turn.waiting") or data.get("carried") == 0
            for gone in [name for name, turn in self._open.items() if name == item or (left and turn == event.turn)]:
                del self._open[gone], self.texts[gone]


def text_of(item: Json) -> str:
    """What an item's deltas add up to: a call's arguments, the text of anything else."""
    content = item.get("arguments") if item.get("type") == "function_call" else item.get("content")
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content or ())


class Client:
    """A fleet, by the URL of its load balancer or those of its replicas. `timeout` is for one answer of one replica."""

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        api_key: str | None = None,
        timeout: timedelta = timedelta(seconds=30),
        retry: Retry | None = None,
    ) -> None:
        self.sessions, self.retry, self._seconds, self._next = Sessions(self), retry or Retry(), timeout.total_seconds(), 0
        self._urls = [each.rstrip("/") for each in ([url] if isinstance(url, str) else url)]
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        limits = httpx2.Limits(max_connections=None, keepalive_expiry=4)  # servers close idle connections after 5 s
        self._http = httpx2.AsyncClient(headers=headers, limits=limits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    def session(self, id: str) -> "SessionHandle":
        """The session of that id; nothing is asked yet."""
        return SessionHandle(self, id)

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        """The body of a replica's answer. Asked again only where that is harmless: not for a POST without a key."""
        harmless = method != "POST" or "idempotency-key" in options.get("headers", {})
        failures, unsure = 0, False
        while True:
            try:
                async with self.attempt(method, path, **options) as answer:
                    return await answer.aread()
            except ClientError as error:
                failures, unsure = failures + 1, unsure or error.outcome == "unknown"
                error.outcome = "unknown" if unsure else "not_applied"
                error.passing = error.passing and (harmless or not unsure)
                await self.pause(failures, error)

    async def pages(self, path: str, query: Json) -> AsyncGenerator[Json]:
        """The entries of every page."""
        while True:
            page = _read(await self.request("GET", path, params=query), Json)
            for entry in page["data"]:
                yield entry
            if (after := page.get("next")) is None:
                return
            query = {**query, "after": after}

    @asynccontextmanager
    async def attempt(self, method: str, path: str, **options: Any) -> AsyncGenerator[httpx2.Response]:
        """Ask one replica once. Whatever goes wrong until its answer is read is a `ClientError`, and the next one's turn."""
        tried, seconds = self._next, options.pop("seconds", self._seconds)
        url = f"{self._urls[tried % len(self._urls)]}/v1/{path}"
        timeout = httpx2.Timeout(seconds, connect=min(self._seconds, 5))
        request = self._http.build_request(method, url, timeout=timeout, **options)
        try:
            async with aclosing(await self._http.send(request, stream=True)) as answer:
                if not answer.is_success:
                    raise _refusal(answer, await answer.aread())
                yield answer
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            self._next = tried + 1
            raise Unreachable(f"no connection to {url}: {error!r}", outcome="not_applied") from error
        except (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError) as error:
            raise Unreachable(f"no whole answer from {url}: {error!r}") from error
