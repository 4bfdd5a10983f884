"""The Python client: sessions and their streams over HTTP, on any replica. Knows the contract, nothing of the server.

    async with Client(["http://a:8000", "http://b:8000"], api_key="...") as client:
        session = await client.sessions.create()
        async for event in session.run("hi"):
            print(event.type, event.data)

Objects are as the API's reference shows them. What may pass is tried again within `Retry`, on the next replica; raised is:

    DalsegnoError
    └── ClientError           `outcome`: whether anything was applied; `key`: repeat an input under it, nothing is doubled
        ├── ApiError          the server refused: change the request (4xx), come back later (429, 5xx)
        ├── Unreachable       no replica answered, or its answer was lost: come back later
        ├── ContractBroken    an answer makes no sense, a stream has a gap or a repetition: report it
        └── TurnNotCompleted  `ask` only: the turn failed, was cancelled or waits for somebody; look at its `event`
"""

import json
import random
import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
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
JsonObject: TypeAlias = dict[str, Any]
OnBusy: TypeAlias = Literal["queue", "reject", "interrupt", "rollback", "steer"]
TERMINAL = frozenset({"turn.completed", "turn.failed", "turn.cancelled"})
MAX_EVENT_BYTES = 64 * 2**20


class ClientError(DalsegnoError):
    """Base of what this module raises. `passing`: the same request may do better later."""

    passing = False

    def __init__(self, detail: str, *, outcome: Outcome = "unknown") -> None:
        super().__init__(detail)
        self.detail, self.outcome, self.key, self.retry_after = detail, outcome, "", timedelta(0)


class ApiError(ClientError):
    """The server refused. `code` is a documented one, or `http_<status>` from something in between."""

    def __init__(self, status: int, code: str, detail: str, outcome: Outcome) -> None:
        super().__init__(f"{status} {code}: {detail}", outcome=outcome)
        self.status, self.code, self.detail, self.passing = status, code, detail, status == 429 or status >= 500


class Unreachable(ClientError):
    """No replica could be connected to (`not_applied`), or the answer was lost on its way (`unknown`)."""

    passing = True


class ContractBroken(ClientError):
    """Never skipped over: a history with a hole is not a history."""


class TurnNotCompleted(ClientError):
    """`event` is the turn's failed, cancelled or waiting. A waiting turn goes on, and can be streamed, once answered."""

    def __init__(self, event: "Event") -> None:
        super().__init__(f"{event.type} {event.turn}: {event.data}")
        self.event = event


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often every replica is asked before giving up; pauses are random, up to `base` at first, `longest` at last.

    A `Retry-After` is waited out up to `patience`. A stream that says nothing for `idle` is taken for dead.
    """

    rounds: int = 10
    base: timedelta = timedelta(milliseconds=200)
    longest: timedelta = timedelta(seconds=5)
    patience: timedelta = timedelta(seconds=30)
    idle: timedelta = timedelta(seconds=40)


class Receipt(msgspec.Struct, frozen=True):
    """The input is event `seq` of the log. `key` is what it was sent under: repeated, it gives this receipt again."""

    session: str
    turn: str
    seq: int
    status: Literal["queued", "running", "steered", "done"]
    replayed: bool = False
    key: str = ""


class Event(msgspec.Struct, frozen=True):
    """One event of a stream; `id` is the cursor to go on from. Without `seq` it is a piece of an unfinished item."""

    type: str
    turn: str | None = None
    at: str = ""
    data: JsonObject = {}
    seq: int | None = None
    id: str = ""


class SseParser:
    """Server-sent events, as (id, data), from bytes split anywhere. What has not ended is no event."""

    def __init__(self) -> None:
        self._id, self._data, self._line, self._after = "", list[bytes](), bytearray(), b""

    def feed(self, chunk: bytes) -> Iterator[tuple[str, bytes]]:
        """The events that these bytes complete."""
        for piece in chunk.splitlines(keepends=True):  # bytes end lines at \n, \r and \r\n only
            if piece != b"\n" or self._after != b"\r":
                self._line += piece
                if piece.endswith((b"\n", b"\r")):
                    yield from self._take(bytes(self._line).rstrip(b"\r\n"))
                    self._line.clear()
            self._after = piece[-1:]
        if len(self._line) + sum(map(len, self._data)) > MAX_EVENT_BYTES:
            raise ContractBroken(f"an event of more than {MAX_EVENT_BYTES} bytes")

    def _take(self, line: bytes) -> Iterator[tuple[str, bytes]]:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        elif not line and self._data:
            yield self._id, b"\n".join(self._data)
            self._data.clear()


class Transcript:
    """`texts`: what every item of one session says so far, by its id. Raises `ContractBroken` at a gap or a repetition."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self._open: dict[str, str | None] = {}

    def add(self, event: Event) -> None:
        """Take the stream's next event. What `item.done` says replaces what was streamed."""
        data = event.data
        item = str(data["item"]["id"] if "item" in data else data.get("item_id"))
        if event.type == "item.added":
            if item in self.texts:
                raise ContractBroken(f"{event.id}: {item} is added a second time")
            self.texts[item], self._open[item] = "", event.turn
        elif event.type == "item.delta":
            if item not in self._open or data["at"] != len(self.texts[item]):
                raise ContractBroken(f"{event.id}: {item} goes on at {data['at']} after {self.texts.get(item)!r}")
            self.texts[item] += data["delta"]
        elif event.type == "item.done":
            self.texts[item] = text_of(data["item"])
            self._open.pop(item, None)
        elif event.type == "item.dropped":
            self._drop(item)
        elif event.type in TERMINAL or event.type == "turn.waiting" or data.get("carried") == 0:
            for left in [item for item, turn in self._open.items() if turn == event.turn]:
                self._drop(left)  # nobody will finish it

    def _drop(self, item: str) -> None:
        if item in self._open:
            del self._open[item], self.texts[item]


