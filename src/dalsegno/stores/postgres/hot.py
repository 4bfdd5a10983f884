"""The port `Hot` on PostgreSQL, for fleets without Redis: open steps in tables that no crash of the server survives,
and hints by `NOTIFY`.

Nothing here goes through the log's connections or transactions. What different sessions publish, read or hint while a
statement is under way goes together in the next: hundreds of streams are a few statements at a time. No call takes
longer than 250 ms; a server that fails is left alone for a while. Behind a transaction pooler nobody can listen: hints
are lost there, and the poll that is behind each finds out.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import psycopg

from dalsegno.core.stream import Piece
from dalsegno.errors import DalsegnoError, LeaseLost, Unavailable
from dalsegno.ports import Batch, Failures, Hint, OpenStep, Ref
from dalsegno.stores import sqlfile
from dalsegno.stores.breaker import Breaker
from dalsegno.stores.each import each
from dalsegno.stores.postgres import steps
from dalsegno.stores.postgres.arrays import Texts
from dalsegno.stores.postgres.connections import Connections
from dalsegno.stores.postgres.hints import Ear, payloads
from dalsegno.stores.postgres.lane import Lane
from dalsegno.stores.postgres.place import Place, place_of
from dalsegno.stores.postgres.schema import migrate
from dalsegno.stores.postgres.steps import Act, Read, Row, Write, Written

LIFETIME = timedelta(minutes=10)
ANSWER_SECONDS = 0.24
"""How long a caller waits, and how long a connection or a statement may take: less than 250 ms."""
CONNECTIONS_MAX = 4
SWEEP_SECONDS = 10.0
TRIES = 3
SETTINGS: Mapping[str, str] = {"statement_timeout": "200ms", "lock_timeout": "150ms", "synchronous_commit": "off"}
AGAIN: Final = frozenset({"23505", "40001", "40P01"})
"""Two processes began the same session's first step, and the second will find it; or they were in each other's way."""


class PostgresHot:
    """One replica's handle. Make it with `open`."""

    def __init__(self, place: Place, lifetime: timedelta) -> None:
        self._place = place
        self._lifetime = lifetime
        self._sql = sqlfile.statements("postgres_hot")
        self._connections: Connections | None = None
        self._reaching: asyncio.Task[None] | None = None
        self._missing = ""
        self._sweeping: asyncio.Task[None] | None = None
        self._swept = asyncio.get_running_loop().time()
        breaker = Breaker()
        self._writes = Lane(self._write, name=lambda write: write.ref, breaker=breaker)
        self._reads = Lane(self._read, name=id, breaker=breaker)
        self._hints = Lane(self._tell, name=id, breaker=breaker)

    @classmethod
    async def open(cls, url: str, *, lifetime: timedelta = LIFETIME) -> "PostgresHot":
        """The hot tier in that database. It need not be there yet: it may be lost at any moment, also the first.

        Raises `ConfigError` for a URL that cannot be understood, or a schema that is too new or cannot be made.
        """
        hot = cls(place_of(url), lifetime)
        with suppress(Unavailable):
            await hot._reach()
        return hot

    async def publish(self, batches: Sequence[Batch]) -> Failures:
        """See port `Hot`."""
        return await each(self._publish, batches)

    async def _publish(self, ref: Ref, epoch: int, pieces: Sequence[Piece]) -> None:
        async with _in_time():
            if not pieces:
                await self._change(Write(ref, epoch, Act.FENCE))
            for run in steps.runs(pieces):
                written = await self._change(Write(ref, epoch, Act.PUBLISH, run))
                # A repetition of what may not have arrived, and has.
                if more := steps.rest(run, written):
                    await self._change(Write(ref, epoch, Act.PUBLISH, more))

    async def fence(self, ref: Ref, epoch: int) -> OpenStep | None:
        """See port `Hot`. What is read after the fence is all there will be of older epochs."""
        async with _in_time():
            await self._change(Write(ref, epoch, Act.FENCE))
            return await self.read(ref)

    async def read(self, ref: Ref, *, base: int = 0, after: int = 0) -> OpenStep | None:
        """See port `Hot`."""
        async with _in_time():
            return await self._reads.ask(Read(ref, base, after))

    async def clear(self, ref: Ref, epoch: int) -> None:
        """See port `Hot`. A stale epoch's clear does nothing: the step is somebody else's by now."""
        async with _in_time():
            await self._writes.ask(Write(ref, epoch, Act.CLEAR))

    async def tell(self, hints: Sequence[Hint]) -> None:
        """See port `Hot`. Nobody listens behind a pooler."""
        if hints and not self._place.pooled:
            async with _in_time():
                await self._hints.ask(hints)

    @asynccontextmanager
    async def listen(self, heard: Callable[[Hint], None]) -> AsyncIterator[None]:
        """See port `Hot`. What is said once it has been entered is heard, if the server answers and is no pooler."""
        if self._place.pooled:
            yield
            return
        ear = Ear(self._place, heard)
        listening = asyncio.create_task(ear.run())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await ear.open.wait()
            yield
        finally:
            listening.cancel()
            await asyncio.wait((listening,))

    async def close(self) -> None:
        """Let go of the connections."""
        if self._reaching is not None:
            self._reaching.cancel()
            await asyncio.wait((self._reaching,))
        for lane in (self._writes, self._reads, self._hints):
            await lane.close()
        if self._sweeping is not None:
            await asyncio.wait((self._sweeping,))
        if self._connections is not None:
            await self._connections.close()

    # ------------------------------------------------------------------ many at once

    async def _change(self, write: Write) -> Written:
        for _ in range(TRIES):
            written = await self._writes.ask(write)
            if written is not None:
                if written.stale:
                    raise LeaseLost(f"session {write.ref.id} has a newer epoch than {write.epoch}")
                return written
        raise Unavailable("others wrote at the same time, again and again", outcome="not_applied")

    async def _write(self, writes: Sequence[Write]) -> list[Written | None]:
        limits = {"most": steps.STEP_BYTES_MAX, "ttl": self._lifetime}
        # In order of their names: two processes that lock the same rows do not wait for each other.
        order = sorted(range(len(writes)), key=lambda nth: (writes[nth].ref.tenant, writes[nth].ref.id))
        found = await self._execute("step_write", {**steps.writing([writes[nth] for nth in order]), **limits})
        answers = dict(zip(order, steps.written(len(writes), found), strict=True))
        now = asyncio.get_running_loop().time()
        if now - self._swept > SWEEP_SECONDS and (self._sweeping is None or self._sweeping.done()):
            self._swept = now
            self._sweeping = asyncio.create_task(self._sweep())
        return [answers[nth] for nth in range(len(writes))]

    async def _read(self, reads: Sequence[Read]) -> list[OpenStep | None]:
        return steps.shown(reads, await self._execute("step_read", steps.reading(reads)))

    async def _tell(self, said: Sequence[Sequence[Hint]]) -> list[None]:
        found = Texts(payloads([hint for hints in said for hint in hints]))
        if found:
            await self._execute("hint_tell", {"payloads": found})
        return [None] * len(said)

    async def _sweep(self) -> None:
        with suppress(DalsegnoError):
            await self._execute("step_sweep", {"ttl": self._lifetime})

    # ------------------------------------------------------------------ the server

    async def _execute(self, name: str, values: dict[str, Any]) -> list[Row]:
        connections = await self._reached()
        async with connections.cursor(lost="unknown") as cursor:
            for tries_left in reversed(range(TRIES)):
                try:
                    await cursor.execute(self._sql[name], values)
                    break
                except psycopg.Error as error:
                    if not tries_left or error.sqlstate not in AGAIN:
                        raise
            return await cursor.fetchall() if cursor.description else []

    async def _reached(self) -> Connections:
        if self._connections is None:
            if self._reaching is None or self._reaching.done():
                self._reaching = asyncio.create_task(self._try_to_reach())
            await asyncio.wait((self._reaching,), timeout=ANSWER_SECONDS)
        if self._connections is None:
            raise Unavailable(self._missing or "the database cannot be reached in time", outcome="not_applied")
        return self._connections

    async def _try_to_reach(self) -> None:
        try:
            await self._reach()
        except DalsegnoError as error:
            self._missing = str(error)

    async def _reach(self) -> None:
        place = await migrate(self._place, product="postgres_hot")
        self._place = replace(place, settings={**place.settings, **SETTINGS})
        self._connections = Connections(self._place, most=CONNECTIONS_MAX, seconds=ANSWER_SECONDS)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Whatever a call has to ask, it asks in this time."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield
    except TimeoutError:
        raise Unavailable("the hot tier did not answer in time") from None
