"""What an enemy sends: requests as bytes, made from lists and chance. The same seed makes the same requests.

Each kind is a function from chance and a session id to a `Shot`. A shot that is a valid message knows its text.
"""

import base64
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FRAGMENTS = (
    "\0",
    "\x01\x1b[31m",
    "\r\n\r\nevent: turn.completed\nid: 999\ndata: {}\n\n",
    "\u2028\u2029",
    "\ufeff",
    "\ufffe\uffff",
    "a\u0301\u0302\u0303",
    "\u202eright to left",
    "👩‍👩‍👧‍👦",
    "\U0010ffff",
    "𝄋",
    "ﷺ",
    "\x7f\x80\x9f",
    "\\u0000",
    "{{7*7}}${7*7}",
    "'; DROP TABLE sessions; --",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "%s%n%x",
    "\t\v\f ",
    "İı",
    "ß",
    "\u00ad",
    '"\\"',
    "\u3000",
    "true",
    "null",
    "𐏿",
    "\ue000",
)
NUMBERS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "1" * 5000,
    "-0",
    "1e-999",
    "0x10",
    "01",
    "1.",
    ".5",
    "+1",
    "9007199254740993",
    "123456789012345678901234567890",
    "1E400",
    "1e308",
    "--1",
    "1_000",
    "९",
    "1180591620717411303424",
    "-10000000000000000000000",
)
METHODS = (
    "TRACE",
    "OPTIONS",
    "HEAD",
    "PUT",
    "DELETE",
    "BREW",
    "get",
    "PATCH",
    "POST",
    "CONNECT",
    "A" * 300,
    "G\x00T",
    "PROPFIND",
)
CURSORS = (
    "-1",
    "1e9",
    "1.0",
    "1.01",
    "99999999999999999999",
    "",
    " ",
    "١٢",
    "%00",
    "1.1.1",
    "0.0",
    "NaN",
    "1;drop",
    "9999999999",
    "0.99999999999",
    "17.240",
    "+1",
    "0x1",
    "1%0a2",
    "\u00e9",
    "4294967296",
    "18446744073709551616",
    "1.999999999999",
)
IDS = (
    "../../etc/passwd",
    "%2e%2e%2f",
    "%00",
    "x" * 10_000,
    "%F0%9F%98%80",
    "*",
    "{s}",
    "$ne",
    "",
    "00000000-0000-0000-0000-000000000000",
    "null",
    "default",
    "a:b",
    "%ff",
    "%",
    "%zz",
    "....//",
    "0198F0C2-7D1E-7C3A-9B52-5F0D4F6F1A2B",
    "0198f0c27d1e7c3a9b525f0d4f6f1a2b",
    "' OR 1=1 --".replace(" ", "%20"),
    "\xff\xfe",
    "-1",
)
HEADERS = (
    ("Content-Type", "text/plain"),
    ("Content-Type", "application/json; charset=utf-16"),
    ("Content-Type", "\xff"),
    ("Content-Encoding", "gzip"),
    ("Content-Encoding", "br, gzip"),
    ("Transfer-Encoding", "gzip, chunked"),
    ("Expect", "100-continue"),
    ("Expect", "miracles"),
    ("Accept", "text/event-stream"),
    ("Accept", "*/*;q=nan"),
    ("Accept", ",,,;;;==="),
    ("Accept", "x" * 5000),
    ("Idempotency-Key", ""),
    ("Idempotency-Key", "k" * 256),
    ("Idempotency-Key", "\xe9\xff"),
    ("Idempotency-Key", "a\tb"),
    ("Last-Event-ID", "-1"),
    ("Last-Event-ID", "99999999999"),
    ("Last-Event-ID", "\xff"),
    ("If-Match", "42"),
    ("If-Match", '"x"'),
    ("If-Match", '"1", W/"2", *'),
    ("If-None-Match", '"1"'),
    ("If-None-Match", "*"),
    ("Range", "bytes=9-1,2-"),
    ("Host", ""),
    ("Host", "evil.example"),
    ("X" * 2000, "y"),
    ("X-Big", "y" * 60_000),
    ("X-Huge", "y" * 90_000),
    ("Authorization", "Bearer " + "\xff" * 50),
    ("Authorization", "Basic " + "=" * 50),
    ("X-Api-Key", "\x80"),
    ("Connection", "upgrade"),
    ("Upgrade", "h2c"),
    ("Content-Length", "-1"),
    ("Content-Length", "99999999999999999999"),
    ("Content-Length", "1e3"),
    ("Origin", "https://evil.example"),
    ("Cookie", "a" * 4000),
    ("Forwarded", "for=unknown"),
    ("X-Forwarded-Proto", "\x01"),
    ("X-HTTP-Method-Override", "DELETE"),
    ("Trailer", "Content-Length"),
)
TYPES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**20,
    "",
    "x",
    "\0",
    [],
    {},
    [[]],
    {"": ""},
    {"type": "message"},
    ["message"],
)


