"""One request from its body to the end of its answer: read, log, hold, fail, speak. Knows ASGI and no protocol."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from dalsegno.core.json import dumps
from dalsegno.testing.model.answer import Pace, Speech, after_prefix
from dalsegno.testing.model.faults import Die, Fail, Fault, Faults, Garble, Hold
from dalsegno.testing.model.log import Entry, Log
from dalsegno.testing.model.scripts import Script, answered
from dalsegno.testing.model.shown import Shown
from dalsegno.testing.model.wire import Frame, Refusal, Wire

FAULT_HEADER = "x-fault"
BODY_BYTES_MAX = 32 * 1024 * 1024
FAULT: msgspec.json.Decoder[Fault] = msgspec.json.Decoder(Fault)
NO_JSON = b'{"id": "'
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]


class Model:
    """The script, what is to go wrong with it, and what it was asked."""

    def __init__(
        self, script: Callable[[], Script], *, faults: Faults, log: Log, ids: Literal["derived", "fresh"]
    ) -> None:
        self._script = script
        self.faults = faults
        self.log = log
        self.ids = ids

    def speech(self, shown: Shown, entry: Entry) -> Speech:
        """What the script answers."""
        answer = after_prefix(answered(self._script(), shown), shown.prefix)
        seed = shown.fingerprint if self.ids == "derived" else f"{shown.fingerprint} {entry.number} {id(self)}"
        return Speech(shown, answer, seed, int(time.time()))

    def fault(self, shown: Shown, entry: Entry) -> Fault | None:
        """What goes wrong with this request: what its own header says, or the plan."""
        asked = entry.headers.get(FAULT_HEADER)
        if asked is not None:
            return FAULT.decode(asked)
        return self.faults.take(shown)


class Gone(Exception):
    """The client has left, or the connection was cut."""


class Line:
    """One request's connection: writes to it, and notices when the client leaves."""

    def __init__(self, receive: Any, send: Any, cut: Any) -> None:
        self._receive, self._send, self._cut = receive, send, cut
        self._gone: asyncio.Task[None] | None = None

    async def body(self) -> bytes:
        """The whole request."""
        parts, more = list[bytes](), True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        self._gone = asyncio.create_task(self._left())
        return b"".join(parts)

    async def until(self, event: Awaitable[None]) -> None:
        """Wait for something, but not longer than the client does."""
        assert self._gone is not None
        waiting = asyncio.ensure_future(event)
        await asyncio.wait((waiting, self._gone), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            raise Gone

    async def start(self, status: int, media: str, headers: Headers = ()) -> None:
        """The head of the answer. Each is the last of its connection, so that no client of a test keeps one open."""
        head = [(b"content-type", media.encode()), (b"connection", b"close"), *headers]
        await self._send({"type": "http.response.start", "status": status, "headers": head})

    async def write(self, content: bytes) -> None:
        """A piece of the answer, as one write."""
        await self._send({"type": "http.response.body", "body": content, "more_body": True})
        await self.until(asyncio.sleep(0))

    async def end(self) -> None:
        """The answer is complete."""
        await self._send({"type": "http.response.body", "body": b""})

    async def cut(self) -> None:
        """Cut the connection; what was written arrives."""
        assert self._gone is not None
        self._cut()
        await self._gone

    def close(self) -> None:
        """Nothing is awaited any more."""
        if self._gone is not None:
            self._gone.cancel()

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


class Exchange:
    """One request and its answer."""

    def __init__(self, model: Model, wire: Wire, entry: Entry, line: Line) -> None:
        self._model, self._wire, self._entry, self._line = model, wire, entry, line
        self._holds: list[Hold] = []
        self._places: dict[Hold, int] = {}
        self._fault: Fault | None = None
        self._fault_place = -1
        self._speech: Speech | None = None
        self._frames = 0

    async def run(self) -> None:
        """From the request's first byte to the answer's last."""
        try:
            await self._answer(await self._line.body())
        except Gone:
            self._entry.ended = "left"
        finally:
            if self._entry.ended == "open":  # the script raised: its author finds out why in this process's log
                self._entry.ended = "failed"
            self._line.close()

    async def _answer(self, raw: bytes) -> None:
        entry = self._entry
        try:
            entry.request = _parsed(raw)
            shown = self._wire.read(entry.request)
        except Refusal as refusal:
            entry.refusal, entry.ended = refusal.message, "refused"
            await self._problem(400, refusal)
            return
        self._holds, entry.fault = self._model.faults.held(shown), self._model.fault(shown, entry)
        self._fault, entry.shown = entry.fault, shown
        self._speech = speech = self._model.speech(shown, entry)
        entry.answer = speech.answer
        if shown.settings.get("stream"):
            await self._stream([*self._wire.stream(speech)], speech.answer.pace)
        else:
            await self._whole(dumps(self._wire.whole(speech)))

    async def _whole(self, content: bytes) -> None:
        self._everything_at(0)
        if not await self._goes_on(0):
            return
        await self._begin("application/json")
        await self._line.write(content)
        await self._finish()

    async def _stream(self, frames: Sequence[Frame], pace: Pace) -> None:
        entry = self._entry
        entry.deltas = sum(frame.deltas for frame in frames)
        self._everything_at(entry.deltas)
        if not await self._goes_on(0):
            return
        await self._begin("text/event-stream; charset=utf-8")
        for frame in frames:
            if frame.deltas and entry.sent and pace.delay:
                await self._line.until(asyncio.sleep(pace.delay.total_seconds()))
            await self._line.write(_encoded(frame))
            self._frames += 1
            entry.sent += frame.deltas
            if frame.deltas and not await self._goes_on(entry.sent):
                return
        await self._finish()

    def _everything_at(self, last: int) -> None:
        """What was meant for further on than the answer goes happens at its last delta."""
        self._places = {hold: min(hold.at, last) for hold in self._holds}
        if self._fault is not None:
            self._fault_place = min(self._fault.at, last)

    async def _goes_on(self, sent: int) -> bool:
        """Whatever is to happen behind so many deltas; whether the answer goes on."""
        for hold in self._holds:
            if self._places[hold] == sent:
                await self._line.until(hold.stand())
        if self._fault_place != sent:
            return True
        match self._fault:
            case Die():
                self._entry.ended = "cut"
                await self._line.cut()
            case Fail(status=status, retry_after=retry_after):
                await self._fail(status, retry_after)
            case Garble():
                await self._garble()
        return False

    async def _fail(self, status: int, retry_after: float | None) -> None:
        self._entry.ended = "failed"
        if self._entry.status == 0 or self._speech is None:
            after = [] if retry_after is None else [(b"retry-after", f"{retry_after:g}".encode())]
            await self._problem(status, None, after)
            return
        await self._line.write(_encoded(self._wire.broken(self._speech, status, self._frames)))
        await self._line.end()

    async def _garble(self) -> None:
        self._entry.ended = "failed"
        streamed = bool(self._entry.shown and self._entry.shown.settings.get("stream"))
        if self._entry.status == 0:
            await self._begin("text/event-stream; charset=utf-8" if streamed else "application/json")
        await self._line.write(b"event: message_start\ndata: " + NO_JSON + b"\n\n" if streamed else NO_JSON)
        await self._line.end()

    async def _problem(self, status: int, refusal: Refusal | None, headers: Headers = ()) -> None:
        self._entry.status = status
        await self._line.start(status, "application/json", headers)
        await self._line.write(dumps(self._wire.problem(status, refusal)))
        await self._line.end()

    async def _begin(self, media: str) -> None:
        self._entry.status = 200
        await self._line.start(200, media)

    async def _finish(self) -> None:
        self._entry.ended = "done"
        await self._line.end()


def _parsed(raw: bytes) -> Any:
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise Refusal(f"We could not parse the JSON body of your request: {error}") from None
    if not isinstance(body, dict):
        raise Refusal("We could not parse the JSON body of your request: it is not an object")
    return body


def _encoded(frame: Frame) -> bytes:
    data = frame.data.encode() if isinstance(frame.data, str) else dumps(frame.data)
    name = f"event: {frame.name}\n".encode() if frame.name else b""
    return name + b"data: " + data + b"\n\n"
