"""The world outside: a ledger that books each key once, as a payment provider does, and writes down who asked.

It is kept by the demonstration's own process, so that what the replicas did to the world is seen from outside of them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec


class Asked(msgspec.Struct, frozen=True):
    """One request that arrived: for the first of its key something was booked."""

    key: str
    what: str
    first: bool


class Ledger:
    """Requests in the order of their arrival. `on_booked` is awaited when something was booked and nobody knows yet."""

    def __init__(self, file: Path) -> None:
        self.asked: list[Asked] = []
        self.on_booked: Callable[[], Awaitable[None]] = _nothing
        self._file = file
        self._bookings: dict[str, str] = {}

    @property
    def booked(self) -> int:
        """How often something happened in the world."""
        return len(self._bookings)

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        """Answer requests on a Unix socket until the context ends."""
        server = await asyncio.start_unix_server(self._answer, path)
        try:
            yield
        finally:
            server.close()

    def book(self, key: str, what: str) -> str:
        """The booking under that key, made now if there is none."""
        first = key not in self._bookings
        booking = self._bookings.setdefault(key, f"{what}, booking no. {len(self._bookings) + 1}")
        self.asked.append(Asked(key, what, first))
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "what": what, "booked": first}) + "\n")
        return booking

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            before = self.booked
            booking = self.book(request["key"], request["what"])
            if self.booked > before:
                await self.on_booked()
            writer.write(json.dumps({"booking": booking}).encode() + b"\n")
            await writer.drain()
        except ConnectionError:
            return  # whoever asked is dead: that is the point
        finally:
            writer.close()


async def _nothing() -> None:
    return None
