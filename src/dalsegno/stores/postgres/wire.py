"""The statement that every commit is, straight on libpq: two rounds of the event loop instead of seven.

psycopg's cursors are Python, and cost this process more than the statement costs the server. Everything else goes
through them.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakSet

import psycopg
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

from dalsegno.stores.postgres.connections import Connection

_PLACE = re.compile(r"%\((\w+)\)s")
_FINE = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)


class Wire:
    """One statement with named places, on any connection. `places` are the names and their OIDs, in the order in which
    parameters are given.
    """

    def __init__(self, name: str, statement: str, places: Mapping[str, int]) -> None:
        numbers = {place: number for number, place in enumerate(places, 1)}
        self._name = name.encode()
        self._text = _PLACE.sub(lambda found: f"${numbers[found[1]]}", statement).encode()
        self._types = list(places.values())
        self._formats = [Format.BINARY] * len(places)
        self._ready: WeakSet[Connection] = WeakSet()

    async def execute(self, connection: Connection, parameters: Sequence[bytes | None]) -> PGresult:
        """Run it on a connection that nobody else uses now. With a pooler behind it nothing is prepared.

        `parameters` are in PostgreSQL's binary format.
        Raises `psycopg.Error`. Whoever is cancelled meanwhile is told so when the answer is there.
        """
        wire = connection.pgconn
        if connection.prepare_threshold is None:
            return await _exchange(
                wire,
                lambda: wire.send_query_params(
                    self._text, parameters, self._types, self._formats, result_format=Format.BINARY
                ),
            )
        if connection in self._ready:
            # psycopg forgets all prepared statements of a connection after a rollback.
            with contextlib.suppress(InvalidSqlStatementName):
                return await self._execute(wire, parameters)
        # Before it is: who is cancelled meanwhile does not come back here, and it cannot be prepared twice.
        self._ready.add(connection)
        await _exchange(wire, lambda: wire.send_prepare(self._name, self._text, self._types))
        return await self._execute(wire, parameters)

    async def _execute(self, wire: PGconn, parameters: Sequence[bytes | None]) -> PGresult:
        return await _exchange(
            wire,
            lambda: wire.send_query_prepared(self._name, parameters, self._formats, result_format=Format.BINARY),
        )


class _Answer:
    """What the server says to what was sent, as it arrives."""

    def __init__(self, wire: PGconn) -> None:
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._socket = wire.socket
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._error: psycopg.Error | None = None
        self._over = False
        self.results: list[PGresult] = []

    async def wait(self) -> None:
        """Until all of it is there. A cancellation meanwhile is raised after that."""
        cancelled = False
        self._loop.add_reader(self._socket, self._read)
        try:
            if self._wire.flush():
                self._loop.add_writer(self._socket, self._write)
            while not self._over:
                try:
                    await self._done
                except asyncio.CancelledError:
                    cancelled = True
                    self._done = self._loop.create_future()
        finally:
            if not self._over:
                self._let_go()
        if cancelled:
            raise asyncio.CancelledError
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        try:
            self._wire.consume_input()
            while not self._wire.is_busy():
                result = self._wire.get_result()
                if result is None:
                    self._end(None)
                    return
                self.results.append(result)
            # libuv hears no more of a connection that was reset behind its last bytes, unless it is asked anew.
            self._loop.remove_reader(self._socket)
            self._loop.add_reader(self._socket, self._read)
        except psycopg.Error as error:
            self._end(error)

    def _write(self) -> None:
        try:
            if not self._wire.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._end(error)

    def _let_go(self) -> None:
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)

    def _end(self, error: psycopg.Error | None) -> None:
        # At once: libpq has closed the socket of a connection that broke, and whoever connects next gets its number.
        self._let_go()
        self._over, self._error = True, error
        if not self._done.done():
            self._done.set_result(None)


async def _exchange(wire: PGconn, send: Callable[[], None]) -> PGresult:
    send()
    answer = _Answer(wire)
    await answer.wait()
    for result in answer.results:
        if result.status not in _FINE:
            # A server that says goodbye may be followed by libpq's own word that it is gone.
            raise error_from_result(result)
    if not answer.results:
        raise psycopg.OperationalError("the server gave no answer")
    return answer.results[0]
