"""The port `Hot` beside a SQLite log: a second file, which may be lost at any moment, and datagrams for hints.

The file is written without a sync, through the same kind of writer as the log, so that what `publish` has returned from
is read by every process, and a stale epoch is refused by the first publication after a fence. A file that is damaged is
thrown away and made anew, and the other processes follow.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from dalsegno.errors import LeaseLost, Unavailable, Unreadable
from dalsegno.ports import Batch, Failures, Hint, OpenStep, Ref
from dalsegno.stores.ears import Ears
from dalsegno.stores.sqlite.file import Gate, beside, clock_ms, prepare, translating
from dalsegno.stores.sqlite.readers import Readers
from dalsegno.stores.sqlite.steps import Steps
from dalsegno.stores.sqlite.wake import Wake
from dalsegno.stores.sqlite.writer import Writer

R = TypeVar("R")
LIFETIME = timedelta(minutes=10)
PATIENCE_SECONDS = 0.2
SWEEP_EVERY_MS = 10_000
HINTS_TOGETHER = 32
LOOK_EVERY_MS = 1_000


class Tier:
    """The open file: what is exchanged when it turns out to be damaged."""

    def __init__(self, path: Path, lifetime: timedelta) -> None:
        prepare(path, product="sqlite_hot")
        self.steps = Steps(lifetime)
        with translating():
            self.writer = Writer(path, sync="OFF", patience_seconds=PATIENCE_SECONDS)
            self.readers = Readers(path, self.steps)
        self._path = path
        self.inode = os.stat(path).st_ino

    def is_current(self) -> bool:
        """Whether this is still the file that others find under the path."""
        try:
            return os.stat(self._path).st_ino == self.inode
        except OSError:
            return False

    async def close(self) -> None:
        """Let go of the file."""
        await self.writer.close()
        await self.readers.close()


class SqliteHot:
    """Open steps and hints for the processes of one machine. Make it with `open`."""

    def __init__(self, path: Path, tier: Tier, wake: Wake, lifetime: timedelta) -> None:
        self._path = path
        self._tier = tier
        self._wake = wake
        self._home = Ears[Hint]()
        self._lifetime = lifetime
        self._swept = self._looked = clock_ms()
        self._replacing = False
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(tuple[Hint, ...]).decode

    @classmethod
    async def open(cls, database: Path, *, lifetime: timedelta = LIFETIME) -> "SqliteHot":
        """Open the hot tier that lies beside the log in `database`, or make it."""
        path = beside(database, "-hot")
        try:
            tier = await asyncio.to_thread(Tier, path, lifetime)
        except Unreadable:
            await asyncio.to_thread(_throw_away, path, os.stat(path).st_ino)
            tier = await asyncio.to_thread(Tier, path, lifetime)
        return cls(path, tier, Wake(beside(database, "-wake")), lifetime)

    async def publish(self, batches: Sequence[Batch]) -> Failures:
        """See port `Hot`."""
        publish = self._tier.steps.publish

        def stale(cursor: sqlite3.Cursor, _: object) -> list[Batch]:
            return [batch for batch in batches if not publish(cursor, *batch)]

        refused = await self._safely(self._tier.writer.do(stale))
        now = clock_ms()
        if now - self._looked > LOOK_EVERY_MS:
            self._looked = now
            await self._keep_house(now)
        return {ref: LeaseLost(f"session {ref.id} has a newer epoch than {epoch}") for ref, epoch, _ in refused}

    async def fence(self, ref: Ref, epoch: int) -> OpenStep | None:
        """See port `Hot`."""
        tier = self._tier
        shown = await self._safely(tier.writer.do(lambda cursor, _: tier.steps.fence(cursor, ref, epoch)))
        if shown == "stale":
            raise LeaseLost(f"session {ref.id} has a newer epoch than {epoch}")
        return shown

    async def read(self, ref: Ref, *, base: int = 0, after: int = 0) -> OpenStep | None:
        """See port `Hot`."""
        return await self._safely(self._tier.readers.near(lambda steps, cursor: steps.read(cursor, ref, base, after)))

    async def clear(self, ref: Ref, epoch: int) -> None:
        """See port `Hot`. A stale epoch's clear does nothing: the step is somebody else's by now."""
        tier = self._tier
        await self._safely(tier.writer.do(lambda cursor, _: tier.steps.clear(cursor, ref, epoch)))

    async def tell(self, hints: Sequence[Hint]) -> None:
        """See port `Hot`. What is said at once travels together: a datagram costs more than what is in it."""
        self._home.tell(hints)
        for first in range(0, len(hints) if self._wake.others else 0, HINTS_TOGETHER):
            self._wake.send(self._encode(hints[first : first + HINTS_TOGETHER]))

    @asynccontextmanager
    async def listen(self, heard: Callable[[Hint], None]) -> AsyncIterator[None]:
        """See port `Hot`."""

        def understood(message: bytes) -> None:
            with contextlib.suppress(msgspec.MsgspecError):
                for hint in self._decode(message):
                    heard(hint)

        with self._wake.listen(understood), self._home.listen(heard):
            yield

    async def close(self) -> None:
        """Let go of files, threads and sockets."""
        self._wake.close()
        await self._tier.close()

    async def _safely(self, asked: Awaitable[R]) -> R:
        """Damage to a file that may be lost is no more than its loss."""
        try:
            return await asked
        except Unreadable as error:
            await self._replace()
            raise Unavailable(f"the hot tier was damaged and begins anew: {error}", outcome="not_applied") from error

    async def _keep_house(self, now: int) -> None:
        if not self._tier.is_current():
            await self._replace()
        elif now - self._swept > SWEEP_EVERY_MS:
            self._swept = now
            tier = self._tier
            await self._safely(tier.writer.do(lambda cursor, _: tier.steps.sweep(cursor)))

    async def _replace(self) -> None:
        """Open what lies under the path; if that is the damaged file itself, throw it away first."""
        if self._replacing:
            return
        self._replacing = True
        damaged = self._tier
        try:
            await asyncio.to_thread(_throw_away, self._path, damaged.inode)
            self._tier = await asyncio.to_thread(Tier, self._path, self._lifetime)
            await damaged.close()
        finally:
            self._replacing = False


def _throw_away(path: Path, inode: int) -> None:
    """Remove the damaged file with that inode, unless somebody has done so; nobody makes a new one meanwhile."""
    with contextlib.closing(Gate(beside(path, "-gate"))) as gate:
        gate.enter()
        if path.exists() and path.stat().st_ino == inode:
            for ending in ("-wal", "-shm", ""):
                beside(path, ending).unlink(missing_ok=True)
