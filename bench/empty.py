"""A server that does nothing: what a request costs before anybody has thought about it."""

import asyncio
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dalsegno.ops.loop import factory


async def nothing(request: Request) -> JSONResponse:
    """Reads the body and answers."""
    await request.body()
    return JSONResponse({"ok": True}, 202)


if __name__ == "__main__":
    app = Starlette(routes=[Route("/{path:path}", nothing, methods=["GET", "POST"])])
    config = uvicorn.Config(app, port=int(sys.argv[1]), http="httptools", access_log=False, log_level="warning")
    with asyncio.Runner(loop_factory=factory()) as runner:
        runner.run(uvicorn.Server(config).serve())
