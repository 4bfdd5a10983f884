"""The requests: a fleet, its sessions, one session; every one tried again where that is safe."""

import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any, Self
from urllib.parse import quote

import anyio
import msgspec

from dalsegno.client.events import (
    TERMINAL,
    ApiError,
    ClientError,
    Event,
    Json,
    OnBusy,
    Receipt,
    Retry,
    SseParser,
    TurnNotCompleted,
    Unreachable,
    follow,
    place_of,
    read,
    refusal,
    text_of,
)

try:
    import httpx2
except ModuleNotFoundError as missing:
    raise ImportError("the client needs httpx2: pip install 'dalsegno[client]'") from missing


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
        self._http = httpx2.AsyncClient(headers=headers, limits=limits)
        self._urls = [each.rstrip("/") for each in ([url] if isinstance(url, str) else url)]
        self._replica, self._timeout, self._retry = 0, timeout, retry or Retry()
        self.sessions = Sessions(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    def session(self, id: str) -> "SessionHandle":
        """The session of that id; nothing is asked yet."""
        return SessionHandle(self, id)

    async def _request(self, method: str, path: str, **options: Any) -> bytes:
        """The body of an answer. Asked for again only where that is harmless: not with a POST that has no key."""
        harmless = method != "POST" or "idempotency-key" in options.get("headers", {})
        failures, unsure = 0, False
        while True:
            tried = self._replica
            try:
                async with self._attempt(tried, method, path, **options) as answer:
                    return await answer.aread()
            except ClientError as error:
                failures, unsure = failures + 1, unsure or error.outcome == "unknown"
                error.outcome = "unknown" if unsure else "not_applied"
                error.passing = error.passing and (harmless or not unsure)
                await self._leave(tried, failures, error)

    async def _pages(self, path: str, query: Json) -> AsyncGenerator[Json, None]:
        """The entries of a list, page by page."""
        page: Json = {"next": ""}
        while page["next"] is not None:
            page = read(await self._request("GET", path, params=query), Json)
            query = {**query, "after": page["next"]}
            for entry in page["data"]:
                yield entry

    @asynccontextmanager
    async def _attempt(self, replica: int, method: str, path: str, **options: Any) -> AsyncIterator[httpx2.Response]:
        """Ask one replica once. What goes wrong until its answer is read is a `ClientError`."""
        url, silence = f"{self._urls[replica % len(self._urls)]}/v1/{path}", options.pop("silence", self._timeout)
        timeout = httpx2.Timeout(silence.total_seconds(), connect=min(5, self._timeout.total_seconds()))
        request = self._http.build_request(method, url, timeout=timeout, **options)
        try:
            async with aclosing(await self._http.send(request, stream=True)) as answer:
                if not answer.is_success:
                    raise refusal(answer.status_code, answer.headers, await answer.aread())
                yield answer
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise Unreachable(f"no connection to {url}: {error!r}", outcome="not_applied") from error
        except (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError) as error:
            raise Unreachable(f"no whole answer from {url}: {error!r}") from error

    async def _leave(self, replica: int, failures: int, error: ClientError) -> None:
        """Pause, and let the next replica be asked. Raises `error` where that is pointless or was done often enough."""
        self._replica, retry = replica + 1, self._retry
        rounds, others = divmod(failures, len(self._urls))
        busy = error.retry_after if not others or error.everywhere else timedelta(0)
        if not error.passing or rounds >= retry.rounds or busy > retry.longest:
            raise error
        bound = min(retry.longest, retry.base * 2 ** min(rounds, 20))
        await anyio.sleep((busy + bound * random.random()).total_seconds())


class Sessions:
    """All sessions of a tenant."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(
        self, *, id: str | None = None, agent: str | None = None, user: str | None = None, metadata: Json | None = None
    ) -> "SessionHandle":
        """A new session. Unless you name it, it is named here: so asking for it twice cannot make two."""
        body = _given(id=id or _uuid7(), agent=agent, user=user, metadata=metadata)
        try:
            await self._client._request("POST", "sessions", json=body, headers={"idempotency-key": body["id"]})
        except ApiError as error:
            if error.status != 409 or error.outcome != "unknown":  # else an attempt whose answer was lost made it
                raise
        return SessionHandle(self._client, body["id"])

    def list(
        self, *, status: str | None = None, user: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Json, None]:
        """The sessions that match, in order of id; asks for a page at a time."""
        wanted = {f"metadata.{name}": value for name, value in (metadata or {}).items()}
        return self._client._pages("sessions", _given(status=status, user=user, **wanted))

    async def import_(self, ndjson: bytes) -> "SessionHandle":
        """The session that was exported. `Unreachable` with outcome `unknown`: look whether it is there."""
        headers = {"content-type": "application/x-ndjson"}
        made = read(await self._client._request("POST", "sessions", content=ndjson, headers=headers), Json)
        return SessionHandle(self._client, made["id"])


class SessionHandle:
    """One session. Each input has an idempotency key: however often it is sent, it is said once."""

    def __init__(self, client: Client, id: str) -> None:
        self.id, self._client, self._path = id, client, f"sessions/{quote(id, safe='')}"

    async def get(self) -> Json:
        """The session as it is now."""
        return read(await self._client._request("GET", self._path), Json)

    async def update(self, metadata: Json, *, if_head: int | None = None) -> Json:
        """Set the metadata; with `if_head` only while that is the head, else `ApiError` 412."""
        headers = {} if if_head is None else {"if-match": f'"{if_head}"'}
        return read(
            await self._client._request("PATCH", self._path, json={"metadata": metadata}, headers=headers), Json
        )

    async def delete(self) -> None:
        """Delete the session and everything that belongs to it."""
        try:
            await self._client._request("DELETE", self._path)
        except ApiError as error:
            if error.status != 404 or error.outcome != "unknown":  # else an attempt whose answer was lost did it
                raise

    async def fork(self, *, at: int | None = None) -> "SessionHandle":
        """A new session with this one's history up to event `at`. After outcome `unknown` there may be one more."""
        made = read(await self._client._request("POST", f"{self._path}/fork", json=_given(at=at)), Json)
        return SessionHandle(self._client, made["id"])

    def items(self) -> AsyncGenerator[Json, None]:
        """The conversation, item by item; asks for a page at a time."""
        return self._client._pages(f"{self._path}/items", {})

    async def turn(self, id: str, *, wait: timedelta = timedelta(0)) -> Json:
        """The turn when it has ended, or as it is after `wait`."""
        options = {"params": {"wait": int(wait.total_seconds())}, "silence": wait + self._client._timeout}
        return read(await self._client._request("GET", f"{self._path}/turns/{quote(id, safe='')}", **options), Json)

    async def export(self) -> bytes:
        """The whole log, as `Sessions.import_` takes it."""
        return await self._client._request("GET", f"{self._path}/events", headers={"accept": "application/x-ndjson"})

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
            answer = await self._client._request("POST", f"{self._path}/inputs", json=_given(**said), headers=headers)
        except ClientError as error:
            error.key = key
            raise
        return msgspec.structs.replace(read(answer, Receipt), key=key)

    async def stream(self, *, after: str | int | None = None, turn: str | None = None) -> AsyncGenerator[Event, None]:
        """Every event after a cursor (or from the first `anext` on), once and in order, whatever breaks on the way.

        Ends after `turn`'s terminal event or `session.deleted`, else never: leave it with `contextlib.aclosing`.
        """
        after = str((await self.get())["head"] if after is None else after)
        query, headers = _given(after=after, turn=turn), {"accept": "text/event-stream"}
        place, failures = place_of(after), 0
        while True:
            tried = self._client._replica
            try:
                async with aclosing(self._listen(tried, query, headers)) as signs:
                    async for event in signs:
                        failures = 0
                        if event is not None:
                            place, headers["last-event-id"] = follow(event, place, turn), event.id
                            yield event
                            if event.type == "session.deleted" or (event.type in TERMINAL and event.turn == turn):
                                return
                return
            except ClientError as error:
                failures += 1
                await self._client._leave(tried, failures, error)

    async def _listen(self, replica: int, query: Json, headers: Json) -> AsyncGenerator[Event | None, None]:
        """What one replica streams, with None for signs of life once it has lasted. Returns if nothing can follow."""
        retry, parser, opened = self._client._retry, SseParser(), anyio.current_time()
        options = {"params": query, "headers": headers, "silence": retry.idle}
        async with self._client._attempt(replica, "GET", f"{self._path}/events", **options) as answer:
            if answer.status_code == 204:
                return
            async with aclosing(answer.aiter_bytes()) as chunks:
                async for chunk in chunks:
                    if anyio.current_time() - opened > retry.longest.total_seconds():
                        yield None
                    for cursor, data in parser.feed(chunk):
                        yield msgspec.structs.replace(read(data, Event), id=cursor)
        raise Unreachable("the stream ended before its turn did")

    async def run(
        self, content: str | list[Json], *, on_busy: OnBusy = "queue", key: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """`send`, then `stream` the events of the turn until its terminal one."""
        receipt = await self.send(content, on_busy=on_busy, key=key)
        async with aclosing(self.stream(after=receipt.seq - 1, turn=receipt.turn)) as events:
            async for event in events:
                yield event

    async def ask(self, content: str | list[Json], *, on_busy: OnBusy = "queue", key: str | None = None) -> str:
        """`run`, then the last message's text. Raises `TurnNotCompleted` also when the turn waits for somebody."""
        text = ""
        async with aclosing(self.run(content, on_busy=on_busy, key=key)) as events:
            async for event in events:
                item = event.data.get("item", {})
                if event.type == "item.done" and item.get("role") == "assistant":
                    text = text_of(item)
                waits = event.type == "turn.waiting" and (await self.turn(str(event.turn)))["status"] == "waiting"
                if waits or event.type in ("turn.failed", "turn.cancelled", "session.deleted"):
                    raise TurnNotCompleted(event)
        return text


def _given(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _uuid7() -> str:
    bits = (time.time_ns() // 10**6) << 80 | (uuid.uuid4().int & (1 << 80) - 1)
    return str(uuid.UUID(int=bits ^ (4 ^ 7) << 76))  # the version is all that the rest of a uuid4 has to change
