"""The route table: every route of the contract once, with all that is to be known about it.

The router and the OpenAPI document are both made from it; `/openapi.json` cannot promise what is not served.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from dalsegno.core.json import JsonObject
from dalsegno.http import events, health, sessions, turns
from dalsegno.http.call import Answer, Call
from dalsegno.http.desk import Desk
from dalsegno.http.events import Export
from dalsegno.http.sse import EventStream
from dalsegno.wire import shapes
from dalsegno.wire.openapi import BYTES, JSON, NDJSON, SSE, Operation, Parameter
from dalsegno.wire.openapi import Answer as Says
from dalsegno.wire.requests import ETAGS, LIMIT, LIMIT_MAX, WAIT_SECONDS_MAX

Response: TypeAlias = Answer | EventStream | Export
Handler: TypeAlias = Callable[[Desk, Call], Awaitable[Response]]
API = "/v1/"
EVENTS = "/v1/sessions/{s}/events"


@dataclass(frozen=True)
class Route:
    """A row: what is promised, and the function that does it."""

    operation: Operation
    handler: Handler

    @property
    def label(self) -> str:
        """The route's name in metrics."""
        return f"{self.operation.method} {self.operation.path}"

    @property
    def private(self) -> bool:
        """Whether it takes a tenant's credentials, and is closed while the replica drains."""
        return self.operation.path.startswith(API)


_ANYWHERE = (
    "invalid_request",
    "unauthorized",
    "rate_limited",
    "internal",
    "overloaded",
    "draining",
    "store_unavailable",
)
_BODY = ("invalid_json", "invalid_unicode", "too_deep", "too_large", "unsupported_media_type")
_FOUND = ("not_found", "unreadable")

_SESSION = Parameter("s", "path", "The session's id.", {"type": "string", "format": "uuid"})
_TURN = Parameter("t", "path", "The turn's id.", {"type": "string", "format": "uuid"})
_ARTIFACT = Parameter("a", "path", "The artifact's name.", {"type": "string"})
_POSITION: JsonObject = {"type": "string", "pattern": r"^(0|[1-9][0-9]{0,9})(\.[1-9][0-9]{0,11})?$"}
_CURSOR = Parameter("after", "query", "The last cursor received.", _POSITION)
_LAST = Parameter("Last-Event-ID", "header", "The last cursor received; wins over `after`.", _POSITION)
_OF_TURN = Parameter("turn", "query", "Only this turn, and no longer than it.", {"type": "string"})
_LIMIT = Parameter(
    "limit", "query", "The page's size.", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT}
)
_PAGE = Parameter("after", "query", "`next` of the page before.", {"type": "string", "format": "uuid"})
_ITEMS = Parameter("after", "query", "`next` of the page before.", _POSITION)
_STATUS = Parameter(
    "status", "query", "Only such sessions.", {"type": "string", "enum": ["idle", "running", "waiting"]}
)
_USER = Parameter("user", "query", "Only this user's sessions.", {"type": "string"})
_MATCH = Parameter("If-Match", "header", "The session's ETag, several, or `*`.", {"type": "string", "pattern": ETAGS})
_KEY = Parameter(
    "Idempotency-Key", "header", "Makes a repeat safe.", {"type": "string", "pattern": r"^[\x20-\x7e]{1,255}$"}
)
_NONE_MATCH = Parameter(
    "If-None-Match", "header", "`*` creates the session if it does not exist.", {"type": "string", "enum": ["*"]}
)
_WAIT = Parameter(
    "wait", "query", "Seconds to wait for the end.", {"type": "number", "minimum": 0, "maximum": WAIT_SECONDS_MAX}
)
_RANGE = Parameter("Range", "header", "One range of bytes.", {"type": "string"})

_ETAG = {"ETag": "The session's head."}
_MADE = {**_ETAG, "Location": "The session."}
_TAKEN = {"Location": "The turn's stream.", "Idempotent-Replayed": "`true` when the key was known."}


def _json(says: str, kind: Any, headers: dict[str, str] | None = None) -> Says:
    return Says(says, {JSON: kind}, headers or {})


