"""Writes a session's events as SSE: one write an event, comments into silence, a clean end only where one is due.

Costs one task of the server's and one that waits for the client to leave; no buffer of its own: the stream is asked for
the next frame when the transport took the last one.
"""

import asyncio
from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from dalsegno.core.stream import Frame
from dalsegno.errors import Unavailable
from dalsegno.http.call import NO_STORE, Headers, cut
from dalsegno.http.gate import Seat
from dalsegno.http.metrics import Metrics
from dalsegno.http.needs import Stream
from dalsegno.wire.native import BEAT, PREFACE

SSE_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    NO_STORE,
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """The answer that follows a session. Owns the seat and the stream, and gives both back however it ends."""

    status = 200

    def __init__(
        self, seat: Seat, stream: Stream, encode: Callable[[Frame], bytes], metrics: Metrics, headers: Headers
    ) -> None:
        self.started = False
        self._seat = seat
        self._stream = stream
        self._encode = encode
        self._metrics = metrics
        self._headers = headers
        self._beating: asyncio.Task[None] | None = None
        self._sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = asyncio.create_task(self._watch(receive))
        try:
            ended = await self._flow(send)
        finally:
            watcher.cancel()
            if self._beating is not None:
                self._beating.cancel()
            self._metrics.sent.inc(self._sent)
            self._seat.free()
            await self._stream.aclose()
        if not ended:
            self._metrics.cut.labels(self._seat.why or "store").inc()
            await cut(scope, receive)

    async def _flow(self, send: Send) -> bool:
        """Send everything; False when the body must not end cleanly."""
        encode = self._encode
        try:
            self._seat.take(lambda: self._beat(send))
            self.started = True
            await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS + self._headers})
            await self._write(send, PREFACE)
            async for frame in self._stream:
                await self._write(send, encode(frame))
                self._sent += 1
            self._seat.done()
            await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            if not self._seat.cancelled():
                raise
            return False
        except Unavailable:
            return False
        except OSError:
            self._seat.why = "gone"
            return False
        return True

    async def _write(self, send: Send, body: bytes) -> None:
        if self._beating is not None:
            await self._beating
        self._seat.writing()
        await send({"type": "http.response.body", "body": body, "more_body": True})
        self._seat.wrote()

    def _beat(self, send: Send) -> None:
        self._beating = asyncio.create_task(self._comment(send))

    async def _comment(self, send: Send) -> None:
        self._seat.writing()
        await send({"type": "http.response.body", "body": BEAT, "more_body": True})
        self._seat.wrote()
        self._beating = None

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._seat.leave_now("gone")
