"""Hints by `NOTIFY`: how many of them become one payload, and an ear that hears them on a connection of its own."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import psycopg

from dalsegno.ports import Hint
from dalsegno.stores import sqlfile
from dalsegno.stores.postgres.connections import Connection, cut
from dalsegno.stores.postgres.place import Place

PAYLOAD_BYTES_MAX = 7999
CARRYING_BYTES_MAX = 2000
DIAL_SECONDS = 1.0
SILENCE_SECONDS = 1.0
"""How long nothing may be heard before the server is asked whether it is there; and how long it may think about it."""
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Hint, ...]).decode


def payloads(hints: Sequence[Hint]) -> Iterator[str]:
    """As many hints in one as go in. One that does not fit at all is lost; what it carries is not worth that."""
    together, length = list[bytes](), 1
    for hint in hints:
        word = _encode(hint)
        if hint.pieces and len(word) > CARRYING_BYTES_MAX:
            word = _encode(msgspec.structs.replace(hint, pieces=()))
        if len(word) + 2 > PAYLOAD_BYTES_MAX:
            continue
        if length + len(word) + 1 > PAYLOAD_BYTES_MAX:
            yield f"[{b','.join(together).decode()}]"
            together, length = [], 1
        together.append(word)
        length += len(word) + 1
    if together:
        yield f"[{b','.join(together).decode()}]"


class Ear:
    """One listener's ear. A connection that breaks or falls silent is made again; what was said meanwhile is lost, and
    a poll is behind every hint. `open` is set while it can hear.
    """

    def __init__(self, place: Place, heard: Callable[[Hint], None]) -> None:
        self.open = asyncio.Event()
        self._place = place
        self._heard = heard
        self._sql = sqlfile.statements("postgres_hot")

    async def run(self) -> None:
        """Listen until cancelled."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            self.open.clear()
            with suppress(psycopg.Error, OSError, TimeoutError):
                parameters: dict[str, Any] = self._place.connection()
                async with asyncio.timeout(DIAL_SECONDS):
                    connection = await psycopg.AsyncConnection.connect(
                        **parameters, autocommit=True, prepare_threshold=None
                    )
                try:
                    await self._listen(connection)
                finally:
                    await connection.close()
            pause = FIRST_PAUSE_SECONDS if self.open.is_set() else min(2 * pause, LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    async def _listen(self, connection: Connection) -> None:
        await self._ask(connection, "hint_listen")
        self.open.set()
        while True:
            async for message in connection.notifies(timeout=SILENCE_SECONDS):
                with suppress(msgspec.MsgspecError):
                    for hint in _decode(message.payload):
                        self._heard(hint)
            await self._ask(connection, "hint_ask")

    async def _ask(self, connection: Connection, statement: str) -> None:
        watch = asyncio.get_running_loop().call_later(SILENCE_SECONDS, cut, connection)
        try:
            await connection.execute(self._sql[statement])
        finally:
            watch.cancel()