# fmt: off
ROUTES: tuple[Route, ...] = (
    Route(
        Operation(
            "POST", "/v1/sessions", "createSession", "Create a session, or import one from its export",
            {201: _json("The session.", shapes.Session, _MADE)},
            body={JSON: shapes.NewSession, NDJSON: None}, errors=(*_ANYWHERE, *_BODY, "session_exists"),
        ),
        sessions.create,
    ),
    Route(
        Operation(
            "GET", "/v1/sessions", "listSessions", "A page of sessions; `metadata.NAME=VALUE` selects by a text in it",
            {200: _json("The page.", shapes.SessionPage)},
            (_PAGE, _LIMIT, _STATUS, _USER), errors=(*_ANYWHERE, "invalid_cursor", "invalid_unicode"),
        ),
        sessions.browse,
    ),
    Route(
        Operation(
            "GET", "/v1/sessions/{s}", "getSession", "One session",
            {200: _json("The session.", shapes.Session, _ETAG)},
            (_SESSION,), errors=(*_ANYWHERE, *_FOUND),
        ),
        sessions.read,
    ),
    Route(
        Operation(
            "PATCH", "/v1/sessions/{s}", "updateSession", "Replace the metadata",
            {200: _json("The session.", shapes.Session, _ETAG)},
            (_SESSION, _MATCH), {JSON: shapes.Patch}, needs_body=True,
            errors=(*_ANYWHERE, *_FOUND, *_BODY, "version_mismatch"),
        ),
        sessions.change,
    ),
    Route(
        Operation(
            "DELETE", "/v1/sessions/{s}", "deleteSession", "Delete a session and everything that belongs to it",
            {204: Says("It is gone.")}, (_SESSION,), errors=(*_ANYWHERE, *_FOUND),
        ),
        sessions.delete,
    ),
    Route(
        Operation(
            "POST", "/v1/sessions/{s}/fork", "forkSession", "A new session that begins as a copy",
            {201: _json("The new session.", shapes.Session, _MADE)},
            (_SESSION,), {JSON: shapes.Fork}, errors=(*_ANYWHERE, *_FOUND, *_BODY),
        ),
        sessions.fork,
    ),
    Route(
        Operation(
            "GET", "/v1/sessions/{s}/items", "listItems", "A page of the conversation",
            {200: _json("The page.", shapes.ItemPage)},
            (_SESSION, _ITEMS, _LIMIT), errors=(*_ANYWHERE, *_FOUND, "invalid_cursor", "cursor_ahead"),
        ),
        sessions.items,
    ),
    Route(
        Operation(
            "POST", "/v1/sessions/{s}/inputs", "say", "Say something to a session",
            {
                202: _json("The receipt: it is in the log.", shapes.Receipt, _TAKEN),
                200: Says("The turn's stream.", {SSE: None}, _TAKEN),
            },
            (_SESSION, _KEY, _NONE_MATCH), {JSON: shapes.Input}, needs_body=True,
            errors=(
                *_ANYWHERE, *_FOUND, *_BODY,
                "session_busy", "no_such_action", "already_decided", "key_reused", "queue_full",
            ),
        ),
        turns.say,
    ),
    Route(
        Operation(
            "GET", EVENTS, "listEvents", "A page of events, an export of all, or a stream; also a WebSocket",
            {
                200: Says("Events.", {JSON: shapes.EventPage, SSE: None, NDJSON: None}),
                204: Says("Nothing can follow."),
            },
            (_SESSION, _CURSOR, _LAST, _OF_TURN, _LIMIT),
            errors=(*_ANYWHERE, *_FOUND, "invalid_cursor", "cursor_ahead"),
        ),
        events.events,
    ),
    Route(
        Operation(
            "GET", "/v1/sessions/{s}/turns/{t}", "getTurn", "One turn, now or once it has come to rest",
            {200: _json("The turn.", shapes.Turn)}, (_SESSION, _TURN, _WAIT), errors=(*_ANYWHERE, *_FOUND),
        ),
        turns.show,
    ),
    Route(
        Operation(
            "GET", "/v1/artifacts/{a}", "getArtifact", "The bytes of an artifact",
            {200: Says("All of them.", {BYTES: None}), 206: Says("The range.", {BYTES: None})},
            (_ARTIFACT, _RANGE), errors=(*_ANYWHERE, *_FOUND, "range_not_satisfiable"),
        ),
        sessions.artifact,
    ),
    Route(
        Operation("GET", "/livez", "livez", "Alive", {200: _json("Yes.", dict[str, str])}), health.livez
    ),
    Route(
        Operation(
            "GET", "/readyz", "readyz", "Ready for requests",
            {200: _json("Yes.", dict[str, str]), 503: _json("No.", dict[str, str])},
        ),
        health.readyz,
    ),
    Route(
        Operation(
            "GET", "/health", "health", "How the replica is",
            {200: _json("Ready.", shapes.Health), 503: _json("Not ready.", shapes.Health)},
        ),
        health.health,
    ),
    Route(
        Operation("GET", "/metrics", "metrics", "Figures for Prometheus", {200: Says("Text.", {"text/plain": None})}),
        health.metrics,
    ),
    Route(
        Operation("GET", "/openapi.json", "openapi", "This document", {200: _json("JSON.", dict[str, Any])}),
        health.openapi,
    ),
)