@dataclass(frozen=True)
class Shot:
    """Bytes for a connection. `text`: what it says, if it is a valid message; `frames`: what follows an upgrade."""

    kind: str
    raw: bytes
    text: str | None = None
    frames: bytes | None = None
    deletes: bool = False
    hangs_up: bool = False


def shot(seed: int, number: int, session: str) -> Shot:
    """Shot number so-and-so, aimed at a session; all kinds come in turn."""
    return KINDS[number % len(KINDS)](random.Random(f"{seed}/{number}"), session)


def request(method: str, target: str, body: bytes = b"", *headers: tuple[str, str], length: bool = True) -> bytes:
    """A request as it goes over the wire; characters are bytes."""
    head = [("Host", "localhost"), *headers]
    if body and not any(name.lower() == "content-type" for name, _ in headers):
        head.append(("Content-Type", "application/json"))
    if length and (body or method in ("POST", "PATCH", "PUT")):
        head.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in head), "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace") + body


def nasty(chance: random.Random) -> str:
    """Text of strange code points, short or long. No surrogates: those are no text."""
    parts = [
        chance.choice(FRAGMENTS)
        if chance.random() < 0.6
        else "".join(
            chr(point) for point in (chance.randrange(1, 0x110000) for _ in range(8)) if not 0xD800 <= point < 0xE000
        )
        for _ in range(chance.choice((1, 2, 5, 20)))
    ]
    return "".join(parts) * chance.choice((1, 1, 1, 200)) or "x"


def _inputs(session: str) -> str:
    return f"/v1/sessions/{session}/inputs"


def _message(chance: random.Random, session: str) -> Shot:
    text = nasty(chance)
    body = json.dumps({"type": "message", "content": text}, ensure_ascii=chance.random() < 0.5).encode()
    return Shot("text", request("POST", _inputs(session), body), text)


def _items(chance: random.Random, session: str) -> Shot:
    text = nasty(chance)
    item: dict[str, Any] = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    for _ in range(chance.randint(0, 2)):
        item[
            chance.choice(("id", "role", "type", "status", "content", "call_id", "output", "artifact", "arguments"))
        ] = chance.choice(TYPES)
    return Shot("items", request("POST", _inputs(session), json.dumps({"type": "message", "items": [item]}).encode()))


def _surrogates(chance: random.Random, session: str) -> Shot:
    half = chance.choice(("\\ud800", "\\udfff", "\\udc00\\ud800", "\\ud83d", "\\uD83Dx"))
    where = chance.choice(
        ('{"type":"message","content":"a%sb"}', '{"type":"message","content":"x","%s":1}', '{"type":"%s"}')
    )
    return Shot("surrogates", request("POST", _inputs(session), (where % half).encode()))


def _bytes(chance: random.Random, session: str) -> Shot:
    bad = chance.choice(
        (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\xef\xbb\xbf", chance.randbytes(40))
    )
    body = chance.choice(
        (b'{"type":"message","content":"' + bad + b'"}', bad + b'{"type":"message","content":"x"}', bad * 50)
    )
    return Shot("bytes", request("POST", _inputs(session), body))


def _broken(chance: random.Random, session: str) -> Shot:
    body = bytearray(json.dumps({"type": "message", "content": nasty(chance)[:200], "on_busy": "queue"}).encode())
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(body))
        body[place : place + chance.randint(0, 3)] = chance.choice((b"", b"}", b'"', b",", b"[", b"\0", b"{", b":"))
    return Shot("broken", request("POST", _inputs(session), bytes(body)))


def _numbers(chance: random.Random, session: str) -> Shot:
    number = chance.choice(NUMBERS)
    body = chance.choice(('{"metadata":{"n":%s}}', '{"metadata":%s}', '{"metadata":{"a":[%s]}}')) % number
    way = chance.choice((("POST", "/v1/sessions"), ("PATCH", f"/v1/sessions/{session}")))
    return Shot("numbers", request(*way, body.encode()))