def text_of(item: JsonObject) -> str:
    """What an item's deltas add up to: a call's arguments, the text of anything else."""
    content = item.get("arguments") if item.get("type") == "function_call" else item.get("content")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())


class Client:
    """A fleet, by the URL of its load balancer or of each replica. `transport` replaces TCP (ASGI, TLS of your own)."""

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        api_key: str | None = None,
        timeout: timedelta = timedelta(seconds=30),
        retry: Retry | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.sessions = Sessions(self)
        self.retry, self._timeout, self._replica = retry or Retry(), timeout.total_seconds(), 0
        self._urls = [base.rstrip("/") + "/v1/" for base in ([url] if isinstance(url, str) else url)]
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        limits = httpx2.Limits(max_connections=None, keepalive_expiry=4)  # servers close idle connections after 5 s
        self._http = httpx2.AsyncClient(headers=headers, limits=limits, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    def session(self, session: str) -> "SessionHandle":
        """The session of that id. Nothing is asked yet."""
        return SessionHandle(self, session)

    async def call(self, kind: type[T], method: str, path: str, **options: Any) -> T:
        """What a replica answers, as `kind`. Repeated only if that is harmless: a POST has to carry a key for it."""
        failures, unsure = 0, False
        harmless = method != "POST" or "idempotency-key" in options.get("headers", {})
        while True:
            tried = self._replica
            try:
                async with self.attempt(tried, method, path, **options) as answer:
                    body = await answer.aread()
                    return msgspec.convert(body, kind) if kind is bytes else msgspec.json.decode(body or b"null", type=kind)
            except ClientError as error:
                failures, unsure = failures + 1, unsure or error.outcome == "unknown"
                error.outcome = "unknown" if unsure else "not_applied"
                error.passing = error.passing and (harmless or not unsure)
                await self.turn_to_next(tried, failures, error)

    @asynccontextmanager
    async def attempt(self, replica: int, method: str, path: str, **options: Any) -> AsyncGenerator[httpx2.Response, None]:
        """Ask one replica once. What goes wrong until its answer is read is a `ClientError`."""
        patience = httpx2.Timeout(options.pop("silence", self._timeout), connect=min(self._timeout, 5))
        url = self._urls[replica % len(self._urls)] + path
        request = self._http.build_request(method, url, timeout=patience, **options)
        try:
            async with aclosing(await self._http.send(request, stream=True)) as answer:
                if not answer.is_success:
                    raise _refusal(answer, await answer.aread())
                yield answer
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise Unreachable(f"no connection to {url}: {error!r}", outcome="not_applied") from error
        except (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError) as error:
            raise Unreachable(f"no whole answer from {url}: {error!r}") from error
        except (ValueError, httpx2.DecodingError) as error:
            raise ContractBroken(f"{url} answers what cannot be read: {error}") from error

    async def turn_to_next(self, tried: int, failures: int, error: ClientError) -> None:
        """Pause before the next replica is tried; raises `error` when that is useless or enough is enough."""
        self._replica, retry = tried + 1, self.retry
        rounds, rest = divmod(failures, len(self._urls))
        asked = timedelta(0) if rest and error.code != "rate_limited" else error.retry_after  # the others may be well
        if not error.passing or rounds >= retry.rounds or asked > retry.patience:
            raise error
        bound = min(retry.longest, retry.base * 2 ** min(rounds, 20))
        await anyio.sleep((asked + random.random() * bound).total_seconds())


def _refusal(answer: httpx2.Response, body: bytes) -> ApiError:
    try:
        problem = msgspec.json.decode(body, type=JsonObject)
    except msgspec.DecodeError:
        problem = {}
    status, wait = answer.status_code, answer.headers.get("retry-after", "")
    sure = problem.get("outcome", "unknown" if status >= 500 else "not_applied") == "not_applied"
    code, detail = problem.get("code", f"http_{status}"), problem.get("detail", answer.reason_phrase)
    error = ApiError(status, code, detail, "not_applied" if sure else "unknown")
    error.passing = error.passing and answer.headers.get("x-should-retry") != "false"
    error.retry_after = timedelta(seconds=int(wait)) if wait.isdecimal() and len(wait) < 8 else timedelta(0)
    return error


class Sessions:
    """What is done with no session in particular."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(self, **fields: Any) -> "SessionHandle":
        """A new session: `id` (a UUID), `agent`, `user`, `metadata`, all optional. Sent again it is still one session."""
        session = fields.setdefault("id", _uuid7())
        ...
