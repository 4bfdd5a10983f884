"""The ports `Log` and `Fleet` on Redis (7.0 or newer) and Valkey: one server, behind sentinels, or a cluster.

Start reading at `sessions`; docs/decisions/0017-redis-as-log.md says why it is made so. What a server loses is lost
here: `durability` asks the servers what they keep, and says so.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

from dalsegno.core.append import Decide, Decision, Known
from dalsegno.core.claim import Claimed
from dalsegno.core.event import Event
from dalsegno.core.session import Session
from dalsegno.ports import Member, Page, Query, Ref
from dalsegno.stores.outlast import outlasting
from dalsegno.stores.redis.claims import Claims
from dalsegno.stores.redis.durability import Risk, examined
from dalsegno.stores.redis.fleet import RedisFleet
from dalsegno.stores.redis.keys import Layout
from dalsegno.stores.redis.listings import Listings
from dalsegno.stores.redis.place import Place, parse
from dalsegno.stores.redis.sessions import Sessions

R = TypeVar("R")
CLAIMED_MAX = 64


class RedisLog:
    """Sessions and their events on servers, and the replicas that run them. Make it with `open`."""

    def __init__(self, place: Place) -> None:
        layout = Layout(place)
        self.risks: Sequence[Risk] = ()
        self._sessions = Sessions(place, layout)
        self._listings = Listings(self._sessions)
        self._claims = Claims(self._sessions, self._listings)
        self._fleet = RedisFleet(place, self._sessions)

    @classmethod
    async def open(cls, url: str) -> "RedisLog":
        """Reach the servers, and ask what they keep. Raises `ConfigError` or `Unavailable`."""
        log = cls(place := parse(url))
        try:
            log.risks = await examined(place, log._sessions)
        except BaseException:
            await log.close()
            raise
        return log

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
        return await outlasting(self._claims.claim(owner, min(limit, CLAIMED_MAX), chances))

    async def list(self, tenant: str, query: Query) -> Page:
        """See port `Log`."""
        return await self._listings.page(tenant, query)

    async def erase(self, ref: Ref, epoch: int) -> None:
        """See port `Log`. Only a deleted session is erased, in one step."""
        await self._sessions.erase(ref, epoch)

    async def unerased(self, *, after: Ref | None = None, limit: int) -> Mapping[Ref, int]:
        """See port `Warm`."""
        return await self._listings.unerased(after, limit)

    async def walk(self, *, after: Ref | None = None, limit: int) -> Sequence[Session]:
        """See port `Warm`."""
        return await self._listings.walk(after, limit)

    async def keys(self, ref: Ref) -> Mapping[bytes, Known]:
        """See port `Warm`."""
        return await self._sessions.known(ref)

    async def shelve(self, ref: Ref, shelf: bytes, *, head: int, epoch: int) -> bool:
        """See port `Warm`."""
        return await self._sessions.shelve(ref, shelf, head, epoch)

    async def unshelve(self, ref: Ref, shelf: bytes, events: Sequence[Event]) -> None:
        """See port `Warm`."""
        await self._sessions.unshelve(ref, shelf, events)

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
        return await self._listings.held(incarnation)

    async def leave(self) -> None:
        """See port `Fleet`."""
        await self._fleet.leave()

    async def close(self) -> None:
        """Let go of connections and threads. Who has not left the fleet is missed at once."""
        await self._fleet.close()
        await self._sessions.close()
