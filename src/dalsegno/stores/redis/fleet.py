"""The port `Fleet`: records that expire by the server's clock, and connections that the server misses at a death.

Each part of the log has a record of every member, so that a claim asks who lives where it writes. Every server of a
cluster sees a death by itself, and so does every partition: whoever cannot reach a server is gone there.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import msgspec
from redis.exceptions import RedisError

from dalsegno.errors import Unavailable
from dalsegno.ports import Member
from dalsegno.stores.redis.asking import translated
from dalsegno.stores.redis.beat import Beat, ids
from dalsegno.stores.redis.keys import Part
from dalsegno.stores.redis.place import Address, Place
from dalsegno.stores.redis.sessions import Sessions

GRACE_SECONDS = 0.2
"""How long a connection must be gone: who lives and has lost it has another one before that."""

_log = logging.getLogger(__name__)


class Record(NamedTuple):
    """A member's record in one part. `client`: the connection that beats, on the run `server` of a server; 0 = none."""

    member: Member
    alive: bool
    server: bytes
    client: int


class Roll(NamedTuple):
    """What one server says of everybody."""

    server: bytes
    records: dict[str, Record]


class RedisFleet:
    """One replica's part in the fleet, and its view of the others."""

    def __init__(self, place: Place, sessions: Sessions) -> None:
        self._place = place
        self._layout = sessions.layout
        self._asker = sessions.looks
        self._beat: Beat | None = None
        self._missed: set[str] = set()
        self._blind = False

    async def join(self, member: Member, *, ttl: timedelta) -> None:
        """See port `Fleet`. Joining again replaces the earlier membership of this handle."""
        await self.close()
        await asyncio.gather(*(self._asker.run("sweep", (part.members,)) for part in self._layout.parts))
        beat = Beat(self._place, self._layout, member, ttl)
        try:
            await asyncio.to_thread(beat.begin)
        except BaseException as error:
            await asyncio.to_thread(beat.close)
            if isinstance(error, RedisError):
                raise translated(error) from error
            if isinstance(error, OSError | TimeoutError):
                raise Unavailable(f"Redis cannot be reached: {error}", outcome="not_applied") from error
            raise
        self._beat = beat

    async def bury(self) -> Sequence[str]:
        """See port `Fleet`. Two small reads a server; a wait and a write only when somebody seems to have died."""
        servers: dict[Address, list[Part]] = {}
        for part in self._layout.parts:
            servers.setdefault(await self._asker.route.server(part.members), []).append(part)
        looked = await asyncio.gather(*(self._buried(*one) for one in servers.items()))
        buried = {name for names, _ in looked for name in names}
        # Who only misses its time is dead to claims, but keeps its record: it may be woken and beat again. Named once.
        own = self._beat.name if self._beat else None
        records = [entry for _, roll in looked for entry in roll.records.items()]
        missed = {name for name, record in records if not record.alive and name != own} - buried
        late, self._missed = missed - self._missed, missed
        return [*sorted(buried), *sorted(late)]

    async def members(self) -> Sequence[Member]:
        """See port `Fleet`."""
        roll = await self._roll(self._layout.parts[0])
        return [record.member for record in roll.records.values() if record.alive]

    async def leave(self) -> None:
        """See port `Fleet`. The records go before the connections: who leaves in order did not die."""
        beat = self._beat
        if beat is not None:
            await asyncio.to_thread(beat.stop)
            forgetting = (self._asker.do(part.members, "HDEL", part.members, beat.name) for part in self._layout.parts)
            await asyncio.gather(*forgetting)
            await self.close()

    async def close(self) -> None:
        """Stop beating and let go of the connections. Peers notice at once."""
        beat, self._beat = self._beat, None
        if beat is not None:
            await asyncio.to_thread(beat.close)

    async def _buried(self, address: Address, parts: Sequence[Part]) -> tuple[Sequence[str], Roll]:
        """Whom one server misses, taken off in all parts that it has; and what it says of everybody."""
        roll = await self._roll(parts[0])
        own = self._beat.name if self._beat else None
        watched = {
            name: record.client
            for name, record in roll.records.items()
            if record.client and record.server == roll.server and name != own
        }
        if not watched or (self._beat is not None and not self._beat.is_settled(address)):
            return (), roll
        listed = await self._listed(parts[0], list(watched.values()))
        gone = [word for name, client in watched.items() if client not in listed for word in (name, client)]
        if not gone:
            return (), roll
        await asyncio.sleep(GRACE_SECONDS)
        burying = (self._asker.run("bury", (part.members,), roll.server, *gone) for part in parts)
        return sorted({name.decode() for names in await asyncio.gather(*burying) for name in names}), roll

    async def _listed(self, part: Part, clients: Sequence[int]) -> set[int]:
        """Those of these connections that the server has; all of them, where it does not tell."""
        try:
            listed = await self._asker.do(part.members, "CLIENT", "LIST", "ID", *clients)
        except Unavailable as error:
            if error.outcome == "not_applied" and not self._blind:
                self._blind = True
                _log.warning("a death is noticed by time to live only: %s", error)
            return set(clients)
        return ids(listed)

    async def _roll(self, part: Part) -> Roll:
        server, *entries = await self._asker.run("roll", (part.members,))
        records: dict[str, Record] = {}
        for name, about, alive, written_on, client in entries:
            with contextlib.suppress(msgspec.MsgspecError):
                member = msgspec.json.decode(about, type=Member)
                records[name.decode()] = Record(member, bool(alive), written_on, client)
        return Roll(server, records)
