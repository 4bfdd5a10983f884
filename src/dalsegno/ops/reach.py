"""Sessions from a terminal: on a server through the client, or in a warm tier directly. The same six verbs for both.

Whatever comes back is the contract's JSON; nothing here prints.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Protocol

import msgspec

from dalsegno.client import ApiError, Client, Unreachable
from dalsegno.core.ids import parse_session_id
from dalsegno.core.json import JsonObject
from dalsegno.errors import ConfigError, DalsegnoError, Refused
from dalsegno.ops.config import Reach, redacted
from dalsegno.ops.ids import RandomIds
from dalsegno.ops.tiers import opened, places
from dalsegno.ports import Member, Query, Ref
from dalsegno.runtime.replica import Replica
from dalsegno.runtime.service import Service
from dalsegno.wire.native import session_bytes
from dalsegno.wire.transfer import Import, export_line

DEFAULT_URL = "http://127.0.0.1:8000"
PAGE = 200


class Desk(Protocol):
    """Where the sessions are."""

    def list(self) -> AsyncIterator[JsonObject]:
        """Every session, in order of id."""
        ...

    async def get(self, session: str) -> JsonObject: ...

    async def export(self, session: str) -> bytes:
        """The session's log, one event's JSON a line."""
        ...

    async def restore(self, lines: bytes) -> str:
        """A new session from an export; its id."""
        ...

    async def fork(self, session: str, *, at: int | None) -> str:
        """A new session that begins as a copy; its id."""
        ...

    async def delete(self, session: str) -> None: ...


@asynccontextmanager
async def reached(reach: Reach) -> AsyncIterator[Desk]:
    """The sessions that `reach` means: its URL, else its warm tier, else a server on this machine."""
    url = reach.url or ("" if reach.warm else DEFAULT_URL)
    async with AsyncExitStack() as stack:
        if url.startswith(("http://", "https://")):
            client = await stack.enter_async_context(Client(url, api_key=reach.api_key or None))
            yield Remote(client, url)
        else:
            direct = msgspec.structs.replace(reach, warm=url or reach.warm)
            yield await stack.enter_async_context(_direct(direct))


class Remote:
    """On a server."""

    def __init__(self, client: Client, url: str) -> None:
        self._client = client
        self._url = url

    async def list(self) -> AsyncIterator[JsonObject]:
        """See `Desk`."""
        with self._said():
            async for session in self._client.sessions.list():
                yield session
