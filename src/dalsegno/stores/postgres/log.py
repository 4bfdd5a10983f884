"""The ports `Log`, `Fleet` and `Transactions` on a PostgreSQL database."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import TypeVar

from dalsegno.core.append import Decide, Decision, Known
from dalsegno.core.claim import Claimed
from dalsegno.core.event import Event
from dalsegno.core.session import Session
from dalsegno.ports import Member, Page, Query, Ref, Transaction
from dalsegno.stores.clock import Clock
from dalsegno.stores.outlast import outlasting
from dalsegno.stores.postgres.connections import Connections
from dalsegno.stores.postgres.fleet import PostgresFleet
from dalsegno.stores.postgres.place import Place, place_of
from dalsegno.stores.postgres.schema import migrate
from dalsegno.stores.postgres.sessions import Sessions
from dalsegno.stores.postgres.shelf import Shelving
from dalsegno.stores.postgres.tool import Tools

R = TypeVar("R")
CLAIMED_MAX = 64


class PostgresLog:
    """Sessions and their events in a database, and the replicas that run them. Make it with `open`."""

    def __init__(self, place: Place) -> None:
        clock = Clock()
        self._connections = Connections(place)
        self._sessions = Sessions(self._connections, clock)
        self._fleet = PostgresFleet(place, self._connections, self._sessions)
        self._tools = Tools(place, self._sessions)
        self._shelving = Shelving(self._connections)

    @classmethod
    async def open(cls, url: str) -> "PostgresLog":
        """Reach the database, and bring its schema up to date. Raises `ConfigError` or `Unavailable`."""
        return cls(await migrate(place_of(url)))

    async def commit(self, ref: Ref, decide: Decide[R], *, digest: bytes | None = None) -> Decision[R]:
        """See port `Log`."""
        return await self._sessions.commit(ref, decide, digest)

    async def load(self, ref: Ref) -> Session | None:
        """See port `Log`."""
        return await self._sessions.load(ref)

    async def read(self, ref: Ref, *, after: int, limit: int = 1000) -> Sequence[Event]:
        """See port `Log`."""
        return await self._sessions.read(ref, after, limit)

    async def heads(self, refs: Sequence[Ref]) -> Mapping[Ref, int]:
        """See port `Log`."""
        return await self._sessions.heads(refs)

    async def claim(self, owner: str, *, limit: int, chances: int = 1) -> Sequence[Claimed]:
        """See port `Log`."""
        if limit < 1:
            return ()
        return await outlasting(self._sessions.claim(owner, min(limit, CLAIMED_MAX), chances))

    async def list(self, tenant: str, query: Query) -> Page:
        """See port `Log`."""
        return await self._sessions.page(tenant, query)

    async def erase(self, ref: Ref, epoch: int) -> None:
        """See port `Log`. Only a deleted session is erased; in pieces, so that no transaction is long."""
        while await self._sessions.erase_some(ref, epoch):
            pass

    async def unerased(self, *, after: Ref | None = None, limit: int) -> Mapping[Ref, int]:
        """See port `Warm`."""
        return await self._sessions.unerased(after, limit)

    async def walk(self, *, after: Ref | None = None, limit: int) -> Sequence[Session]:
        """See port `Warm`."""
        return await self._sessions.walk(after, limit)

    async def keys(self, ref: Ref) -> Mapping[bytes, Known]:
        """See port `Warm`."""
        return await self._sessions.keys(ref)

    async def shelve(self, ref: Ref, shelf: bytes, *, head: int, epoch: int) -> bool:
        """See port `Warm`."""
        return await outlasting(self._shelving.shelve(ref, shelf, head=head, epoch=epoch))

    async def unshelve(self, ref: Ref, shelf: bytes, events: Sequence[Event]) -> None:
        """See port `Warm`."""
        await outlasting(self._shelving.unshelve(ref, shelf, events))

    async def join(self, member: Member, *, ttl: timedelta) -> None:
        """See port `Fleet`."""
        await self._fleet.join(member, ttl=ttl)

    async def bury(self) -> Sequence[str]:
        """See port `Fleet`."""
        return await self._fleet.bury()

    async def members(self) -> Sequence[Member]:
        """See port `Fleet`."""
        return await self._fleet.members()

    async def holdings(self, incarnation: str) -> Sequence[Ref]:
        """See port `Fleet`."""
        return await self._fleet.holdings(incarnation)

    async def leave(self) -> None:
        """See port `Fleet`."""
        await self._fleet.leave()

    @property
    def alone(self) -> bool:
        """See port `Transactions`."""
        return False

    def transaction(self, ref: Ref, *, timeout: timedelta) -> AbstractAsyncContextManager[Transaction]:
        """See port `Transactions`."""
        return self._tools.transaction(ref, timeout=timeout)

    async def close(self) -> None:
        """Let go of connections and threads. Who has not left the fleet is missed at once."""
        await self._fleet.close()
        await self._tools.close()
        await self._connections.close()