def _deep(chance: random.Random, session: str) -> Shot:
    depth = chance.choice((10, 63, 64, 65, 1000, 100_000))
    core = chance.choice(("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth))
    body = chance.choice((core, '{"metadata":{"a":' + core + "}}", '{"type":"message","items":[' + core + "]}"))
    target = chance.choice((_inputs(session), "/v1/sessions"))
    return Shot("depth", request("POST", target, body.encode()))


def _twice(chance: random.Random, session: str) -> Shot:
    body = '{"type":"message","content":"a","content":"b","type":"message"}'
    return Shot("twice", request("POST", _inputs(session) + chance.choice(("", "?a=1&a=2", "?turn=x")), body.encode()))


def _types(chance: random.Random, session: str) -> Shot:
    fields = (
        "type",
        "content",
        "items",
        "on_busy",
        "call_id",
        "decision",
        "reason",
        "output",
        "error",
        "turn",
        "key",
        "hide",
        "",
    )
    body = {name: chance.choice(TYPES) for name in chance.sample(fields, chance.randint(0, 5))}
    if chance.random() < 0.7:
        body["type"] = chance.choice(("message", "approval", "tool_result", "cancel"))
    return Shot("types", request("POST", _inputs(session), json.dumps(body).encode()))


def _large(chance: random.Random, session: str) -> Shot:
    size = chance.choice((2**20 - 40, 2**20, 2**20 + 1, 3 * 2**20))
    body = b'{"type":"message","content":"' + b"x" * size + b'"}'
    return Shot("size", request("POST", _inputs(session), body))


def _framing(chance: random.Random, session: str) -> Shot:
    body = b'{"type":"message","content":"framed"}'
    chunked = ("Transfer-Encoding", "chunked")
    raw, hangs_up = chance.choice(
        (
            (request("POST", _inputs(session), body, ("Content-Length", "5")), True),
            (request("POST", _inputs(session), body, ("Content-Length", "5000"), length=False), True),
            (request("POST", _inputs(session), b"25\r\n" + body + b"\r\n0\r\n\r\n", chunked, length=False), False),
            (request("POST", _inputs(session), b"zz\r\n" + body, chunked, length=False), True),
            (request("POST", _inputs(session), b"ffffffffffffffffff\r\n" + body, chunked, length=False), True),
            (request("POST", _inputs(session), b"25\r\n" + body + b"\r\n0\r\n\r\n", chunked), True),
            (request("GET", "/livez") * 20, False),
            (b"\x16\x03\x01\x02\x00\x01\x00" + chance.randbytes(100), True),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", True),
            (b"GET / HTTP/9.9\r\n\r\n", True),
            (b"\r\n" * 50 + request("GET", "/livez"), False),
            (chance.randbytes(200), True),
        )
    )
    return Shot("framing", raw, hangs_up=hangs_up)


def _headers(chance: random.Random, session: str) -> Shot:
    chosen = chance.sample(HEADERS, chance.randint(1, 3))
    if chance.random() < 0.2:
        chosen.append(chosen[0])
    way = chance.choice(
        (
            ("POST", _inputs(session)),
            ("GET", f"/v1/sessions/{session}/events"),
            ("GET", f"/v1/sessions/{session}"),
            ("PATCH", f"/v1/sessions/{session}"),
        )
    )
    body = {"POST": b'{"type":"message","content":"headed"}', "PATCH": b'{"metadata":{}}'}.get(way[0], b"")
    return Shot("headers", request(*way, body, *chosen), hangs_up=True)


def _paths(chance: random.Random, session: str) -> Shot:
    wrong, turn = chance.choice(IDS), chance.choice(IDS)
    target = chance.choice(
        (
            f"/v1/sessions/{wrong}",
            f"/v1/sessions/{wrong}/events",
            f"/v1/sessions/{session}/turns/{turn}",
            f"/v1/artifacts/{wrong}",
            f"/v1/sessions/{wrong}/inputs",
            f"/v1/sessions/{wrong}/items",
            f"//v1//sessions/{session}",
            f"/v1/sessions/{session}/",
            f"/{wrong}",
            f"http://evil.example/v1/sessions/{session}",
            f"/v1/sessions/{session}/events/../../",
            "*",
            f"/v1/sessions/{session};a=b",
            "/openapi.json/x",
        )
    )
    method = chance.choice(("GET", "GET", "POST", "PATCH"))
    return Shot(
        "paths",
        request(method, target, b'{"type":"message","content":"astray"}' if method == "POST" else b""),
        hangs_up=True,
    )


def _cursors(chance: random.Random, session: str) -> Shot:
    cursor = chance.choice(CURSORS)
    accept = ("Accept", chance.choice(("application/json", "text/event-stream", "application/x-ndjson")))
    query = chance.choice(
        (
            f"after={cursor}",
            f"after={cursor}&turn=x",
            f"limit={cursor}",
            f"wait={cursor}",
            f"after={cursor}&limit={cursor}",
            f"status={cursor}",
        )
    )
    place = chance.choice((f"{session}/events", f"{session}/items", f"{session}/turns/{session}", "", f"{session}"))
    target = f"/v1/sessions/{place}".rstrip("/") + f"?{query}"
    if chance.random() < 0.3:
        return Shot(
            "cursors",
            request("GET", f"/v1/sessions/{session}/events", b"", accept, ("Last-Event-ID", cursor)),
            hangs_up=True,
        )
    return Shot("cursors", request("GET", target, b"", accept), hangs_up=True)


def _queries(chance: random.Random, session: str) -> Shot:
    query = chance.choice(
        (
            "&".join(f"a{n}=1" for n in range(1000)),
            "%",
            "%zz=%zz",
            "metadata.=x",
            "metadata.a.b=%00",
            "metadata.%ff=1",
            "user=%ed%a0%80",
            "=",
            "metadata.'%20OR%201=1--=x",
            'metadata.a"b=1',
            "metadata.$[*]=1",
            "user=" + "x" * 5000,
            "&&&&",
            "after=" + session,
            "after=&limit=1000",
            "limit=0",
            "limit=1001",
            "status=waiting&status=idle",
            "metadata." + "k" * 3000 + "=v",
            "\xe9=\xe9",
        )
    )
    return Shot("queries", request("GET", f"/v1/sessions?{query}"), hangs_up=True)


def _methods(chance: random.Random, session: str) -> Shot:
    method = chance.choice(METHODS)
    target = chance.choice(
        (
            f"/v1/sessions/{session}",
            _inputs(session),
            "/v1/sessions",
            "/livez",
            "/metrics",
            f"/v1/sessions/{session}/fork",
        )
    )
    return Shot(
        "methods", request(method, target), deletes=method == "DELETE" and target.endswith(session), hangs_up=True
    )


def _fork(chance: random.Random, session: str) -> Shot:
    at = chance.choice(("0", "-1", "1", "2", "999999999", "1.5", '"1"', "null", "1e3", "[]", "99999999999999999999"))
    return Shot("fork", request("POST", f"/v1/sessions/{session}/fork", b'{"at":%s}' % at.encode()))


def _sockets(chance: random.Random, session: str) -> Shot:
    key = base64.b64encode(chance.randbytes(16)).decode()
    headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
    ]
    if chance.random() < 0.2:
        place = chance.randrange(4)
        headers[place] = (headers[place][0], chance.choice(("", "99", "\xff", "x" * 500)))
    target = f"/v1/sessions/{session}/events" + chance.choice(
        ("", "?after=0", "?after=x", f"?after={chance.choice(CURSORS)}")
    )
    frames = b"".join(_frame(chance) for _ in range(chance.randint(1, 6)))
    return Shot("websocket", request("GET", target, b"", *headers), frames=frames, hangs_up=True)


def _frame(chance: random.Random) -> bytes:
    payload = chance.choice(
        (
            b'{"type":"message","content":"over a socket"}',
            b'{"key":"","type":"message","content":"x"}',
            b'{"key":1}',
            b"",
            b"\xff\xfe",
            b"[" * 5000,
            b'{"type":"message","content":"\\ud800"}',
            b"null",
            b'{"type":"cancel"}',
            chance.randbytes(100),
            struct.pack("!H", chance.randrange(0, 65536)),
            b'{"type":"approval","call_id":"x","decision":"approve"}',
            b"x" * 70_000,
            b'{"type":"message","content":"a","key":"' + b"k" * 300 + b'"}',
        )
    )
    first = chance.choice((0x81, 0x81, 0x81, 0x81, 0x82, 0x01, 0x80, 0x88, 0x89, 0x8A, 0x83, 0xF1, 0x8F))
    masked = 0x80 if chance.random() < 0.9 else 0
    size = len(payload)
    length = (
        bytes([masked | size])
        if size < 126
        else struct.pack("!BH", masked | 126, size)
        if size < 65536
        else struct.pack("!BQ", masked | 127, size)
    )
    mask = chance.randbytes(4)
    return (
        bytes([first])
        + length
        + (mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload)) if masked else payload)
    )


KINDS: tuple[Callable[[random.Random, str], Shot], ...] = (
    _message,
    _items,
    _surrogates,
    _bytes,
    _broken,
    _numbers,
    _deep,
    _twice,
    _types,
    _large,
    _framing,
    _headers,
    _paths,
    _cursors,
    _queries,
    _methods,
    _fork,
    _sockets,
    _message,
    _types,
)
