"""A model that answers from a script, over real HTTP: provider clients are pointed at it and notice nothing.

async with ModelServer(script) as model:
    hold = model.hold(at=3)
    ...  # run what asks the model, with `model.environment` in its environment
    await hold.reached()
"""

import asyncio
import contextlib
import socket
from typing import Any, Literal, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from dalsegno.testing.listener import silence
from dalsegno.testing.model.faults import ANY, Fault, Faults, Hold, To
from dalsegno.testing.model.log import Log
from dalsegno.testing.model.routes import CUT, routes
from dalsegno.testing.model.scripts import Script, echo
from dalsegno.testing.model.serving import Model


class ModelServer:
    """Listens on `port` of the loopback interface while it is entered; `script` may be exchanged at any time.

    `ids="fresh"`: calls and items get other ids each time they are asked for, as real providers do it. Otherwise the
    same context gets the same ids.
    """

    def __init__(self, script: Script = echo, *, port: int = 0, ids: Literal["derived", "fresh"] = "derived") -> None:
        self.port = port
        self.script = script
        self.log = Log()
        self.model = Model(lambda: self.script, faults=Faults(), log=self.log, ids=ids)
        self._server: asyncio.Server | None = None
        self._state = ServerState()

    @property
    def url(self) -> str:
        """Where it is: the base URL of Anthropic's clients; OpenAI's want `/v1` behind it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which the clients find it."""
        return environment(self.url)

    def hold(self, at: int = 0, *, to: To = ANY) -> Hold:
        """Hold the next answer that fits behind its delta number `at` (0: before it begins) until it is released."""
        return self.model.faults.hold(at, to=to)

    def plan(self, *faults: Fault, to: To = ANY) -> None:
        """The next requests that fit get these faults, one each."""
        self.model.faults.plan(*faults, to=to)

    def calm(self) -> None:
        """Forget planned faults and release every hold."""
        self.model.faults.clear()

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            routes(self.model),
            http=_Http,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=60,
        )
        config.load()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Http(config, self._state, {}), sock=listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.calm()
        if self._server is not None:
            await silence(self._server)
        for connection in [*self._state.connections]:
            transport: Any = connection.transport
            transport.abort()
        await asyncio.sleep(0)  # they are closed in the loop's next round
        for task in [*self._state.tasks]:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def environment(url: str) -> dict[str, str]:
    """The variables by which OpenAI's and Anthropic's clients, and those built on them, find a model server."""
    return {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": "none",
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "none",
    }


class _Http(HttpToolsProtocol):
    """The app may cut the connection, after what is on its way."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: Any = self.scope
        scope["extensions"] = {CUT: self.transport.close}
