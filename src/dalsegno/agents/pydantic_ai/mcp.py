"""MCP servers: calls carry their key, and a connection that is lost is made again while others still hold it."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.toolsets import AbstractToolset

from dalsegno.agents.current import current_call
from dalsegno.agents.lost import is_lost
from dalsegno.errors import DalsegnoError
from dalsegno.ports import Call

CallTool = Callable[..., Awaitable[Any]]
Hook = Callable[[RunContext[Any], CallTool, str, dict[str, Any]], Awaitable[Any]]


class Connection:
    """Stands around the calls of one server: `server` is its toolset, the user's own hook is kept inside.

    The framework connects with the first run, and runs at the same time share that until the last of them ends. On a
    busy replica that is never: so whoever finds it lost says so, and it is made again before tools are looked for.
    """

    def __init__(self, server: Any) -> None:
        self.server = server
        hook = server.process_tool_call
        self.inner: Hook | None = hook.inner if isinstance(hook, Connection) else hook
        self._list_tools = partial(type(server).list_tools, server)
        self._lost: tuple[Any] | None = None
        """The session that was found lost."""
        self._turnstile = asyncio.Lock()

    async def __call__(self, ctx: RunContext[Any], call_tool: CallTool, name: str, arguments: dict[str, Any]) -> Any:
        """Call the server's tool, once, the user's hook around it, with the key of the call that is carried out."""
        call, session = _current(), self._session

        async def keyed(name: str, args: dict[str, Any], *, metadata: dict[str, Any] | None = None) -> Any:
            return await call_tool(name, args, metadata={**(call.meta if call else {}), **(metadata or {})} or None)

        try:
            if self.inner is None:
                return await keyed(name, arguments)
            return await self.inner(ctx, keyed, name, arguments)
        except Exception as error:
            if is_lost(error):
                self._lost = (session,)
            raise

    async def list_tools(self) -> Any:
        """The server's own, over a connection that is there."""
        await self._ready()
        session = self._session
        try:
            return await self._list_tools()
        except Exception as error:
            if is_lost(error):
                self._lost = (session,)
                await self._ready()
                return await self._list_tools()
            raise

    async def _ready(self) -> None:
        """It is there, if it was; anew, if it was found lost. Raises what the client does."""
        async with self._turnstile:
            if self._lost is not None and (self._session is None or self._session is self._lost[0]):
                await self.server.client.close()
                await self.server.client.__aenter__()  # in the place of the hold that the toolset had on the lost one
            self._lost = None

    @property
    def _session(self) -> Any:
        client = self.server.client
        return client.session if client.is_connected() else None


def watch(toolset: AbstractToolset[Any]) -> None:
    """Stand around the calls of a toolset, if it is an MCP server; once."""
    module = sys.modules.get("pydantic_ai.mcp")  # who has a server has imported it, which takes a package of its own
    if module is None or not isinstance(toolset, module.MCPToolset):
        return
    server: Any = toolset
    hook = server.process_tool_call
    if not isinstance(hook, Connection) or hook.server is not server:
        connection = Connection(server)
        server.process_tool_call, server.list_tools = connection, connection.list_tools


def _current() -> Call | None:
    try:
        return current_call()
    except DalsegnoError:
        return None
