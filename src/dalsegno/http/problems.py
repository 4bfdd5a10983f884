"""Errors as clients see them: code → status, RFC 9457 bodies, and who may try again when."""

from http import HTTPStatus

from dalsegno.core.json import dumps
from dalsegno.errors import Outcome, Refused, Unavailable
from dalsegno.wire import shapes

STATUS: dict[str, int] = {
    "invalid_request": 400,
    "invalid_json": 400,
    "invalid_unicode": 400,
    "invalid_cursor": 400,
    "cursor_ahead": 400,
    "too_deep": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "session_busy": 409,
    "session_exists": 409,
    "no_such_action": 409,
    "already_decided": 409,
    "version_mismatch": 412,
    "too_large": 413,
    "unsupported_media_type": 415,
    "range_not_satisfiable": 416,
    "key_reused": 422,
    "rate_limited": 429,
    "queue_full": 429,
    "internal": 500,
    "unreadable": 500,
    "overloaded": 503,
    "draining": 503,
    "store_unavailable": 503,
}
"""Every error code and its status; the documentation's table is generated from this one."""

RETRY_AFTER_SECONDS = {"rate_limited": 1, "queue_full": 1, "overloaded": 1, "draining": 1, "store_unavailable": 1}
FINAL = frozenset({"session_busy", "session_exists", "no_such_action", "already_decided"})
"""409s: common clients repeat them by themselves, and must be told not to."""

NOT_FOUND = "it does not exist, or it is not yours"
"""The one sentence for everything that is not there, so that a stranger learns nothing from it (P11)."""

MEDIA = b"application/problem+json"
Headers = list[tuple[bytes, bytes]]


def problem(
    code: str, detail: str, *, outcome: Outcome = "not_applied", reference: str | None = None
) -> shapes.Problem:
    """The error's body."""
    status = STATUS[code]
    detail = NOT_FOUND if code == "not_found" else detail
    title = HTTPStatus(status).phrase
    return shapes.Problem(title=title, status=status, code=code, detail=detail, outcome=outcome, reference=reference)


def problem_of(error: Refused | Unavailable) -> shapes.Problem | None:
    """The error's body; None for a code that is in no contract, which is a fault of ours."""
    if error.code not in STATUS:
        return None
    detail = error.brief if isinstance(error, Unavailable) else error.detail
    return problem(error.code, detail, outcome=error.outcome)


def problem_bytes(found: shapes.Problem) -> bytes:
    """The body as sent."""
    return dumps(found)


def problem_headers(code: str) -> Headers:
    """What goes with an error besides its body."""
    headers = [(b"content-type", MEDIA)]
    if code in RETRY_AFTER_SECONDS:
        headers.append((b"retry-after", str(RETRY_AFTER_SECONDS[code]).encode()))
    if code in FINAL:
        headers.append((b"x-should-retry", b"false"))
    if code == "draining":
        headers.append((b"connection", b"close"))  # the next attempt is another connection's, and another replica's
    if code == "unauthorized":
        headers.append((b"www-authenticate", b'Bearer realm="dalsegno"'))
    return headers
