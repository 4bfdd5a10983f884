"""The port `Transactions`: a tool's own transaction in the database of the log, over a connection of its own.

Whoever writes a tool is trusted not to reach for our tables on purpose; what would happen by mistake is refused.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import IntBinaryDumper

from dalsegno.core.append import Decide, Decision, Write
from dalsegno.errors import DalsegnoError, Refused, TookTooLong, Unavailable
from dalsegno.ports import Ref
from dalsegno.stores import sqlfile
from dalsegno.stores.outlast import outlasting
from dalsegno.stores.postgres.connections import Connection, Connections, cut
from dalsegno.stores.postgres.failure import is_environment, translated, translating
from dalsegno.stores.postgres.place import Place
from dalsegno.stores.postgres.sessions import Sessions

R = TypeVar("R")
TOOLS_MAX = 4
CANCEL_SECONDS = 1.0
OURS = "dalsegno_"

_ENDING = {"begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "prepare"}
_LASTING = {"set", "reset", "discard", "copy", "listen"}
_FIRST_WORD = re.compile(r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*\(*\s*([a-z]+)", re.IGNORECASE | re.DOTALL)
_SYNTAX = "42601"
_TOO_LONG = "57014"
"""The server counts the same time."""


class Tools:
    """Lends the database to tools, to a few at a time. What one leaves in its connection the next does not find."""

    def __init__(self, place: Place, sessions: Sessions) -> None:
        self._sessions = sessions
        self._connections = Connections(place, most=TOOLS_MAX, reset=sqlfile.statements("postgres")["tool_reset"])

    @contextlib.asynccontextmanager
    async def transaction(self, ref: Ref, *, timeout: timedelta) -> AsyncIterator["PostgresTransaction"]:
        """See port `Transactions`."""
        own = PostgresTransaction(self._connections, self._sessions, ref)
        timer = asyncio.get_running_loop().call_later(timeout.total_seconds(), own.expire)
        try:
            await own.begin(timeout)
            yield own
        finally:
            timer.cancel()
            await outlasting(own.end())

    async def close(self) -> None:
        """Let go of the connections."""
        await self._connections.close()


class PostgresTransaction:
    """What a tool is given. One call after another."""

    def __init__(self, connections: Connections, sessions: Sessions, ref: Ref) -> None:
        self._connections = connections
        self._sessions = sessions
        self._ref = ref
        self._sql = sqlfile.statements("postgres")
        self._connection: Connection | None = None
        self._using = asyncio.Lock()
        self._over: DalsegnoError | None = None
        """Why nothing can be done any more."""
        self._committing = False
        self._expiring: asyncio.Task[None] | None = None

    async def begin(self, timeout: timedelta) -> None:
        """Wait for a connection, then begin."""
        async with self._using:
            try:
                async with asyncio.timeout(timeout.total_seconds()):
                    self._connection = await self._connections.take()
            except TimeoutError:
                raise Unavailable("the database was busy for too long", outcome="not_applied") from None
            with translating():
                await self._connection.execute(self._sql["tool_begin"])
                milliseconds = max(1, round(timeout.total_seconds() * 1000))
                limits = {"milliseconds": milliseconds}
                row = await (await self._connection.execute(self._sql["tool_limit"], limits)).fetchone()
            assert row is not None
            self._sessions.clock.hear(row[0])

    async def execute(self, statement: str, parameters: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        """See port `Transaction`. Parameters stand as `%s`. An error of the tool's own statement is psycopg's, as it
        is, and undoes that statement only.
        """
        word = _FIRST_WORD.match(statement)
        if word is None or word[1].lower() in _ENDING | _LASTING or OURS in statement.lower():
            raise Refused("invalid_request", "a tool's statement may not do that in its transaction")
        async with self._using:
            connection = self._open()
            try:
                return await self._execute(connection, statement, parameters)
            except psycopg.Error as error:
                if self._over is not None:
                    raise self._over from error
                if error.sqlstate == _TOO_LONG:
                    self._over = TookTooLong()
                    raise self._over from error
                if error.sqlstate == _SYNTAX and ";" in statement:
                    raise Refused("invalid_request", "one statement at a time") from error
                if is_environment(error):
                    self._over = translated(error)
                    raise self._over from error
                raise

    async def commit(self, decide: Decide[R]) -> Decision[R]:
        """See port `Transaction`. Anything but a `Write` undoes what the tool wrote."""
        if self._over is not None:
            raise self._over
        self._committing = True
        return await outlasting(self._commit(decide))

    def expire(self) -> None:
        """The time is over: whatever runs is interrupted and undone. A commit that has begun is let finish."""
        if not self._committing and self._over is None:
            self._over = TookTooLong()
            self._expiring = asyncio.get_running_loop().create_task(self._interrupt())

    async def end(self) -> None:
        """Undo what is not committed."""
        if self._over is None:
            self._over = Refused("invalid_request", "the transaction has ended")
        if self._expiring is not None:
            await self._expiring
        async with self._using:
            await self._release()

    async def _execute(
        self, connection: Connection, statement: str, parameters: Sequence[object]
    ) -> Sequence[tuple[object, ...]]:
        cursor = connection.cursor()
        cursor.adapters.register_dumper(int, IntBinaryDumper)
        try:
            async with connection.pipeline():
                await connection.execute("SAVEPOINT dalsegno")
                await cursor.execute(statement, parameters or None)
                await connection.execute("RELEASE SAVEPOINT dalsegno")
        except psycopg.Error:
            if connection.pgconn.transaction_status == TransactionStatus.INERROR:
                with contextlib.suppress(psycopg.Error):
                    await connection.execute("ROLLBACK TO SAVEPOINT dalsegno")
            raise
        return await cursor.fetchall() if cursor.description else []

    async def _commit(self, decide: Decide[R]) -> Decision[R]:
        async with self._using:
            connection = self._open()
            self._over = Refused("invalid_request", "the transaction has ended")
            try:
                cursor = connection.cursor(binary=True)
                with translating():
                    decision = await self._sessions.commit_locked(cursor, self._ref, decide, None)
                if isinstance(decision, Write):
                    with translating(lost="unknown"):
                        await connection.execute("COMMIT")
                return decision
            finally:
                await self._release()

    async def _interrupt(self) -> None:
        connection = self._connection
        if connection is not None and self._using.locked():
            try:
                await connection.cancel_safe(timeout=CANCEL_SECONDS)
            except psycopg.Error as error:
                # Nobody answers: it is not the tool that took too long.
                self._over = translated(error)
                cut(connection)
        async with self._using:
            await self._release()

    async def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._connections.give(connection)

    def _open(self) -> Connection:
        if self._over is not None:
            raise self._over
        if self._connection is None:
            raise Refused("invalid_request", "the transaction has ended")
        return self._connection
