"""The application: the route table behind one door. Everything that can go wrong in a request ends here as an answer.

Pure ASGI on Starlette's routes: nothing stands between a stream and its socket, not even the coroutines that found it.
"""

import logging
import secrets
import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry
from starlette.routing import BaseRoute, Match, WebSocketRoute
from starlette.routing import Route as StarletteRoute
from starlette.types import Receive, Scope, Send

from dalsegno.errors import Outcome, Refused, Unavailable, Unreadable
from dalsegno.http.auth import Keys
from dalsegno.http.call import Answer, Call, Cut, cut
from dalsegno.http.desk import Desk
from dalsegno.http.gate import Gate, Limits
from dalsegno.http.metrics import Metrics
from dalsegno.http.needs import Service
from dalsegno.http.problems import STATUS, problem, problem_bytes, problem_headers
from dalsegno.http.routes import EVENTS, ROUTES, Response, Route
from dalsegno.http.websocket import Conversation, converse
from dalsegno.wire.native import Frames
from dalsegno.wire.openapi import document

logger = logging.getLogger("dalsegno.http")
SAFE = frozenset({"GET", "HEAD"})


class App:
    """The ASGI application. `gate` is the way to drain it."""

    def __init__(self, desk: Desk) -> None:
        self.gate = desk.gate
        paths: dict[str, dict[str, Route]] = {}
        for route in ROUTES:
            paths.setdefault(route.operation.path, {})[route.operation.method] = route
        self._rows: list[BaseRoute] = [StarletteRoute(path, Endpoint(desk, methods)) for path, methods in paths.items()]
        self._rows.append(WebSocketRoute(EVENTS, Endpoint(desk, {})))
        self._nowhere = Endpoint(desk, {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._endpoint(scope)(scope, receive)
        try:
            if scope["type"] == "websocket" and isinstance(response, Answer):
                await _reject(response, scope, send)
            else:
                await response(scope, receive, send)
        except Cut:
            raise
        except Exception:
            logger.exception("a response broke off: %s %s", scope.get("method", "WebSocket"), scope["path"])
            await cut(scope, receive)

    def _endpoint(self, scope: Scope) -> "Endpoint":
        """Whom that path belongs to; what it says of the path's parts is in the scope."""
        for row in self._rows:
            match, found = row.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                endpoint: Endpoint = found["endpoint"]
                return endpoint
        return self._nowhere


def build_app(
    service: Service,
    *,
    keys: Keys | None = None,
    limits: Limits | None = None,
    registry: CollectorRegistry | None = None,
    version: str = "0",
) -> App:
    """The HTTP face of a runtime. Without `keys` everybody is tenant `default`; `registry` may hold others' figures."""
    limits = limits or Limits()
    gate = Gate(limits, clock=time.monotonic)
    desk = Desk(
        service=service,
        keys=keys or Keys(),
        gate=gate,
        frames=Frames(),
        metrics=Metrics(registry or CollectorRegistry(), gate),
        now=lambda: time.time_ns() // 1_000_000,
        about=document([route.operation for route in ROUTES], statuses=STATUS, version=version),
    )
    return App(desk)


class Endpoint:
    """One path: finds the method, lets the request in, and turns every error into its answer."""

    def __init__(self, desk: Desk, routes: Mapping[str, Route]) -> None:
        self._desk = desk
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive) -> "Response | Conversation":
        """What is to be sent."""
        if scope["type"] == "websocket":
            await receive()  # websocket.connect
            return await self._answer(None, scope, receive)
        method = scope["method"]
        route = self._routes.get("GET" if method == "HEAD" else method)
        began = time.perf_counter()
        response = await self._answer(route, scope, receive)
        label = route.label if route else "none"
        self._desk.metrics.requests.labels(label, str(response.status)).inc()
        self._desk.metrics.seconds.labels(label).observe(time.perf_counter() - began)
        return response

    async def _answer(self, route: Route | None, scope: Scope, receive: Receive) -> "Response | Conversation":
        call = Call(scope, receive, limits=self._desk.gate.limits)
        try:
            return await self._let_in(route, call)
        except Refused as error:
            answer = self._problem(error.code, error.detail, "not_applied", error)
        except Unavailable as error:
            outcome: Outcome = "not_applied" if scope.get("method", "GET") in SAFE else error.outcome
            answer = self._problem(error.code, error.brief, outcome, error)
        except Unreadable as error:
            answer = self._fault("unreadable", "stored state cannot be read; an operator has to look", error)
        except Exception as error:
            answer = self._fault("internal", "an error of the server's own", error)
        if scope.get("method") not in SAFE and scope["type"] == "http":
            await call.discard()
            if not call.read:
                answer.headers.append((b"connection", b"close"))
        return answer

    async def _let_in(self, route: Route | None, call: Call) -> "Response | Conversation":
        desk, socket = self._desk, call.scope["type"] == "websocket"
        if route is None and not (socket and "path_params" in call.scope):
            return self._no_route(call)
        if route is not None and not route.private:
            return await route.handler(desk, call)
        if desk.gate.draining or desk.service.draining:
            raise Unavailable("this replica is going away", outcome="not_applied", code="draining")
        call.tenant = desk.keys.tenant(call.header(b"authorization"), call.header(b"x-api-key"))
        with desk.gate.request():
            return await (converse(desk, call) if route is None else route.handler(desk, call))

    def _no_route(self, call: Call) -> Answer:
        if not self._routes:
            return self._problem("not_found", "", "not_applied", None)
        allowed = sorted({*self._routes, *(["HEAD"] if "GET" in self._routes else [])})
        answer = self._problem("method_not_allowed", f"allowed here: {', '.join(allowed)}", "not_applied", None)
        answer.headers.append((b"allow", ", ".join(allowed).encode()))
        return answer

    def _problem(self, code: str, detail: str, outcome: Outcome, error: Exception | None) -> Answer:
        if code not in STATUS:
            return self._fault("internal", "an error of the server's own", error or AssertionError(code))
        found = problem(code, detail, outcome=outcome)
        return Answer(found.status, problem_bytes(found), problem_headers(code))

    def _fault(self, code: str, detail: str, error: Exception) -> Answer:
        """An error that no client caused. The client gets a reference, the log the rest."""
        reference = secrets.token_hex(8)
        logger.error("%s, reference %s", code, reference, exc_info=error)
        outcome: Outcome = "not_applied" if code == "unreadable" else "unknown"
        found = problem(code, detail, outcome=outcome, reference=reference)
        return Answer(found.status, problem_bytes(found), problem_headers(code))


async def _reject(answer: Answer, scope: Scope, send: Send) -> None:
    """Refuse an upgrade with an ordinary HTTP answer, where the server can."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": str(answer.status)})
        return
    await send({"type": "websocket.http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "websocket.http.response.body", "body": answer.body})
