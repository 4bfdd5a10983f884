"""MCP servers: connected once in each process, when an agent first needs them; calls carry their key."""

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any

from agents.mcp import MCPServer, MCPServerManager

from dalsegno.agents.current import current_call
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


class Connections:
    """This process's connections. One that failed is tried again by the next turn."""

    def __init__(self, servers: Sequence[MCPServer]) -> None:
        self._servers = list(servers)
        self._manager: MCPServerManager | None = None
        self._turnstile: asyncio.Lock | None = None

    async def ready(self) -> None:
        """All of them are connected. Raises what the first that is not has to say."""
        if not self._servers:
            return
        self._turnstile = self._turnstile or asyncio.Lock()
        async with self._turnstile:
            if self._manager is None:
                self._manager = MCPServerManager(self._servers, connect_in_parallel=True)
                await self._manager.connect_all()
            elif self._manager.failed_servers:
                await self._manager.reconnect(failed_only=True)
            for server in self._manager.failed_servers:
                error = self._manager.errors.get(server)
                raise DalsegnoError(f"MCP server {server.name!r} cannot be reached: {error!r}")
