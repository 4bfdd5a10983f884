"""The worlds of the memory stores. Also the shortest example of what a backend has to supply."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import msgspec

from dalsegno.ports import Blobs, Ref, Transaction, Warm
from dalsegno.stores.memory import MemoryBlobs, MemoryCache, MemoryDatabase, MemoryHot, MemoryLog
from dalsegno.testing.conformance.worlds import Shared

START_MS = 1_700_000_000_000


class Time:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.passed = 0.0

    def seconds(self) -> float:
        """A monotonic clock."""
        return self.passed

    def unix_ms(self) -> int:
        """A wall clock."""
        return START_MS + round(self.passed * 1000)


class Pulse:
    """A member's beat, on a clock that moves when it is told to."""

    def __init__(self, time: Time) -> None:
        self.paused = False
        self._time = time
        self._due = 0.0
        self._every = 0.0
        self._renew: Callable[[], None] | None = None

    async def beat(self, renew: Callable[[], None], every: timedelta) -> None:
        """What a `MemoryLog` is given for a beat."""
        self._renew, self._every = renew, every.total_seconds()
        self._due = self._time.passed + self._every
        try:
            await asyncio.Event().wait()
        finally:
            self._renew = None

    def tick(self) -> None:
        """Beat, if it is time to."""
        if self._renew is not None and not self.paused and self._due <= self._time.passed:
            self._renew()
            self._due = self._time.passed + self._every


class MemoryWorld:
    """A `LogWorld`, `FleetWorld` and `TransactionWorld`. A test of the suite gives it stores that are wrong."""

    ttl = timedelta(seconds=3)
    own_thread = False
    endings = ("commit", "COMMIT", "rollback")

    def __init__(self, *, database: type[MemoryDatabase] = MemoryDatabase, handle: type[MemoryLog] = MemoryLog) -> None:
        self._time = Time()
        self._database = database(seconds=self._time.seconds, unix_ms=self._time.unix_ms)
        self._handle = handle
        self._pulses: dict[Warm, Pulse] = {}

    async def open(self) -> Shared:
        pulse = Pulse(self._time)
        log = self._handle(self._database, beat=pulse.beat)
        self._pulses[log] = pulse
        return log

    async def close(self) -> None:
        """Close every handle."""
        for log in self._pulses:
            await log.close()

    async def seqs(self, ref: Ref) -> Sequence[int]:
        row = self._database.rows.get(ref)
        return [] if row is None else sorted(row.events)

    async def keys(self, ref: Ref) -> int:
        row = self._database.rows.get(ref)
        return 0 if row is None else len(row.known)

    async def damage(self, ref: Ref, *, seq: int) -> None:
        event = self._database.rows[ref].events[seq]
        event.data = event.data[:-1] + bytes([event.data[-1] ^ 1])

    async def lose(self, ref: Ref, *, seq: int) -> None:
        del self._database.rows[ref].events[seq]

    async def outdate(self, ref: Ref) -> None:
        row = self._database.rows[ref]
        row.version, row.state = 0, b"from long ago"

    async def kill(self, log: Warm) -> None:
        assert isinstance(log, MemoryLog)
        if log.member is not None:
            self._database.kill(log.member.incarnation)
        await log.close()

    async def pass_time(self, duration: timedelta) -> None:
        await asyncio.sleep(0)
        until, step = self._time.passed + duration.total_seconds(), self.ttl.total_seconds() / 10
        while self._time.passed < until:
            self._time.passed = min(until, self._time.passed + step)
            for pulse in self._pulses.values():
                pulse.tick()

    async def pause(self, log: Warm) -> None:
        self._pulses[log].paused = True

    async def resume(self, log: Warm) -> None:
        self._pulses[log].paused = False

    async def put(self, transaction: Transaction, name: str, number: int) -> None:
        await transaction.execute("set", (name, number))

    async def look(self, name: str) -> int | None:
        content = self._database.scratch.get(name)
        return None if content is None else msgspec.msgpack.decode(content, type=int)


class MemoryHotWorld:
    """A `HotWorld` and `CacheWorld`."""

    lifetime = timedelta(seconds=60)

    def __init__(self, *, handle: type[MemoryHot] = MemoryHot) -> None:
        self._time = Time()
        self._handle = handle
        self._cache = MemoryCache(seconds=self._time.seconds, lifetime=self.lifetime)

    async def open(self) -> MemoryHot:
        return self._handle(self._cache)

    async def pass_time(self, duration: timedelta) -> None:
        self._time.passed += duration.total_seconds()


class MemoryBlobsWorld:
    """A `BlobsWorld`."""

    def __init__(self, *, handle: type[MemoryBlobs] = MemoryBlobs) -> None:
        self._objects: dict[str, bytes] = {}
        self._handle = handle

    async def open(self) -> Blobs:
        return self._handle(self._objects)

    async def names(self) -> Sequence[str]:
        return sorted(self._objects)

    async def damage(self, name: str) -> None:
        content = self._objects[name]
        self._objects[name] = content[:-1] + bytes([content[-1] ^ 1])
