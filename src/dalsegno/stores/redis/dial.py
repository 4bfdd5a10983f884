"""How a connection is made: to a given server, or to whichever the sentinels call the primary."""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError

from dalsegno.stores.redis.place import Address, Place


class Dialler:
    """Makes connections to the servers of a place."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._kind = SSLConnection if place.tls else Connection

    async def to(self, address: Address) -> Connection:
        """A connection to that server, logged in."""
        return await self._opened(address, db=self._place.db, **self._place.login)

    async def first(self) -> Connection:
        """A connection to the only server."""
        return await self.to(self._place.addresses[0])

    async def primary(self) -> Connection:
        """A connection to the server that the sentinels call the primary, and that calls itself so."""
        connection = await self.to(await self._found())
        await connection.send_command("ROLE")
        role = await connection.read_response()
        if role[0] != b"master":
            await connection.disconnect(nowait=True)
            raise NoConnection("the sentinels name a replica")
        return connection

    async def slots(self, address: Address) -> dict[int, Address]:
        """Which primary of a cluster has which slot, as that server says."""
        connection = await self.to(address)
        try:
            await connection.send_command("CLUSTER", "SLOTS")
            ranges = await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)
        # A server that does not know its own name gives none.
        return {
            slot: (primary[0].decode() or address[0], primary[1])
            for first, last, primary, *_ in ranges
            for slot in range(first, last + 1)
        }

    async def _found(self) -> Address:
        """Where the primary is: all sentinels are asked at once, for one that has gone may keep us waiting."""
        asking = [asyncio.create_task(self._ask_sentinel(sentinel)) for sentinel in self._place.addresses]
        try:
            for answer in asyncio.as_completed(asking):
                found = await answer
                if found is not None:
                    return found
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        raise NoConnection("no sentinel names a primary")

    async def _ask_sentinel(self, sentinel: Address) -> Address | None:
        try:
            connection = await self._opened(sentinel)
        except (RedisError, OSError):
            return None
        try:
            await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._place.service)
            found: Sequence[bytes] | None = await connection.read_response()
        except (RedisError, OSError):
            return None
        finally:
            await connection.disconnect(nowait=True)
        return (found[0].decode(), int(found[1])) if found else None

    async def _opened(self, address: Address, **login: Any) -> Connection:
        host, port = address
        # RESP 2: what a subscriber hears comes as plain lists, from every server. Time is kept by those who ask.
        login |= {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": None}
        connection = self._kind(host=host, port=port, **login)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection
