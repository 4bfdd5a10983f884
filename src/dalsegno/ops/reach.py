"""Sessions from a terminal: on a server through the client, or in a warm tier directly. The same six verbs for both.

Whatever comes back is the contract's JSON; nothing here prints.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from dalsegno import stores
from dalsegno.client import ApiError, Client, Retry, Unreachable
from dalsegno.core.event import Event
from dalsegno.core.idle import Policy
from dalsegno.core.ids import parse_session_id
from dalsegno.core.json import JsonObject
from dalsegno.errors import ConfigError, DalsegnoError, Refused
from dalsegno.ops.config import Reach, redacted
from dalsegno.ops.ids import RandomIds
from dalsegno.ops.tiers import opened, places
from dalsegno.ports import Member, Query, Ref
from dalsegno.runtime.archivist import Archivist, Tally
from dalsegno.runtime.replica import Replica
from dalsegno.runtime.service import Service
from dalsegno.wire.native import session_bytes
from dalsegno.wire.transfer import Import, export_line

DEFAULT_URL = "http://127.0.0.1:8000"
PAGE = 200
RETRY = Retry(rounds=3, longest=timedelta(seconds=1))


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

    def archive(self, *, idle: timedelta) -> AsyncIterator[Tally]:
        """Archive what was idle for so long; how far that is, again and again."""
        ...


class NotReached(DalsegnoError):
    """Nobody answers there."""


@asynccontextmanager
async def reached(reach: Reach) -> AsyncIterator[Desk]:
    """The sessions that `reach` means: its URL, else its warm tier, else a server on this machine.

    Inside and outside, what cannot be done raises `Refused`, `NotReached` or another `DalsegnoError`.
    """
    url = reach.url or reach.warm or DEFAULT_URL
    refuse_nowhere(url)
    if not url.lower().startswith(("http://", "https://")):
        async with _direct(msgspec.structs.replace(reach, warm=url)) as desk:
            yield desk
        return
    try:
        async with Client(url, api_key=reach.api_key or None, retry=RETRY) as client:
            yield Remote(client)
    except Unreachable as error:
        raise NotReached(f"no server answers at {redacted(url)}: start one, or name it with --url or --warm") from error
    except ApiError as error:
        hint = "give the key with --api-key or DALSEGNO_API_KEY" if error.status == 401 else error.detail
        raise Refused(error.code, hint) from error


@asynccontextmanager
async def _direct(reach: Reach) -> AsyncIterator["Direct"]:
    async with opened(places(reach)) as tiers:
        ids = RandomIds()
        # A replica that never starts: it neither joins the fleet nor takes sessions.
        replica = Replica(Member(ids.incarnation(), "cli"), {}, warm=tiers.warm, hot=tiers.hot, blobs=tiers.cold)

        def archivist(policy: Policy) -> Archivist:
            if not reach.cold and not reach.warm.lower().startswith("sqlite:"):
                raise ConfigError("say where the fleet keeps its archive: --cold URL")
            return Archivist(tiers.warm, tiers.cold, eraser=replica.eraser, policy=policy)

        yield Direct(Service(replica, warm=tiers.warm, blobs=tiers.cold, ids=ids), reach.tenant, archivist)


def refuse_nowhere(url: str) -> None:
    """A place without sessions is an error: whoever opens a file that is not there makes it, and finds it empty."""
    match url.partition(":")[0].lower():
        case "http" | "https" if not _names_a_server(url):
            raise ConfigError(f"{redacted(url)} names no server: write for example {DEFAULT_URL}")
        case "memory":
            raise ConfigError("a warm tier in memory is seen by its own process only: ask the server, with --url")
        case "sqlite" if not stores.sqlite_path(url).is_file():
            raise NotReached(f"there is no file {stores.sqlite_path(url)}: `dalsegno migrate --warm {url}` makes one")
        case _ if "://" not in url:
            raise ConfigError(f"the address has no :// in it: write for example {DEFAULT_URL} or sqlite:///sessions.db")
        case _:
            pass


def _names_a_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or none that there is
        return False


class Remote:
    """On a server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> AsyncIterator[JsonObject]:
        """See `Desk`."""
        return self._client.sessions.list()

    async def get(self, session: str) -> JsonObject:
        """See `Desk`."""
        return await self._client.session(session).get()

    async def export(self, session: str) -> bytes:
        """See `Desk`."""
        return await self._client.session(session).export()

    async def restore(self, lines: bytes) -> str:
        """See `Desk`."""
        return (await self._client.sessions.import_(lines)).id

    async def fork(self, session: str, *, at: int | None) -> str:
        """See `Desk`."""
        return (await self._client.session(session).fork(at=at)).id

    async def delete(self, session: str) -> None:
        """See `Desk`."""
        await self._client.session(session).delete()

    def archive(self, *, idle: timedelta) -> AsyncIterator[Tally]:
        """A server does so by itself."""
        raise ConfigError("a server archives by itself (--archive-after): to do so now, name its stores with --warm")


class Direct:
    """In a warm tier: the same service that a server asks, without the server."""

    def __init__(self, service: Service, tenant: str, archivist: Callable[[Policy], Archivist]) -> None:
        self._service = service
        self._tenant = tenant
        self._archivist = archivist

    async def list(self) -> AsyncIterator[JsonObject]:
        """See `Desk`."""
        after: str | None = ""
        while after is not None:
            page = await self._service.list(self._tenant, Query(after=after, limit=PAGE))
            for session in page.sessions:
                yield _object(session_bytes(session))
            after = page.next

    async def get(self, session: str) -> JsonObject:
        """See `Desk`."""
        return _object(session_bytes(await self._service.get(self._ref(session))))

    async def export(self, session: str) -> bytes:
        """See `Desk`."""
        ref, events = self._ref(session), list[Event]()
        while page := await self._service.events(ref, after=len(events), limit=PAGE):
            events += page
        return b"".join(export_line(ref.id, event, head=len(events)) for event in events)

    async def restore(self, lines: bytes) -> str:
        """See `Desk`."""
        reading = Import()
        for line in lines.splitlines():
            if line.strip():
                reading.line(line)
        return (await self._service.restore(self._tenant, reading.done())).id

    async def fork(self, session: str, *, at: int | None) -> str:
        """See `Desk`."""
        return (await self._service.fork(self._ref(session), at=at)).id

    async def delete(self, session: str) -> None:
        """See `Desk`."""
        await self._service.delete(self._ref(session))

    async def archive(self, *, idle: timedelta) -> AsyncIterator[Tally]:
        """See `Desk`. Of every tenant."""
        archivist, over = self._archivist(Policy(archive_after=idle)), False
        while not over:
            over = await archivist.go_on()
            yield archivist.tally

    def _ref(self, session: str) -> Ref:
        return Ref(self._tenant, parse_session_id(session))


def _object(text: bytes) -> JsonObject:
    return msgspec.json.decode(text, type=dict[str, Any])
