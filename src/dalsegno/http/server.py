"""The server: uvicorn, with what a streaming API needs of it: a way to cut a connection, deadlines, and a quick drain.

A replica that goes away closes its sockets for new connections, aborts every stream so that clients resume elsewhere,
lets requests finish, and leaves.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Literal

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.server import ServerProtocol

from dalsegno.http.app import App
from dalsegno.http.call import ABORT
from dalsegno.http.problems import MEDIA, problem, problem_bytes

HEADER_BYTES_MAX = 64 * 1024
STALL_MILLISECONDS = 30_000


class Bearing(msgspec.Struct, frozen=True):
    """How patient the server is."""

    grace: timedelta = timedelta(seconds=10)
    keep_alive: timedelta = timedelta(seconds=75)
    header_time: timedelta = timedelta(seconds=15)


def listen(host: str, port: int, *, share: Literal["alone", "fleet"] = "alone", backlog: int = 2048) -> socket.socket:
    """A listening socket; with `fleet`, several processes may listen on the same port (SO_REUSEPORT).

    The kernel drops peers that take nothing for 30 s. Raises `OSError` when the address is taken or not ours.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share == "fleet":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALL_MILLISECONDS)
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class Server(uvicorn.Server):
    """Serves one app on given sockets. `leaving` is called first when it shuts down, to hand over what runs."""

    def __init__(
        self, app: App, *, bearing: Bearing | None = None, leaving: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        bearing = bearing or Bearing()
        super().__init__(_config(app, bearing))
        self._app = app
        self._leaving = leaving

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in, abort the streams, finish the rest."""
        for server in self.servers:
            server.close()
        self._app.gate.drain()
        if self._leaving is not None:
            await self._leaving()
        await super().shutdown(sockets)


def _config(app: App, bearing: Bearing) -> uvicorn.Config:
    class Http(_Http):
        header_seconds = bearing.header_time.total_seconds()

    return uvicorn.Config(
        app,
        http=Http,
        ws=_Socket,
        ws_max_size=app.gate.limits.body,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=round(bearing.keep_alive.total_seconds()),
        timeout_graceful_shutdown=round(bearing.grace.total_seconds()),
    )


class _Http(HttpToolsProtocol):
    """Headers within their size and time, and one Host; errors of the parser as problems; and the app may cut the
    connection.
    """

    header_seconds = 15.0
    _deadline: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _hosts = 0
    _refused = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_headers()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = self._hosts = 0
        self._expect_headers()
        scope: Any = self.scope
        scope["extensions"] = {ABORT: self.transport.abort}

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        self._hosts += name.lower() == b"host"
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._have_headers()
        if self._hosts > 1 or (self._hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._refuse("a request has one Host header")
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self.transport.write(_bad_request(self._refused or msg))
        self.transport.close()

    def _expect_headers(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.header_seconds, self.transport.abort)

    def _have_headers(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > HEADER_BYTES_MAX:
            self._refuse("the request's head is too large")

    def _refuse(self, why: str) -> None:
        """The parser ends, and the answer says why."""
        self._refused = why
        raise ValueError(why)


class _Socket(WebSocketsSansIOProtocol):
    """The app may cut the connection."""

    def handle_connect(self, event: Any) -> None:
        refused = _refused(event)
        if refused is not None:
            self.handshake_initiated = self.handshake_complete = self.close_sent = True
            self.transport.write(_bad_request(refused))
            self.transport.close()
            return
        super().handle_connect(event)
        scope: Any = getattr(self, "scope", None)
        if scope is not None:
            scope["extensions"][ABORT] = self.transport.abort

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True  # it was refused: uvicorn would call that an error of the app's


def _refused(handshake: Any) -> str | None:
    """Why the handshake cannot be accepted; None if it can."""
    try:
        answer = ServerProtocol().accept(handshake)
    except UnicodeEncodeError:  # what it refuses is quoted as it came
        return "a header of the handshake is not ASCII"
    return None if answer.status_code == 101 else (answer.body or b"").decode("utf-8", "replace").strip()


def _bad_request(why: str) -> bytes:
    """What is answered below the level of requests: a problem, as everywhere."""
    body = problem_bytes(problem("invalid_request", why))
    head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return head % (MEDIA, len(body)) + body
