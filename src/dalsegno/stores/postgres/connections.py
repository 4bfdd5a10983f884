"""The connections of a process: few, made when they are needed, each with one statement at a time. Knows no table.

A pool of our own, since psycopg's makes connections in the background and waits a second and more between attempts,
also when it finds that those it has are dead: after each restart of the server every caller would wait for that.
"""

import asyncio
import contextlib
import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import psycopg

from dalsegno.errors import Outcome, Unavailable
from dalsegno.stores.postgres.arrays import adapted
from dalsegno.stores.postgres.failure import READ_ONLY, translated, unreachable
from dalsegno.stores.postgres.place import ANSWER_SECONDS, Place

CONNECTIONS_MAX = 8
WAITING_MAX = 10_000
READING_SECONDS = 1.0
"""How long a connection that cannot write is kept. The next one may find the server that took over."""
_NONE_WRITES = "session is read-only"
IDLE = psycopg.pq.TransactionStatus.IDLE
PATIENCE_SECONDS = 5.0
"""How long a statement waits for a connection before it gives up, with nothing applied."""

Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]
Cursor: TypeAlias = psycopg.AsyncCursor[tuple[Any, ...]]


class Connections:
    """Lends connections, the last used first. More than `most` at a time wait in line. `reset` is what is executed when
    one comes back; such a connection prepares nothing. `seconds` is what connecting and each use may take, each.
    """

    def __init__(
        self, place: Place, *, most: int = CONNECTIONS_MAX, reset: str = "", seconds: float | None = None
    ) -> None:
        self._place = place
        self._reset = reset
        self._seconds = seconds
        self._adapters = adapted()
        self._idle: list[Connection] = []
        self._reading: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        """Those that cannot write, and until when they are good enough to read."""
        self._room = asyncio.Semaphore(most)
        self._waiting = 0
        self._closed = False

    @asynccontextmanager
    async def cursor(self, *, lost: Outcome = "not_applied") -> AsyncIterator[Cursor]:
        """A cursor for statements of ours. psycopg's errors become ours; `lost` is what is known when it breaks."""
        async with self.lent(lost=lost) as connection:
            yield connection.cursor(binary=True)

    @asynccontextmanager
    async def lent(self, *, lost: Outcome) -> AsyncIterator[Connection]:
        """A connection, for as long as the answer to one use of it may take. Its errors become ours."""
        connection = await self.take()
        watch = asyncio.get_running_loop().call_later(self._seconds or ANSWER_SECONDS, cut, connection)
        try:
            yield connection
        except psycopg.Error as error:
            if error.sqlstate == READ_ONLY:
                # The next connection may find the server that took over.
                await connection.close()
            raise translated(error, lost=lost) from error
        finally:
            watch.cancel()
            await self.give(connection)

    async def take(self) -> Connection:
        """A connection that is alive as far as the system knows; give it back with `give`."""
        if self._closed:
            raise Unavailable("the database is closed", outcome="not_applied")
        if self._waiting >= WAITING_MAX:
            raise Unavailable(f"{WAITING_MAX} statements wait for a connection already", outcome="not_applied")
        await self._enter()
        try:
            while self._idle:
                connection = self._idle.pop()
                if is_quiet(connection) and not self._is_outdated(connection):
                    return connection
                await connection.close()
            return await self._connect()
        except psycopg.Error as error:
            self._room.release()
            raise unreachable(error) from error
        except TimeoutError:
            self._room.release()
            raise Unavailable("the database cannot be reached in time", outcome="not_applied") from None
        except BaseException:
            self._room.release()
            raise

    async def give(self, connection: Connection) -> None:
        """Back to the others; a transaction that is open is undone."""
        try:
            with contextlib.suppress(psycopg.Error):
                if not connection.closed and connection.pgconn.transaction_status != IDLE:
                    await connection.rollback()
                if self._reset:
                    await connection.execute(self._reset)
            if self._closed or connection.closed or connection.pgconn.transaction_status != IDLE:
                await connection.close()
            else:
                if not is_writable(connection):
                    self._reading.setdefault(connection, asyncio.get_running_loop().time() + READING_SECONDS)
                self._idle.append(connection)
        finally:
            self._room.release()

    async def close(self) -> None:
        """Let go of every connection; one that is in use is closed when it is given back."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()

    async def _enter(self) -> None:
        if not self._room.locked():
            await self._room.acquire()
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._room.acquire()
        except TimeoutError:
            raise Unavailable("every connection to the database is busy", outcome="not_applied") from None
        finally:
            self._waiting -= 1

    def _is_outdated(self, connection: Connection) -> bool:
        until = self._reading.get(connection)
        return until is not None and asyncio.get_running_loop().time() > until

    async def _connect(self) -> Connection:
        """A server that takes writes; if none does, the primary, which can be read. Not a standby: it may be behind."""
        try:
            return await self._dial({})
        except psycopg.OperationalError as error:
            if _NONE_WRITES not in str(error):
                raise
        return await self._dial({"target_session_attrs": "primary"})

    async def _dial(self, wanted: dict[str, str]) -> Connection:
        parameters: dict[str, Any] = {**self._place.connection(), **wanted}
        async with asyncio.timeout(self._seconds):
            return await psycopg.AsyncConnection.connect(
                **parameters,
                autocommit=True,
                prepare_threshold=None if self._place.pooled or self._reset else 0,
                context=self._adapters,
            )


def is_writable(connection: Connection) -> bool:
    """Whether it may write, as far as its server has said: it tells on its own when that changes."""
    told = (connection.pgconn.parameter_status(name) for name in (b"default_transaction_read_only", b"in_hot_standby"))
    return b"on" not in told


def is_quiet(connection: Connection) -> bool:
    """Whether nothing has arrived that nobody asked for: on an idle connection that is its end."""
    if connection.closed:
        return False
    look = select.poll()
    look.register(connection.fileno(), select.POLLIN)
    return not look.poll(0)


def cut(connection: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> None:
    """End a connection that does not answer: whoever waits on it is told that it was lost."""
    if not connection.closed:
        with contextlib.suppress(OSError), socket.socket(fileno=connection.fileno()) as wire:
            try:
                wire.shutdown(socket.SHUT_RDWR)
            finally:
                wire.detach()
