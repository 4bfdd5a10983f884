"""Turns: what clients say (inputs), and how the work that follows stands."""

import asyncio
from datetime import timedelta

from dalsegno.core.admit import Receipt
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import SessionCreated
from dalsegno.core.ids import parse_session_id, turn_id
from dalsegno.core.turn import Turn
from dalsegno.errors import DalsegnoError, Refused
from dalsegno.http.call import Answer, Call, Headers, json_answer, preferred
from dalsegno.http.desk import Desk
from dalsegno.http.gate import Seat
from dalsegno.http.sse import EventStream
from dalsegno.ports import Ref
from dalsegno.wire import native, requests
from dalsegno.wire.openapi import JSON, SSE


async def say(desk: Desk, call: Call) -> Answer | EventStream:
    """Admit an input; answer with its receipt, or with the stream of its turn."""
    call.parameters.done()
    key = requests.parse_key(call.text(b"idempotency-key"))
    opening = _opening(call)
    ref = call.ref
    said = requests.parse_input(await call.json())
    if preferred(call.text(b"accept"), (JSON, SSE)) == JSON:
        return _accepted(await desk.service.admit(ref, said, key=key, opening=opening))
    seat = desk.gate.seat(call.tenant)
    try:
        receipt = await desk.service.admit(ref, said, key=key, opening=opening)
        return await _turn_stream(desk, ref, receipt, seat)
    except BaseException:
        seat.free()
        raise


async def _turn_stream(desk: Desk, ref: Ref, receipt: Receipt, seat: Seat) -> Answer | EventStream:
    turn = turn_id(receipt.session, receipt.turn)
    try:
        stream = await desk.service.follow(ref, after=Cursor(receipt.seq - 1), turn=turn)
    except DalsegnoError:
        # The input is in the log: an error would be a lie. The receipt says where the stream is.
        seat.free()
        return _accepted(receipt)
    return EventStream(seat, stream, desk.sse(ref.id, stream), desk.metrics, _receipt_headers(receipt))


def _accepted(receipt: Receipt) -> Answer:
    return json_answer(native.receipt_bytes(receipt), status=202, headers=_receipt_headers(receipt))


def _receipt_headers(receipt: Receipt) -> Headers:
    headers: Headers = [(b"location", native.location_of(receipt).encode())]
    if receipt.replayed:
        headers.append((b"idempotent-replayed", b"true"))
    return headers


def _opening(call: Call) -> SessionCreated | None:
    """`If-None-Match: *` creates the session. Then its id has to be one."""
    wanted = call.text(b"if-none-match")
    if wanted is None:
        return None
    if wanted.strip() != "*":
        raise Refused("invalid_request", "If-None-Match holds `*` here, or is not sent")
    parse_session_id(call.path["s"])
    return SessionCreated()


async def show(desk: Desk, call: Call) -> Answer:
    """One turn, at once or when it has ended, waits for somebody, or `wait` is over."""
    wait = timedelta(seconds=call.parameters.wait())
    call.parameters.done()
    turn = await _patiently(desk, call, wait)
    return json_answer(native.turn_bytes(turn))


async def _patiently(desk: Desk, call: Call, wait: timedelta) -> Turn:
    """The turn. A replica that drains keeps nobody waiting, and nobody waits for a client that has left: then the
    answer is the turn as it is.
    """
    ref, turn = call.ref, call.path["t"]
    if not wait:
        return await desk.service.turn(ref, turn, wait=wait)
    waiting = asyncio.ensure_future(desk.service.turn(ref, turn, wait=wait))
    reasons = [asyncio.ensure_future(desk.gate.drained.wait()), asyncio.ensure_future(call.gone())]
    try:
        await asyncio.wait((waiting, *reasons), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        return await desk.service.turn(ref, turn, wait=timedelta())
    finally:
        for task in (waiting, *reasons):
            task.cancel()
