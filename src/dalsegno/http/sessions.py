"""Sessions: create, import, list, read, change, fork, delete; and what they hold: items, artifacts."""

import re

from dalsegno.core.session import Session
from dalsegno.errors import Refused
from dalsegno.http.call import Answer, Call, Headers, json_answer
from dalsegno.http.desk import Desk
from dalsegno.http.problems import problem, problem_bytes, problem_headers
from dalsegno.ports import Query
from dalsegno.wire import native, requests
from dalsegno.wire.transfer import Import

METADATA = "metadata."
_RANGE = re.compile(r"bytes=([0-9]{1,15})?-([0-9]{1,15})?")


async def create(desk: Desk, call: Call) -> Answer:
    """A new session, or with NDJSON one that continues an exported one."""
    call.parameters.done()
    if call.media == b"application/x-ndjson":
        return _created(await _restore(desk, call))
    chosen, opening = requests.parse_new_session(await call.json())
    return _created(await desk.service.create(call.tenant, id=chosen, opening=opening))


async def _restore(desk: Desk, call: Call) -> Session:
    limits = desk.gate.limits
    reading, rest = Import(), bytearray()
    async for part in call.chunks(limits.import_body):
        rest += part
        if b"\n" in part:
            *lines, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            for line in lines:
                _read(reading, line)
        if len(rest) > limits.import_line:
            raise Refused("too_large", f"a line is larger than {limits.import_line} bytes")
    _read(reading, bytes(rest))
    return await desk.service.restore(call.tenant, reading.done())


def _read(reading: Import, line: bytes) -> None:
    if line.strip():
        reading.line(line)


def _created(session: Session) -> Answer:
    headers = [*_tag(session), (b"location", f"/v1/sessions/{session.id}".encode())]
    return json_answer(native.session_bytes(session), status=201, headers=headers)


def _tag(session: Session) -> Headers:
    return [(b"etag", b'"%d"' % session.head)]


async def browse(desk: Desk, call: Call) -> Answer:
    """A page of the tenant's sessions."""
    asked = call.parameters
    query = Query(
        after=asked.session(),
        limit=asked.limit(),
        status=asked.status(),
        user=asked.text("user"),
        metadata=asked.prefixed(METADATA),
    )
    asked.done()
    page = await desk.service.list(call.tenant, query)
    return json_answer(native.session_page(page.sessions, page.next))


async def read(desk: Desk, call: Call) -> Answer:
    """One session; its ETag is its head."""
    call.parameters.done()
    session = await desk.service.get(call.ref)
    return json_answer(native.session_bytes(session), headers=_tag(session))


async def change(desk: Desk, call: Call) -> Answer:
    """Replace the metadata, if the session is still at the head that `If-Match` names."""
    call.parameters.done()
    ref, heads = call.ref, requests.parse_etags(call.text(b"if-match"))
    metadata = requests.parse_patch(await call.json())
    head = None if heads is None or len(heads) != 1 else heads[0]
    if metadata is not None and (heads is None or len(heads) == 1):
        session = await desk.service.update(ref, metadata, head=head)
        return json_answer(native.session_bytes(session), headers=_tag(session))
    session = await desk.service.get(ref)
    if heads is not None and session.head not in heads:
        raise Refused("version_mismatch", f"the session's head is {session.head}")
    if metadata is not None:
        session = await desk.service.update(ref, metadata, head=session.head)
    return json_answer(native.session_bytes(session), headers=_tag(session))


async def delete(desk: Desk, call: Call) -> Answer:
    """Delete the session and everything that belongs to it."""
    call.parameters.done()
    await desk.service.delete(call.ref)
    return Answer(204)


async def fork(desk: Desk, call: Call) -> Answer:
    """A new session that begins as a copy of this one."""
    call.parameters.done()
    ref = call.ref
    return _created(await desk.service.fork(ref, at=requests.parse_fork(await call.json())))


async def items(desk: Desk, call: Call) -> Answer:
    """A page of the conversation."""
    after, limit = call.parameters.cursor(), call.parameters.limit()
    call.parameters.done()
    found, following = await desk.service.items(call.ref, after=after.seq if after else 0, limit=limit)
    return json_answer(native.item_page(found, following))


async def artifact(desk: Desk, call: Call) -> Answer:
    """An artifact's bytes, or one range of them. Never shown as a page of this origin."""
    call.parameters.done()
    content = await desk.service.artifact(call.tenant, call.artifact)
    headers: Headers = [
        (b"accept-ranges", b"bytes"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-disposition", b"attachment"),
    ]
    media = b"application/octet-stream"
    span = _span(call.text(b"range"), len(content))
    if span is None:
        return Answer(200, content, headers, media=media)
    first, last = span
    if first > last:
        return _outside(len(content))
    headers.append((b"content-range", b"bytes %d-%d/%d" % (first, last, len(content))))
    return Answer(206, content[first : last + 1], headers, media=media)


def _outside(size: int) -> Answer:
    """The range begins behind the end; the header says where that is."""
    code = "range_not_satisfiable"
    body = problem_bytes(problem(code, f"the artifact has {size} bytes"))
    return Answer(416, body, [*problem_headers(code), (b"content-range", b"bytes */%d" % size)])


def _span(asked: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte; None for all of it, also when the range is of a kind that we do not serve (RFC 9110). The
    first lies behind the last where there is nothing in it.
    """
    found = None if asked is None else _RANGE.fullmatch(asked.strip())
    if found is None or found.group(0) == "bytes=-":
        return None
    if found[1] is None:
        first, last = max(0, size - int(found[2])), size - 1
    else:
        first, last = int(found[1]), min(size - 1, int(found[2] or size))
        if found[2] and int(found[2]) < first:
            return None
    return first, last
