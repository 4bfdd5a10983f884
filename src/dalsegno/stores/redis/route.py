"""Which server answers for a key: the only one, the sentinels' primary, or the one of a cluster that has its slot."""

import asyncio
from typing import Any, Protocol

from redis.asyncio.connection import Connection
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, RedisError

from dalsegno.errors import Unavailable
from dalsegno.stores.redis.dial import Dialler
from dalsegno.stores.redis.line import HASTY, Line, Manners, Word
from dalsegno.stores.redis.place import Address, Place

REDIRECTIONS = 3
FETCH_SECONDS = 1.0
CLUSTER_CHANNELS = 4


class Route(Protocol):
    """The way to whoever answers for a key. `channels` is how many channels hints are spread over; `whole`: one server
    answers for every key, so that one script may be given several.
    """

    whole: bool
    channels: int
    publish: str
    subscribe: str

    async def ask(self, key: bytes, *words: Word) -> Any:
        """The reply, or the error that the server answers with. Raises `Unavailable`."""
        ...

    async def dial(self, key: bytes) -> Connection:
        """A new connection to the server that answers for the key."""
        ...

    async def server(self, key: bytes) -> Address:
        """Which server that is, as far as is known; keys of one server may be asked about together."""
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...


def route_to(place: Place, manners: Manners = HASTY) -> Route:
    """The way to the servers of that place."""
    return ClusterRoute(place, manners) if place.kind == "cluster" else SingleRoute(place, manners)


class SingleRoute:
    """One server answers for everything; with sentinels it may be another one after each new connection."""

    whole = True
    channels = 1
    publish, subscribe = "PUBLISH", "SUBSCRIBE"

    def __init__(self, place: Place, manners: Manners) -> None:
        self._address = place.addresses[0]
        dialler = Dialler(place)
        self._dial = dialler.primary if place.kind == "sentinel" else dialler.first
        self._line = Line(self._dial, manners)

    async def ask(self, key: bytes, *words: Word) -> Any:
        """See `Route`."""
        return await self._line.ask(*words)

    async def dial(self, key: bytes) -> Connection:
        """See `Route`."""
        return await self._dial()

    async def server(self, key: bytes) -> Address:
        """See `Route`."""
        return self._address

    async def close(self) -> None:
        """See `Route`."""
        await self._line.close()


class ClusterRoute:
    """A line to each primary of a cluster, and the table of who has which slot.

    The table is fetched when it is first needed, when a server names another one, and when one does not answer; but not
    more often than every `FETCH_SECONDS`.
    """

    whole = False
    channels = CLUSTER_CHANNELS
    publish, subscribe = "SPUBLISH", "SSUBSCRIBE"

    def __init__(self, place: Place, manners: Manners) -> None:
        self._dialler = Dialler(place)
        self._manners = manners
        self._seeds = place.addresses
        self._slots: dict[int, Address] = {}
        self._lines: dict[Address, Line] = {}
        self._fetching: asyncio.Task[None] | None = None
        self._next_fetch = 0.0

    async def ask(self, key: bytes, *words: Word) -> Any:
        """See `Route`."""
        address = await self._owner(key)
        for _ in range(REDIRECTIONS):
            try:
                reply = await self._line(address).ask(*words)
            except Unavailable:
                self._fetch()
                raise
            if isinstance(reply, AskError) and not isinstance(reply, MovedError):
                line = self._line(reply.node_addr)
                # Asked in one breath, they arrive one behind the other.
                _, reply = await asyncio.gather(line.ask("ASKING"), line.ask(*words))
            if not isinstance(reply, MovedError):
                return reply
            address = self._slots[reply.slot_id] = reply.node_addr
            self._fetch()
        raise Unavailable("the cluster sends us round in circles", outcome="not_applied")

    async def dial(self, key: bytes) -> Connection:
        """See `Route`."""
        address = await self._owner(key)
        # Whoever dials again has lost a connection: perhaps the slot is somebody else's by now.
        self._fetch()
        return await self._dialler.to(address)

    async def server(self, key: bytes) -> Address:
        """See `Route`."""
        return await self._owner(key)

    async def close(self) -> None:
        """See `Route`."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        for line in self._lines.values():
            await line.close()

    async def _owner(self, key: bytes) -> Address:
        slot = key_slot(key)
        if slot not in self._slots:
            await asyncio.shield(self._fetch())
        if slot not in self._slots:
            raise Unavailable("nobody knows who has this part of the cluster", outcome="not_applied")
        return self._slots[slot]

    def _line(self, address: Address) -> Line:
        line = self._lines.get(address)
        if line is None:
            line = self._lines[address] = Line(lambda: self._dialler.to(address), self._manners)
        return line

    def _fetch(self) -> asyncio.Task[None]:
        """Ask for the table, if that was not done just now."""
        loop = asyncio.get_running_loop()
        if self._fetching is None or (self._fetching.done() and loop.time() > self._next_fetch):
            self._next_fetch = loop.time() + FETCH_SECONDS
            self._fetching = loop.create_task(self._fetch_table())
        return self._fetching

    async def _fetch_table(self) -> None:
        """Take the first table that somebody gives: all are asked at once, for one that has gone would keep us."""
        known = dict.fromkeys((*self._slots.values(), *self._seeds))
        asking = [asyncio.create_task(self._ask_table(address)) for address in known]
        try:
            for answer in asyncio.as_completed(asking):
                table = await answer
                if table:
                    self._slots = table
                    break
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ask_table(self, address: Address) -> dict[int, Address]:
        try:
            async with asyncio.timeout(self._manners.dial_seconds):
                return await self._dialler.slots(address)
        except (RedisError, OSError, TimeoutError):
            return {}
