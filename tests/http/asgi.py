"""An ASGI client for tests: sees every single send, can stop reading, and can leave in the middle."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.support import wait_until

Body = bytes | str | dict[str, Any] | list[Any] | None


@dataclass
class Reply:
    """What came back. `clean` says whether the body ended as it should."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    writes: list[bytes] = field(default_factory=list)
    clean: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The SSE events: id, event, and data parsed."""
        return sse_events(self.body)


def sse_events(body: bytes) -> list[dict[str, Any]]:
    """Parse an SSE body as a client would."""
    found = []
    for block in body.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "data" in lines:
            found.append({**lines, "data": json.loads(lines["data"])})
    return found


class Exchange:
    """One request against an application, seen write by write."""

    def __init__(self, app: Any, method: str, target: str, *, body: Body = None, headers: Mapping[str, str] = {}):
        path, _, query = target.partition("?")
        raw, given = _encoded(body), {name.lower(): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            given.setdefault("content-type", "application/json")
        if body is not None:
            given.setdefault("content-length", str(len(raw)))
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
            "http_version": "1.1",
            "extensions": {"dalsegno.abort": self.leave},
        }
        self.reply = Reply()
        self.parts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.parts.put_nowait({"type": "http.request", "body": raw, "more_body": False})
        self.open = asyncio.Event()
        self.open.set()
        self._gone = False
        self._app = app
        self._task: asyncio.Task[None] | None = None

    def leave(self) -> None:
        """The connection is closed."""
        if not self._gone:
            self._gone = True
            self.open.set()
            self.parts.put_nowait({"type": "http.disconnect"})

    async def start(self) -> "Exchange":
        self._task = asyncio.create_task(self._app(self.scope, self._receive, self._send))
        return self

    async def done(self) -> Reply:
        """Wait until the application returns."""
        assert self._task is not None
        await asyncio.wait_for(self._task, 10)
        return self.reply

    async def until(self, text: bytes) -> Reply:
        """Wait until the body holds `text`."""
        await wait_until(lambda: text in self.reply.body, description=f"the body holds {text!r}")
        return self.reply

    async def _receive(self) -> dict[str, Any]:
        if self._gone and self.parts.empty():
            return {"type": "http.disconnect"}
        return await self.parts.get()

    async def _send(self, message: dict[str, Any]) -> None:
        await self.open.wait()
        if self._gone:
            return
        if message["type"] == "http.response.start":
            self.reply.status = message["status"]
            self.reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        if message.get("body"):
            self.reply.writes.append(message["body"])
        if not message.get("more_body"):
            self.reply.clean = True
            self.leave()


def _encoded(body: Body) -> bytes:
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


async def ask(app: Any, method: str, target: str, *, body: Body = None, headers: Mapping[str, str] = {}) -> Reply:
    """One request and its whole answer."""
    return await (await Exchange(app, method, target, body=body, headers=headers).start()).done()
