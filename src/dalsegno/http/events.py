"""A session's events in every form that `Accept` can ask for: a page, an export, a stream."""

from collections.abc import Sequence

from starlette.types import Receive, Scope, Send

from dalsegno.core.event import Event
from dalsegno.core.ids import turn_number
from dalsegno.errors import DalsegnoError, Refused
from dalsegno.http.call import NO_STORE, Answer, Call, cut, json_answer, preferred
from dalsegno.http.desk import Desk
from dalsegno.http.needs import Service
from dalsegno.http.sse import EventStream
from dalsegno.ports import Ref
from dalsegno.wire import native
from dalsegno.wire.openapi import JSON, NDJSON, SSE
from dalsegno.wire.transfer import export_line

EXPORT_BATCH = 200


async def events(desk: Desk, call: Call) -> "Answer | EventStream | Export":
    """The events after a cursor: as a page, as an export of all there is, or streamed on and on."""
    form = preferred(call.text(b"accept"), (JSON, SSE, NDJSON))
    if call.scope["method"] == "HEAD":
        form = JSON
    if form == SSE:
        return await _stream(desk, call)
    after = call.parameters.cursor(last_event_id=call.text(b"last-event-id"))
    limit = call.parameters.limit()
    turn = call.parameters.text("turn")
    call.parameters.done()
    ref = call.ref
    session = await desk.service.get(ref)
    start = after.seq if after else 0
    if start > session.head:
        raise Refused("cursor_ahead", f"the session's head is {session.head}")
    only = None if turn is None else turn_number(ref.id, turn)
    if turn is not None and only is None:
        raise Refused("not_found", "no such turn in this session")
    if form == NDJSON:
        first = await desk.service.events(ref, after=start, limit=EXPORT_BATCH)
        return Export(desk.service, ref, first, head=session.head, turn=only)
    found = await desk.service.events(ref, after=start, limit=limit)
    following = found[-1].seq if len(found) == limit else None
    return json_answer(native.event_page(ref.id, [event for event in found if only in (None, event.turn)], following))


async def _stream(desk: Desk, call: Call) -> Answer | EventStream:
    after = call.parameters.cursor(last_event_id=call.text(b"last-event-id"))
    turn = call.parameters.text("turn")
    call.parameters.done()
    ref = call.ref
    seat = desk.gate.seat(call.tenant)
    try:
        stream = await desk.service.follow(ref, after=after, turn=turn)
        if stream.ended:
            await stream.aclose()
            seat.free()
            return Answer(204)
    except BaseException:
        seat.free()
        raise
    return EventStream(seat, stream, desk.sse(ref.id, stream), desk.metrics, [])


class Export:
    """The whole log as lines, up to the head it had when asked for. Cut off, not ended, when it fails halfway."""

    status = 200

    def __init__(self, service: Service, ref: Ref, first: Sequence[Event], *, head: int, turn: int | None) -> None:
        self.started = False
        self._service = service
        self._ref = ref
        self._batch = first
        self._head = head
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started = True
        headers = [(b"content-type", NDJSON.encode()), NO_STORE]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        batch = self._batch
        try:
            while batch:
                await send({"type": "http.response.body", "body": self._lines(batch), "more_body": True})
                last = batch[-1].seq
                if last >= self._head:
                    break
                batch = await self._service.events(self._ref, after=last, limit=EXPORT_BATCH)
        except DalsegnoError:
            await cut(scope, receive)
            return
        await send({"type": "http.response.body", "body": b""})

    def _lines(self, batch: Sequence[Event]) -> bytes:
        session, only = self._ref.id, self._turn
        wanted = (event for event in batch if event.seq <= self._head and only in (None, event.turn))
        head = self._head if only is None else 0  # of one turn it is no export, and nothing follows its last line
        return b"".join(export_line(session, event, head=head) for event in wanted)
