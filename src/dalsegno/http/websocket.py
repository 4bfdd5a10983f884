"""A session over one WebSocket: its events come out, inputs go in. The same cursors, keys and ends as over HTTP.

Close codes: 1000 after the last event, 1012 when the replica drains, 1011 when the stream cannot go on here; after the
last two a client reconnects with its cursor. Inputs are admitted and answered one after another, in their order.
"""

import asyncio
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from dalsegno.core.json import dumps, loads_strict
from dalsegno.errors import Refused, Unavailable
from dalsegno.http.call import Call, cut
from dalsegno.http.desk import Desk
from dalsegno.http.gate import Seat
from dalsegno.http.needs import Stream
from dalsegno.http.problems import problem_of
from dalsegno.ports import Ref
from dalsegno.wire.native import receipt_shape
from dalsegno.wire.requests import parse_keyed_input

CLOSE_CODES = {"draining": 1012, "store": 1011, "fault": 1011}


class Conversation:
    """The answer to an upgrade: streams and listens until one of the two ends."""

    status = 101

    def __init__(self, desk: Desk, ref: Ref, seat: Seat, stream: Stream) -> None:
        self.started = False
        self._desk = desk
        self._ref = ref
        self._seat = seat
        self._stream = stream
        self._fault: BaseException | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        listener: asyncio.Task[None] | None = None
        try:
            self._seat.take(None)
            self.started = True
            await send({"type": "websocket.accept"})
            listener = asyncio.create_task(self._listen(receive, send))
            listener.add_done_callback(self._listened)
            await self._speak(send)
            self._seat.done()
            await send({"type": "websocket.close", "code": 1000, "reason": "nothing follows"})
            return
        except asyncio.CancelledError:
            if not self._seat.cancelled():
                raise
        except Unavailable:
            self._seat.why = "store"
        except OSError:
            self._seat.why = "gone"
        finally:
            if listener is not None:
                listener.cancel()
            self._seat.free()
            await self._stream.aclose()
        await self._leave(scope, receive, send)
        if self._fault is not None:
            raise self._fault

    async def _speak(self, send: Send) -> None:
        encode, session, now = self._desk.frames.socket, self._ref.id, self._desk.now
        async for frame in self._stream:
            await self._write(send, encode(session, frame, now=now()))

    async def _write(self, send: Send, body: bytes) -> None:
        self._seat.writing()
        try:
            await send({"type": "websocket.send", "text": body.decode()})
        except RuntimeError as error:
            # the server has closed already, over a broken frame that followed the one that is being answered
            raise ConnectionError("the socket is closed") from error
        self._seat.wrote()

    async def _leave(self, scope: Scope, receive: Receive, send: Send) -> None:
        why = self._seat.why or "store"
        self._desk.metrics.cut.labels(why).inc()
        if why in CLOSE_CODES:
            await send({"type": "websocket.close", "code": CLOSE_CODES[why], "reason": why})
        elif why == "slow":
            await cut(scope, receive)

    async def _listen(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "websocket.receive":
            text = message.get("text")
            await self._write(send, await self._hear(text))

    def _listened(self, listener: "asyncio.Task[None]") -> None:
        fault = None if listener.cancelled() else listener.exception()
        self._fault = None if isinstance(fault, OSError) else fault
        self._seat.leave_now("fault" if self._fault else "gone")

    async def _hear(self, text: str | None) -> bytes:
        """The answer to one frame of the client's."""
        desk = self._desk
        try:
            if text is None:
                raise Refused("invalid_request", "frames are text: an input as JSON, and its `key`")
            if len(text) > desk.gate.limits.body:
                raise Refused("too_large", f"a frame is larger than {desk.gate.limits.body} bytes")
            key, said = parse_keyed_input(loads_strict(text.encode()))
            receipt = await desk.service.admit(self._ref, said, key=key)
        except (Refused, Unavailable) as error:
            found = problem_of(error)
            if found is None:
                raise
            return dumps({"error": found})
        return dumps({"receipt": receipt_shape(receipt)})


async def converse(desk: Desk, call: Call) -> Conversation:
    """Follow a session and speak to it."""
    _same_origin(call)
    ref = call.ref
    after = call.parameters.cursor(last_event_id=call.text(b"last-event-id"))
    turn = call.parameters.text("turn")
    call.parameters.done()
    seat = desk.gate.seat(call.tenant)
    try:
        stream = await desk.service.follow(ref, after=after, turn=turn)
    except BaseException:
        seat.free()
        raise
    return Conversation(desk, ref, seat, stream)


def _same_origin(call: Call) -> None:
    """Browsers let any page open a WebSocket anywhere; one of another origin gets no session."""
    origin, host = call.text(b"origin"), call.text(b"host")
    if origin is not None and urlsplit(origin).netloc.lower() != (host or "").lower():
        raise Refused("forbidden", "a page of another origin may not open this WebSocket")
