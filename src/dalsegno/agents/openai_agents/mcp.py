"""MCP servers: connected in each process when an agent first needs them, and again when that is lost; calls carry their
key.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agents.mcp import MCPServer, MCPServerManager

from dalsegno.agents.current import current_call
from dalsegno.agents.lost import is_lost
from dalsegno.core.json import JsonObject
from dalsegno.errors import DalsegnoError


class Keyed:
    """Makes the `_meta` of a call: what the user's resolver says, and the key."""

    def __init__(self, resolver: Any) -> None:
        self._resolver = resolver

    async def __call__(self, context: Any) -> JsonObject | None:
        """Called by the SDK before each call."""
        found: Any = None if self._resolver is None else self._resolver(context)
        if inspect.isawaitable(found):
            found = await found
        try:
            return {**(found or {}), **current_call().meta}
        except DalsegnoError:  # the agent is run by its author, and not served
            return None if found is None else dict(found)


def with_key(server: MCPServer) -> MCPServer:
    """The server itself, told to send keys; once."""
    if not isinstance(server.tool_meta_resolver, Keyed):
        server.tool_meta_resolver = Keyed(server.tool_meta_resolver)
    return server


class Connection:
    """One server's. A call or a list of tools that finds it lost (its process died, its host restarted) says so: it is
    made anew before tools are listed the next time, and calls are not repeated.
    """

    def __init__(self, server: MCPServer) -> None:
        self._server = server
        self._manager = MCPServerManager([server], connect_in_parallel=True)
        self._turnstile = asyncio.Lock()
        self._number = 0
        """How often it was made."""
        self._lost = 0
        """The last one that is known to be lost; 0 is the one that never was."""
        self._list_tools = server.list_tools
        self._call_tool = server.call_tool
        setattr(server, "list_tools", self.list_tools)  # noqa: B010 -- methods of one object
        setattr(server, "call_tool", self.call_tool)  # noqa: B010

    async def ready(self) -> None:
        """It is there. Raises `DalsegnoError` if the server cannot be reached."""
        async with self._turnstile:
            if self._lost == self._number:
                await self._manager.reconnect(failed_only=False)
                self._number += not self._manager.failed_servers
                forget = getattr(self._server, "invalidate_tools_cache", None)
                if forget is not None:
                    forget()
        for server in self._manager.failed_servers:
            error = self._manager.errors.get(server)
            raise DalsegnoError(f"MCP server {server.name!r} cannot be reached: {error!r}")

    async def list_tools(self, *args: Any, **kwargs: Any) -> Any:
        """The server's own, over a connection that is there."""
        await self.ready()
        try:
            return await self._watched(self._list_tools, *args, **kwargs)
        except Exception as error:
            if is_lost(error):
                await self.ready()
                return await self._watched(self._list_tools, *args, **kwargs)
            raise

    async def call_tool(self, *args: Any, **kwargs: Any) -> Any:
        """The server's own, once."""
        return await self._watched(self._call_tool, *args, **kwargs)

    async def _watched(self, ask: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        number = self._number
        try:
            return await ask(*args, **kwargs)
        except Exception as error:
            if is_lost(error):
                self._lost = max(self._lost, number)
            raise


def connection_to(server: MCPServer) -> Connection:
    """The server's connection, the same for all who ask in this process."""
    found = getattr(server.call_tool, "__self__", None)
    return found if isinstance(found, Connection) else Connection(server)


class Connections:
    """This process's connections, made when an agent first needs them."""

    def __init__(self, servers: Sequence[MCPServer]) -> None:
        self._servers = list(servers)

    async def ready(self) -> None:
        """All of them are there. Raises what the first that is not has to say."""
        await asyncio.gather(*(connection_to(server).ready() for server in self._servers))
