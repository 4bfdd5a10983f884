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

import random
import re
import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any, Literal, Self, TypeAlias, TypeVar
from urllib.parse import quote

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
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        limits = httpx2.Limits(max_connections=None, keepalive_expiry=4)  # servers close idle connections after 5 s
        self._http = httpx2.AsyncClient(headers=headers, limits=limits, timeout=timeout.total_seconds())
        self._fleet = _Fleet(self._http, [url] if isinstance(url, str) else url, retry or Retry())
        self.sessions = Sessions(self._fleet)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    def session(self, id: str) -> "SessionHandle":
        """The session of that id; nothing is asked yet."""
        return SessionHandle(self._fleet, id)


class _Fleet:
    """Replicas, any of which will do. `replica` counts on as one after the other fails."""

    def __init__(self, http: httpx2.AsyncClient, urls: Sequence[str], retry: Retry) -> None:
        self._http, self._urls, self.retry, self.replica = http, [url.rstrip("/") for url in urls], retry, 0

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        """The body of an answer. Asked for again only where that is harmless: not with a POST that has no key."""
        harmless = method != "POST" or "idempotency-key" in options.get("headers", {})
        failures, unsure = 0, False
        while True:
            tried = self.replica
            try:
                async with self.attempt(tried, method, path, **options) as answer:
                    return await answer.aread()
            except ClientError as error:
                failures, unsure = failures + 1, unsure or error.outcome == "unknown"
                error.outcome = "unknown" if unsure else "not_applied"
                error.passing = error.passing and (harmless or not unsure)
                await self.leave(tried, failures, error)

    async def pages(self, path: str, query: Json) -> AsyncGenerator[Json, None]:
        """The entries of a list, page by page."""
        page: Json = {"next": query.get("after", "")}
        while page["next"] is not None:
            page = _read(await self.request("GET", path, params={**query, "after": page["next"]}), Json)
            for entry in page["data"]:
                yield entry

    @asynccontextmanager
    async def attempt(self, replica: int, method: str, path: str, **options: Any) -> AsyncGenerator[httpx2.Response, None]:
        """Ask one replica once. What goes wrong until its answer is read is a `ClientError`."""
        url = f"{self._urls[replica % len(self._urls)]}/v1/{path}"
        request = self._http.build_request(method, url, **options)
        try:
            async with aclosing(await self._http.send(request, stream=True)) as answer:
                if not answer.is_success:
                    raise _refusal(answer, await answer.aread())
                yield answer
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise Unreachable(f"no connection to {url}: {error!r}", outcome="not_applied") from error
        except (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError) as error:
            raise Unreachable(f"no whole answer from {url}: {error!r}") from error

    async def leave(self, replica: int, failures: int, error: ClientError) -> None:
        """Pause, and let the next replica be asked. Raises `error` where that is pointless or was done often enough."""
        self.replica, retry = replica + 1, self.retry
        rounds, rest = divmod(failures, len(self._urls))
        asked = timedelta(0) if rest else error.retry_after  # that one replica is busy does not concern the others
        if not error.passing or rounds >= retry.rounds or asked > retry.longest:
            raise error
        bound = min(retry.longest, retry.base * 2 ** min(rounds, 20))
        await anyio.sleep((asked + bound * random.random()).total_seconds())


class Sessions:
    """All sessions of a tenant."""

    def __init__(self, fleet: _Fleet) -> None:
        self._fleet = fleet

    async def create(
        self, *, id: str | None = None, agent: str | None = None, user: str | None = None, metadata: Json | None = None
    ) -> "SessionHandle":
        """A new session. Unless you name it, it is named here: so asking for it twice cannot make two."""
        body = _given(id=id or _uuid7(), agent=agent, user=user, metadata=metadata)
        try:
            await self._fleet.request("POST", "sessions", json=body, headers={"idempotency-key": body["id"]})
        except ApiError as error:
            if error.status != 409 or error.outcome != "unknown":  # else an attempt whose answer was lost made it
                raise
        return SessionHandle(self._fleet, body["id"])

    def list(
        self, *, status: str | None = None, user: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Json, None]:
        """The sessions that match, in order of id; asks for a page at a time."""
        wanted = {f"metadata.{name}": value for name, value in (metadata or {}).items()}
        return self._fleet.pages("sessions", _given(status=status, user=user, **wanted))

    async def import_(self, ndjson: bytes) -> "SessionHandle":
        """The session that was exported. `Unreachable` with outcome `unknown`: look whether it is there."""
        headers = {"content-type": "application/x-ndjson"}
        made = _read(await self._fleet.request("POST", "sessions", content=ndjson, headers=headers), Json)
        return SessionHandle(self._fleet, made["id"])


