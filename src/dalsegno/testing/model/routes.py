"""The server's routes: three that providers have, and those by which a test in another process sees and steers it."""

import asyncio
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dalsegno.testing.model.chat import CHAT
from dalsegno.testing.model.faults import ANY, Fault, To
from dalsegno.testing.model.messages import MESSAGES
from dalsegno.testing.model.responses import RESPONSES
from dalsegno.testing.model.serving import Exchange, Line, Model
from dalsegno.testing.model.shown import Protocol
from dalsegno.testing.model.wire import Wire

CUT = "dalsegno.cut"
WAIT_SECONDS_MAX = 60.0
WIRES: dict[Protocol, Wire] = {"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES}


def routes(model: Model) -> Starlette:
    """The ASGI application."""
    control = Control(model)
    asked = [Route(wire.path, Door(model, name, wire), methods=["POST"]) for name, wire in WIRES.items()]
    return Starlette(
        routes=[
            *asked,
            Route("/log", control.log),
            Route("/hold", control.hold, methods=["POST"]),
            Route("/hold/{name}", control.reached),
            Route("/release", control.release, methods=["POST"]),
            Route("/faults", control.faults, methods=["POST"]),
        ]
    )


class Door:
    """Where requests of one wire format come in."""

    def __init__(self, model: Model, protocol: Protocol, wire: Wire) -> None:
        self._model, self._protocol, self._wire = model, protocol, wire

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        entry = self._model.log.begin(self._protocol, headers)
        line = Line(receive, send, scope["extensions"][CUT])
        await Exchange(self._model, self._wire, entry, line).run()


class HoldRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Hold the next answers that fit behind delta `at`."""

    at: int = 0
    to: To = ANY


class ReleaseRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Release one hold, or forget everything that is to go wrong."""

    hold: str | None = None


class FaultsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The next requests that fit get these."""

    faults: list[Fault]
    to: To = ANY


class Control:
    """What a test does with the server by HTTP. Bodies are JSON; what is wrong with one is answered with 400."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def log(self, request: Request) -> Response:
        """`GET /log?after=N`: the entries behind that number."""
        after = request.query_params.get("after", "0")
        return _json({"data": self._model.log.after(int(after) if after.isdecimal() else 0)})

    async def hold(self, request: Request) -> Response:
        """`POST /hold {"at": 3, "to": {"said": …}}`: the name of the hold."""
        return await self._told(request, HoldRequest, lambda asked: self._model.faults.hold(asked.at, to=asked.to).name)

    async def reached(self, request: Request) -> Response:
        """`GET /hold/NAME?wait=5`: whether an answer stands there, as soon as one does."""
        hold = self._model.faults.holds.get(request.path_params["name"])
        if hold is None:
            return _json({"error": "there is no such hold"}, status=404)
        try:
            wait = min(float(request.query_params.get("wait", "0")), WAIT_SECONDS_MAX)
            async with asyncio.timeout(wait):
                await hold.reached()
        except ValueError:
            return _json({"error": "wait is a number of seconds"}, status=400)
        except TimeoutError:
            pass
        return _json({"hold": hold.name, "reached": hold.is_reached, "released": hold.is_released})

    async def release(self, request: Request) -> Response:
        """`POST /release {"hold": NAME}`: let its answers go on; without a name, all, and nothing goes wrong again."""

        def release(asked: ReleaseRequest) -> str | None:
            if asked.hold is None:
                self._model.faults.clear()
            else:
                self._model.faults.holds[asked.hold].release()
            return asked.hold

        return await self._told(request, ReleaseRequest, release)

    async def faults(self, request: Request) -> Response:
        """`POST /faults {"faults": [{"kind": "fail", "status": 529}]}`: the next requests get these."""
        return await self._told(
            request, FaultsRequest, lambda asked: self._model.faults.plan(*asked.faults, to=asked.to)
        )

    async def _told(self, request: Request, kind: Any, act: Any) -> Response:
        try:
            asked = msgspec.json.decode(await request.body() or b"{}", type=kind)
            return _json({"hold": act(asked)})
        except (msgspec.MsgspecError, KeyError) as error:
            return _json({"error": str(error)}, status=400)


def _json(content: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
