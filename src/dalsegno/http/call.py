"""A request as handlers see it, and the plain answer they give. Reads bodies within their bounds; knows no route."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

from starlette.types import Message, Receive, Scope, Send

from dalsegno.core.ids import parse_session_id
from dalsegno.core.json import Json, loads_strict
from dalsegno.errors import Refused
from dalsegno.http.gate import Limits
from dalsegno.ports import Ref
from dalsegno.wire.requests import Parameters

ABORT = "dalsegno.abort"
"""The ASGI extension by which our server lets the app cut the connection (`http.server`)."""

DISCARD_BYTES_MAX = 16 * 1024 * 1024
DISCARD_SECONDS = 5.0
_ARTIFACT = re.compile(r"[A-Za-z0-9_.:-]{1,128}")

Headers: TypeAlias = list[tuple[bytes, bytes]]
NO_STORE = (b"cache-control", b"no-store")


class Answer:
    """A complete answer; an ASGI application like every other kind of answer."""

    __slots__ = ("body", "headers", "started", "status")

    def __init__(self, status: int, body: bytes = b"", headers: Headers | None = None, *, media: bytes = b"") -> None:
        self.status = status
        self.body = body
        self.headers = headers if headers is not None else []
        self.started = False
        if media:
            self.headers.append((b"content-type", media))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*self.headers, NO_STORE]
        if self.status != 204:
            headers.append((b"content-length", str(len(self.body)).encode()))
        self.started = True
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def json_answer(body: bytes, *, status: int = 200, headers: Headers | None = None) -> Answer:
    """JSON that is already bytes."""
    return Answer(status, body, headers, media=b"application/json")


class Call:
    """One request: whose it is, and what it says."""

    __slots__ = ("_headers", "_limits", "_parameters", "_receive", "read", "scope", "tenant")

    def __init__(self, scope: Scope, receive: Receive, *, limits: Limits) -> None:
        self.scope = scope
        self.tenant = ""
        """Whose request it is; set once the credentials are known."""
        self._parameters: Parameters | None = None
        self.read = False
        self._receive = receive
        self._limits = limits
        self._headers: dict[bytes, bytes] | None = None

    def header(self, name: bytes) -> bytes | None:
        """A header's value, without the blanks around it. Raises `Refused` when it is given twice."""
        if self._headers is None:
            self._headers = dict(self.scope["headers"])
        value = self._headers.get(name)
        if value is not None and sum(other == name for other, _ in self.scope["headers"]) > 1:
            raise Refused("invalid_request", f"the header {name.decode('ascii', 'replace')} is given twice")
        return None if value is None else value.strip(b" \t")

    def text(self, name: bytes) -> str | None:
        """A header's value as text, byte for character."""
        value = self.header(name)
        return None if value is None else value.decode("latin-1")

    @property
    def parameters(self) -> Parameters:
        """The query."""
        if self._parameters is None:
            self._parameters = Parameters(self.scope["query_string"])
        return self._parameters

    @property
    def path(self) -> dict[str, str]:
        """The pieces of the path."""
        found: dict[str, str] = self.scope["path_params"]
        return found

    @property
    def ref(self) -> Ref:
        """The session that the path names; what cannot be a session's name is no session."""
        try:
            return Ref(self.tenant, parse_session_id(self.path["s"]))
        except Refused:
            raise Refused("not_found", "no session has such an id") from None

    @property
    def artifact(self) -> str:
        """The artifact that the path names."""
        if not _ARTIFACT.fullmatch(self.path["a"]):
            raise Refused("not_found", "no artifact has such a name")
        return self.path["a"]

    async def json(self) -> Json:
        """The body as JSON, strictly; an empty one is an empty object."""
        body = b"".join([part async for part in self.chunks(self._limits.body)])
        if body:
            self.expect_media(b"application/json")
            return loads_strict(body)
        return {}

    @property
    def media(self) -> bytes:
        """The body's media type, without parameters."""
        return (self.header(b"content-type") or b"").partition(b";")[0].strip().lower()

    def expect_media(self, media: bytes) -> None:
        """Refuse a body that says it is something else."""
        if self.media != media:
            raise Refused("unsupported_media_type", f"send the body as Content-Type: {media.decode()}")

    async def chunks(self, limit: int) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises `Refused`: too large, encoded, slower than a minute's patience, cut off."""
        if (self.header(b"content-encoding") or b"identity").strip().lower() != b"identity":
            raise Refused("unsupported_media_type", "send the body without Content-Encoding")
        announced = self.header(b"content-length")
        if announced is not None and (not announced.isdigit() or int(announced[:20]) > limit):
            raise Refused("too_large", f"the body is larger than {limit} bytes")
        size, more = 0, True
        deadline = asyncio.get_running_loop().time() + self._limits.body_time.total_seconds()
        while more:
            message = await self._next(deadline)
            part: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            self.read = not more
            size += len(part)
            if size > limit:
                raise Refused("too_large", f"the body is larger than {limit} bytes")
            if part:
                yield part

    async def _next(self, deadline: float) -> Message:
        try:
            async with asyncio.timeout_at(deadline):
                message = await self._receive()
        except TimeoutError:
            raise Refused("invalid_request", "the body did not arrive in time") from None
        if message["type"] == "http.disconnect":
            raise Refused("invalid_request", "the body was cut off")
        return message

    async def gone(self) -> None:
        """Return when the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def discard(self) -> None:
        """Read on for a while what nobody wants, so that the client sees the answer and not a reset connection."""
        if self.read or self.header(b"expect") is not None:
            return
        announced = self.header(b"content-length") or b"0"
        if not announced.isdigit() or int(announced[:20]) > DISCARD_BYTES_MAX:
            return
        size, more = 0, True
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                while more and size <= DISCARD_BYTES_MAX:
                    message = await self._receive()
                    size += len(message.get("body", b""))
                    more = message.get("more_body", False)
        except TimeoutError:
            return
        self.read = not more


class Cut(Exception):
    """The answer has begun and must not end cleanly: the server has to close the connection."""


async def cut(scope: Scope, receive: Receive) -> None:
    """Close the connection without a clean end of the body, and wait until it is closed.

    Under our own server this is silent. Any other one closes the connection because of the exception.
    """
    abort: Any = scope.get("extensions", {}).get(ABORT)
    if abort is None:
        raise Cut("the stream was aborted; its client resumes by cursor")
    abort()
    while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
        pass


_QUALITY = re.compile(r"q=(0(\.[0-9]{0,3})?|1(\.0{0,3})?)")


def preferred(accept: str | None, offers: tuple[str, ...]) -> str:
    """The offer that an `Accept` header likes best; the first one when it says nothing, or nothing that we have."""
    best, best_quality, best_detail = offers[0], 0.0, -1
    for entry in (accept or "*/*").split(","):
        media, *rest = (part.strip().lower() for part in entry.split(";"))
        quality = next((float(found[1]) for part in rest if (found := _QUALITY.fullmatch(part))), 1.0)
        for offer in offers:
            detail = _detail(media, offer)
            if detail is not None and quality > 0 and (quality, detail) > (best_quality, best_detail):
                best, best_quality, best_detail = offer, quality, detail
    return best


def _detail(media: str, offer: str) -> int | None:
    if media == offer:
        return 2
    if media == offer.split("/")[0] + "/*":
        return 1
    return 0 if media == "*/*" else None
