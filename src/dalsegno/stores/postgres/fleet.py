"""The port `Fleet`: records that expire by the server's clock, and locks that the server opens at death.

Every replica has a connection of its own, which a thread beats on. It also holds an advisory lock, which goes when the
connection goes: whoever has a record and no lock is dead. Behind a pooler nobody can hold one, and only time tells.
"""

import asyncio
import contextlib
import hashlib
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import psycopg

from dalsegno.ports import Member, Ref
from dalsegno.stores import sqlfile
from dalsegno.stores.postgres.connections import Connections
from dalsegno.stores.postgres.failure import translating
from dalsegno.stores.postgres.place import Place
from dalsegno.stores.postgres.sessions import Sessions

AGAIN_SECONDS = 0.05
GRACE_SECONDS = 0.1
"""How long a lock must be gone: who lives and has lost its connection has another one before that."""


class Record(NamedTuple):
    """A replica's: whether it beat in time, and whether the server has let go of the lock that the record names."""

    member: Member
    alive: bool
    unlocked: bool


class PostgresFleet:
    """One replica's part in the fleet, and its view of the others."""

    def __init__(self, place: Place, connections: Connections, sessions: Sessions) -> None:
        self._place = place
        self._connections = connections
        self._sessions = sessions
        self._sql = sqlfile.statements("postgres")
        self._beat: Beat | None = None
        self._missed: set[str] = set()

    async def join(self, member: Member, *, ttl: timedelta) -> None:
        """See port `Fleet`. Joining again replaces the earlier membership of this handle."""
        await self.close()
        async with self._connections.cursor() as cursor:
            await cursor.execute(self._sql["replica_sweep"])
        beat = Beat(self._place, member, ttl)
        try:
            with translating():
                await asyncio.to_thread(beat.begin)
        except BaseException:
            beat.close()
            raise
        self._beat = beat

    async def bury(self) -> Sequence[str]:
        """See port `Fleet`. One small read; a wait and a write only when somebody seems to have died."""
        own = self._beat.name if self._beat else None
        others = [record for record in await self._records() if record.member.incarnation != own]
        buried: list[str] = []
        if self._beat is None or self._beat.is_settled():
            gone = [record.member.incarnation for record in others if record.unlocked]
            if gone:
                await asyncio.sleep(GRACE_SECONDS)
                buried = await self._bury(gone)
        # Who only misses its time is dead to claims, but keeps its record: it may be woken and beat again. Named once.
        missed = {record.member.incarnation for record in others if not record.alive} - {*buried}
        late, self._missed = missed - self._missed, missed
        return [*buried, *sorted(late)]

    async def members(self) -> Sequence[Member]:
        """See port `Fleet`."""
        return [record.member for record in await self._records() if record.alive]

    async def holdings(self, incarnation: str) -> Sequence[Ref]:
        """See port `Fleet`."""
        return await self._sessions.held(incarnation)

    async def leave(self) -> None:
        """See port `Fleet`. The record goes before the lock: who leaves in order did not die."""
        if self._beat is not None:
            await asyncio.to_thread(self._beat.stop)
            async with self._connections.cursor() as cursor:
                await cursor.execute(self._sql["replica_forget"], {"incarnation": self._beat.name})
            await self.close()

    async def close(self) -> None:
        """Stop beating and let go of the lock. Peers notice at once."""
        beat, self._beat = self._beat, None
        if beat is not None:
            await asyncio.to_thread(beat.close)

    async def _records(self) -> list[Record]:
        async with self._connections.cursor() as cursor:
            found = await (await cursor.execute(self._sql["replica_list"])).fetchall()
        return [Record(Member(*member), alive, unlocked) for *member, alive, unlocked in found]

    async def _bury(self, names: list[str]) -> list[str]:
        async with self._connections.cursor() as cursor:
            found = await (await cursor.execute(self._sql["replica_bury"], {"names": names})).fetchall()
        return [name for (name,) in found]


