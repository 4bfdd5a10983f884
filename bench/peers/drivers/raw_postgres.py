"""What PostgreSQL could do at best: each message a row, each row a commit, by psycopg and eight connections.

What was said is kept in this process's memory; the primary key refuses a second writer. There is no agent loop.
"""

import asyncio
import uuid
from contextlib import suppress

import psycopg

from bench.content import mark_of
from bench.peers.serve import Shop, answer, message, order, serve

CONNECTIONS = 8
READ = "SELECT kind, body FROM message WHERE session = %s ORDER BY seq"
WRITE = "INSERT INTO message (session, seq, kind, body) VALUES (%s, %s, %s, %s)"
TABLE = "CREATE TABLE message (session text, seq int, kind text, body text, PRIMARY KEY (session, seq))"


class RawPostgres:
    """A `Peer`, by hand."""

    async def open(self, url: str, *, name: str, options: dict[str, str], shop: Shop) -> dict[str, str]:
        """The table and the connections."""
        self._shop = shop
        self._heads: dict[str, int] = {}
        self._idle: asyncio.LifoQueue[psycopg.AsyncConnection] = asyncio.LifoQueue()
        for _ in range(CONNECTIONS):
            self._idle.put_nowait(await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0))
        with suppress(psycopg.errors.DuplicateTable):
            await self._do(TABLE, ())
        return {"psycopg": psycopg.__version__}

    async def turn(self, session: str, mark: str) -> str:
        """Four commits."""
        await self._keep(session, "u", message(mark))
        await self._keep(session, "c", order(mark))
        await self._keep(session, "r", self._shop.look_up(order(mark), uuid.uuid4().hex))
        said = answer(mark)
        await self._keep(session, "a", said)
        return said

    async def burst(self, session: str, mark: str) -> str:
        """The key refuses whoever is late."""
        return await self.turn(session, mark)

    async def history(self, session: str) -> list[tuple[str, str]]:
        """All rows."""
        return [(kind, mark_of(body)) for kind, body in await self._do(READ, (session,))]

    async def go_on(self, session: str, mark: str) -> str:
        """Send it again."""
        await self.turn(session, mark)
        return "the message, sent again"

    async def close(self) -> None:
        """Close the connections."""
        while not self._idle.empty():
            await self._idle.get_nowait().close()

    async def _keep(self, session: str, kind: str, body: str) -> None:
        head = self._heads.get(session)
        if head is None:
            head = len(await self._do(READ, (session,)))
        try:
            await self._do(WRITE, (session, head + 1, kind, body))
        except psycopg.errors.UniqueViolation:
            self._heads.pop(session, None)
            raise
        self._heads[session] = head + 1

    async def _do(self, statement: str, values: tuple[object, ...]) -> list[tuple]:
        connection = await self._idle.get()
        try:
            cursor = await connection.execute(statement, values)
            return await cursor.fetchall() if cursor.description else []
        finally:
            self._idle.put_nowait(connection)


if __name__ == "__main__":
    serve(RawPostgres)