class SessionHandle:
    """One session. Each input has an idempotency key: however often it is sent, it is said once."""

    def __init__(self, fleet: _Fleet, id: str) -> None:
        self.id, self._fleet, self._path = id, fleet, f"sessions/{quote(id, safe='')}"

    async def get(self) -> Json:
        """The session as it is now."""
        return _read(await self._fleet.request("GET", self._path), Json)

    async def update(self, metadata: Json, *, if_head: int | None = None) -> Json:
        """Set the metadata; with `if_head` only while that is the head, else `ApiError` 412."""
        headers = {} if if_head is None else {"if-match": f'"{if_head}"'}
        return _read(await self._fleet.request("PATCH", self._path, json={"metadata": metadata}, headers=headers), Json)

    async def delete(self) -> None:
        """Delete the session and everything that belongs to it."""
        try:
            await self._fleet.request("DELETE", self._path)
        except ApiError as error:
            if error.status != 404 or error.outcome != "unknown":  # else an attempt whose answer was lost did it
                raise

    async def fork(self, *, at: int | None = None) -> "SessionHandle":
        """A new session with this one's history up to event `at`. After outcome `unknown` there may be one more."""
        made = _read(await self._fleet.request("POST", f"{self._path}/fork", json=_given(at=at)), Json)
        return SessionHandle(self._fleet, made["id"])

    def items(self) -> AsyncGenerator[Json, None]:
        """The conversation, item by item; asks for a page at a time."""
        return self._fleet.pages(f"{self._path}/items", {})

    async def turn(self, id: str, *, wait: timedelta = timedelta(0)) -> Json:
        """The turn when it has ended, or as it is after `wait`."""
        path, timeout = f"{self._path}/turns/{quote(id, safe='')}", wait + timedelta(seconds=30)
        options = {"params": {"wait": int(wait.total_seconds())}, "timeout": timeout.total_seconds()}
        return _read(await self._fleet.request("GET", path, **options), Json)

    async def export(self) -> bytes:
        """The whole log, as `Sessions.import_` takes it."""
        return await self._fleet.request("GET", f"{self._path}/events", headers={"accept": "application/x-ndjson"})

    async def send(self, content: str | list[Json], *, on_busy: OnBusy = "queue", key: str | None = None) -> Receipt:
        """Say a text, or items. Choose the `key` yourself to be able to repeat it after this process has died."""
        said = {"content": content} if isinstance(content, str) else {"items": content}
        return await self._say(key, type="message", on_busy=on_busy, **said)

    async def approve(self, call_id: str, *, reason: str | None = None) -> Receipt:
        """Let a tool call happen that waits for it."""
        return await self._say(type="approval", call_id=call_id, decision="approve", reason=reason)

    async def deny(self, call_id: str, *, reason: str | None = None) -> Receipt:
        """Keep a tool call from happening that waits for approval."""
        return await self._say(type="approval", call_id=call_id, decision="deny", reason=reason)

    async def tool_result(self, call_id: str, *, output: str | None = None, error: str | None = None) -> Receipt:
        """Answer a tool call that is the client's to make: with its output or with its error."""
        return await self._say(type="tool_result", call_id=call_id, output=output, error=error)

    async def cancel(self, *, turn: str | None = None) -> Receipt:
        """Stop that turn, or the oldest one that is open."""
        return await self._say(type="cancel", turn=turn)

    async def _say(self, key: str | None = None, **said: Any) -> Receipt:
        key = key or str(uuid.uuid4())
        headers = {"idempotency-key": key}
        try:
            answer = await self._fleet.request("POST", f"{self._path}/inputs", json=_given(**said), headers=headers)
        except ClientError as error:
            error.key = key
            raise
        return msgspec.structs.replace(_read(answer, Receipt), key=key)

    async def stream(self, *, after: str | int | None = None, turn: str | None = None) -> AsyncGenerator[Event, None]:
        """Every event after a cursor (or from the first `anext` on), once and in order, whatever breaks on the way.

        Ends after `turn`'s terminal event or `session.deleted`, else never: leave it with `contextlib.aclosing`.
        """
        after = (await self.get())["head"] if after is None else after
        place, failures, query, headers = _place(str(after)), 0, _given(after=after, turn=turn), dict[str, str]()
        while True:
            tried = self._fleet.replica
            try:
                async with aclosing(self._listen(tried, query, headers)) as events:
                    async for event in events:
                        failures = 0
                        if event is not None:
                            place, headers["last-event-id"] = _follow(event, place, turn), event.id
                            yield event
                        if event is not None and event.type == "session.deleted" or event.type in TERMINAL and event.turn==turn: return
                return
            except ClientError as error:
                failures += 1
                await self._fleet.leave(tried, failures, error)

    async def _listen(self, replica: int, query: Json, headers: Json) -> AsyncGenerator[Event | None, None]:
        """What one replica streams, and None for signs of life when it has gone well for a while."""