class Beat:
    """Renews a record at a third of its time to live, from a thread and over a connection of its own."""

    def __init__(self, place: Place, member: Member, ttl: timedelta) -> None:
        self.name = member.incarnation
        self._place = place
        self._ttl = ttl
        self._sql = sqlfile.statements("postgres")
        lock = int.from_bytes(hashlib.blake2b(self.name.encode(), digest_size=8).digest(), "big", signed=True)
        self._member = member
        self._record = {
            "incarnation": member.incarnation,
            "id": member.id,
            "pid": member.pid,
            "url": member.url,
            "ttl": ttl,
            "lock": None if place.pooled else lock,
        }
        self._connection: psycopg.Connection[Any] | None = None
        self._lost_at: float | None = None
        self._awake, self._waker = socket.socketpair()
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="dalsegno-postgres-beat", daemon=True)

    def begin(self) -> None:
        """Be alive from now on. Raises psycopg's errors if that cannot be."""
        self._beat()
        self._thread.start()
        # A child process that was forked without exec would keep the connection, and so the lock, beyond our death.
        mine = weakref.WeakMethod(self._let_go)
        os.register_at_fork(after_in_child=lambda: (method := mine()) and method())

    def is_settled(self) -> bool:
        """Whether our own connection was not lost of late: if it was, so perhaps was that of others, who live."""
        return self._lost_at is None or time.monotonic() - self._lost_at > self._ttl.total_seconds()

    def stop(self) -> None:
        """Beat no more; the lock stays."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._waker.send(b"!")
        if self._thread.is_alive():
            self._thread.join(timeout=1)

    def close(self) -> None:
        """Beat no more, and let go of the lock."""
        self.stop()
        if self._connection is not None:
            self._connection.close()
        self._awake.close()
        self._waker.close()

    def _serve(self) -> None:
        every = self._ttl.total_seconds() / 3
        due = time.monotonic() + every
        while not self._stopping:
            if self._is_quiet_until(due):
                due = time.monotonic() + every
            elif self._stopping:
                return
            try:
                self._beat()
            except psycopg.Error:
                # The server is away, or does not want to: again, before the time is over.
                self._lost_at = time.monotonic()
                due = time.monotonic() + min(every, AGAIN_SECONDS)

    def _beat(self) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        self._connection.execute(self._sql["replica_beat"], self._record)

    def _is_quiet_until(self, due: float) -> bool:
        """Wait for the time of the next beat; less if we are to stop, or if the connection is lost meanwhile."""
        look = select.poll()
        look.register(self._awake.fileno(), select.POLLIN)
        connection = self._connection
        if connection is not None and not connection.closed:
            look.register(connection.fileno(), select.POLLIN)
        found = look.poll(max(0.0, due - time.monotonic()) * 1000)
        if not found:
            return True
        if connection is not None and not self._stopping:
            connection.close()
            self._lost_at = time.monotonic()
        return False

    def _connect(self) -> psycopg.Connection[Any]:
        milliseconds = max(1000, round(self._ttl.total_seconds() * 500))
        parameters: dict[str, Any] = {**self._place.connection(), "tcp_user_timeout": milliseconds}
        if not self._place.pooled:
            # A beat that a power failure takes back is no loss: it waits for no disk.
            parameters["options"] += f" -c synchronous_commit=off -c statement_timeout={milliseconds}"
        connection = psycopg.Connection.connect(**parameters, autocommit=True, prepare_threshold=None)
        try:
            if not self._place.pooled:
                connection.execute(self._sql["replica_lock"], self._record)
        except psycopg.Error:
            connection.close()
            raise
        return connection

    def _let_go(self) -> None:
        if self._connection is not None and not self._connection.closed:
            # Not closed: psycopg would say goodbye to whatever has the number next.
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, self._connection.fileno())
            os.close(nowhere)
