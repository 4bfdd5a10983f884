"""Hears one channel on a connection of its own, for as long as it runs. A connection that breaks or falls silent is
made again; what was said meanwhile is lost, and a poll is behind every hint.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from dalsegno.errors import Unavailable
from dalsegno.stores.redis.line import DIAL_SECONDS
from dalsegno.stores.redis.route import Route

SILENCE_SECONDS = 1.0
"""How long nothing may be heard before the server is asked whether it is there; and how long it may think about it."""
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
MESSAGES = (b"message", b"smessage")
SUBSCRIBED = (b"subscribe", b"ssubscribe")
MOVED_AWAY = (b"unsubscribe", b"sunsubscribe")


class Ear:
    """One listener's ear at one channel. `open` is set once it can hear."""

    def __init__(self, route: Route, channel: bytes, heard: Callable[[bytes], None]) -> None:
        self.open = asyncio.Event()
        self._route = route
        self._channel = channel
        self._heard = heard

    async def run(self) -> None:
        """Listen until cancelled."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            self.open.clear()
            with suppress(RedisError, OSError, TimeoutError, Unavailable):
                async with asyncio.timeout(DIAL_SECONDS):
                    connection = await self._route.dial(self._channel)
                try:
                    await self._listen(connection)
                finally:
                    await connection.disconnect(nowait=True)
            pause = FIRST_PAUSE_SECONDS if self.open.is_set() else min(2 * pause, LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    async def _listen(self, connection: Connection) -> None:
        await connection.send_command(self._route.subscribe, self._channel)
        asked = False
        while True:
            message: list[Any] | None = await connection.read_response(timeout=SILENCE_SECONDS)
            if message is None:
                if asked:
                    return
                await connection.send_command("PING")
            elif message[0] in MESSAGES:
                self._heard(message[2])
            elif message[0] in SUBSCRIBED:
                self.open.set()
            elif message[0] in MOVED_AWAY:
                return
            asked = message is None
