"""The fleet of a world: hosts on which replicas start, die, stop, drain and start again, and the wires to their
clients.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

from dalsegno.core.cursor import Cursor
from dalsegno.core.idle import Policy
from dalsegno.core.stream import Frame
from dalsegno.errors import DalsegnoError, Unavailable
from dalsegno.ports import Member, Ref
from dalsegno.runtime.archivist import Archiving, Archivist
from dalsegno.runtime.replica import Replica, Tuning
from dalsegno.runtime.service import Service
from dalsegno.runtime.shelf import with_shelf
from dalsegno.stores.memory import MemoryBlobs, MemoryCache, MemoryHot, MemoryLog
from dalsegno.testing.world.agent import Stage
from dalsegno.testing.world.cold import FaultyBlobs
from dalsegno.testing.world.hot import FaultyHot
from dalsegno.testing.world.loop import Process, WorldLoop, here
from dalsegno.testing.world.tiers import FaultyLog, Line
from dalsegno.testing.world.watch import Watch, WatchedDatabase
from dalsegno.testing.world.weather import Weather

T = TypeVar("T")
PATIENCE_SECONDS = 4.0
TUNING = Tuning(
    lease_ttl=timedelta(seconds=1),
    turns_max=8,
    turn_deadline=timedelta(seconds=60),
    context_limit_bytes=12_000,
    near_events=10,
    claim_every=timedelta(milliseconds=300),
    bury_every=timedelta(milliseconds=200),
    sweep_every=timedelta(milliseconds=400),
    erase_every=timedelta(seconds=1),
    drain_within=timedelta(seconds=1),
)


SHORT = Policy(archive_after=timedelta(seconds=0.2), sweep_after=timedelta(seconds=0.1))


class ConnectionLost(Exception):
    """The client's connection broke: whether its request was carried out, it cannot know."""


class Tiers:
    """What the hosts of one world share."""

    def __init__(self, loop: WorldLoop, weather: Weather) -> None:
        self.loop = loop
        self.weather = weather
        self.database = WatchedDatabase(seconds=loop.time, unix_ms=lambda: 1_700_000_000_000 + int(loop.time() * 1000))
        self.cache = MemoryCache(seconds=loop.time)
        self.objects: dict[str, bytes] = {}
        self.database.objects = self.objects
        self.archiving = False
        self.ids: Iterator[str] = iter(())
        """Names for sessions to come."""


class Connection:
    """A client's end of a stream: frames as they come, then an end or a cut."""

    def __init__(self, loop: WorldLoop) -> None:
        self.frames: deque[Frame] = deque()
        self.over: str = ""
        self.task: asyncio.Task[None] | None = None
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None

    def push(self, frame: Frame) -> None:
        self.frames.append(frame)
        self._wake()

    def cut(self, why: str) -> None:
        """No more frames: `end` after a clean end, else the reason."""
        self.over = self.over or why
        self._wake()

    async def frame(self) -> Frame | None:
        """The next frame; None once the stream is over."""
        while not self.frames and not self.over:
            self._waiter = self._loop.create_future()
            await self._waiter
        return self.frames.popleft() if self.frames else None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Host:
    """One machine: at most one replica runs on it at a time. `outside` is the context of whoever tends it."""

    def __init__(self, name: str, tiers: Tiers, stage: Stage, watch: Watch) -> None:
        self.name = name
        self.tiers = tiers
        self.starts = 0
        self.wires: dict[object, Callable[[str], None]] = {}
        self.outside = contextvars.copy_context()
        self._stage = stage
        self._watch = watch
        self.boot()

    @property
    def up(self) -> bool:
        """Whether anybody answers here."""
        return not self.process.dead and not self.process.stopped

    def boot(self) -> None:
        """A new process starts."""
        self.starts += 1
        incarnation = f"{self.name}.{self.starts}"
        weather, stage = self.tiers.weather, self._stage
        self.process = process = Process(self.name, incarnation)
        log = FaultyLog(MemoryLog(self.tiers.database, beat=self._beat), Line("log", process, weather))
        hot = FaultyHot(MemoryHot(self.tiers.cache), Line("hot", process, weather), self._watch.on_hot)
        blobs = FaultyBlobs(MemoryBlobs(self.tiers.objects), Line("blobs", process, weather))
        member = Member(incarnation, self.name)
        warm = with_shelf(log, blobs)
        self._warm, self._blobs = warm, blobs
        self.replica = Replica(member, {"default": stage.agent}, warm=warm, hot=hot, blobs=blobs, tuning=TUNING)
        self.service = Service(self.replica, warm=warm, blobs=blobs, ids=_Ids(self.tiers))
        archivist = Archivist(warm, blobs, eraser=self.replica.eraser, policy=SHORT, incarnation=incarnation)
        self._archiving = Archiving(archivist, every=timedelta(seconds=0.3), pause=timedelta(seconds=0.1))
        weather.note("boot", incarnation)
        self._spawn(self._start(self.replica))
        if self.tiers.archiving:
            self.archive()

    def archive(self) -> None:
        """From now on what is idle for a moment is archived, if this replica is the one to do so."""
        self.process.context.copy().run(self._archiving.start)

    def kill(self, process: Process, *, notice: str = "told") -> None:
        """SIGKILL. With the notice `told` the operating system releases what it held; otherwise the host is gone."""
        if process.dead:
            return
        process.dead = True
        self.tiers.weather.note("killed", process.incarnation, notice)
        if notice == "told":
            self.tiers.database.kill(process.incarnation)
        if process is self.process:
            self._hang_up("reset")

    def stop(self) -> None:
        """SIGSTOP."""
        self.process.stopped = True

    async def rest(self) -> None:
        """Archive nothing more."""
        await self._spawn(self._archiving.stop())

    async def tidy(self) -> None:
        """Go past all sessions once, and sweep what is idle: as an operator would have it done."""
        policy = Policy(sweep_after=timedelta())
        archivist = Archivist(self._warm, self._blobs, eraser=self.replica.eraser, policy=policy)
        while not await archivist.go_on():
            pass

    async def drain(self) -> None:
        """SIGTERM: hand over, say goodbye, exit; then the next version starts."""
        process, replica = self.process, self.replica
        done = self._spawn(_drain(replica))
        await asyncio.wait([done], timeout=5.0)
        self.kill(process)

    # -------------------------------------------------------------------------------------------------- wires

    async def request(self, ask: Callable[[Service], Awaitable[T]]) -> T:
        """What a client gets. Raises `ConnectionLost` when the replica dies, is silent too long or is not there."""
        if self.process.dead:
            await asyncio.sleep(0.005)
            raise ConnectionLost("nobody listens")
        loop = self.tiers.loop
        answer: asyncio.Future[T] = loop.create_future()
        task = self._spawn(_answer(ask, self.service, answer))
        self.wires[answer] = lambda why: _break(answer, why)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await answer
        except TimeoutError:
            if self.tiers.weather.chance.random() < 0.5:
                loop.call_soon(task.cancel, context=self.process.context)
            raise ConnectionLost("no answer in time") from None
        finally:
            self.wires.pop(answer, None)

    def follow(self, ref: Ref, *, after: Cursor, turn: str | None) -> Connection:
        """A stream to a client."""
        connection = Connection(self.tiers.loop)
        if self.process.dead:
            connection.cut("nobody listens")
            return connection
        connection.task = self._spawn(_pump(self.service, connection, ref, after, turn))
        self.wires[connection] = connection.cut
        return connection

    def hang_up(self, connection: Connection) -> None:
        """The client goes away; the server notices at once or not at all."""
        self.wires.pop(connection, None)
        connection.cut("gone")
        if connection.task is not None and not self.process.dead:
            self.tiers.loop.call_soon(connection.task.cancel, context=self.process.context)

    def _hang_up(self, why: str) -> None:
        wires, self.wires = self.wires, {}
        for cut in wires.values():
            cut(why)

    def _spawn(self, work: Any) -> "asyncio.Task[Any]":
        return self.tiers.loop.create_task(work, context=self.process.context.copy())

    async def _start(self, replica: Replica) -> None:
        """A replica that cannot join yet is started again and again, as a supervisor would."""
        while True:
            try:
                return await replica.start()
            except Unavailable:
                await asyncio.sleep(0.2)

    async def _beat(self, renew: Callable[[], None], every: timedelta) -> None:
        process = here()
        while True:
            await asyncio.sleep(every.total_seconds())
            weather = self.tiers.weather
            if "log" not in weather.down and (process is None or process.incarnation not in weather.cut):
                renew()


class _Ids:
    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers

    def session(self) -> str:
        return next(self._tiers.ids)

    def incarnation(self) -> str:
        raise AssertionError("hosts name their replicas in this world")


async def _drain(replica: Replica) -> None:
    await replica.drain()
    await replica.stop()


async def _answer(ask: Callable[[Service], Awaitable[T]], service: Service, answer: "asyncio.Future[T]") -> None:
    try:
        result = await ask(service)
    except DalsegnoError as error:
        if not answer.done():
            answer.set_exception(error)
    else:
        if not answer.done():
            answer.set_result(result)


def _break(answer: "asyncio.Future[Any]", why: str) -> None:
    if not answer.done():
        answer.set_exception(ConnectionLost(why))


async def _pump(service: Service, connection: Connection, ref: Ref, after: Cursor, turn: str | None) -> None:
    stream = None
    try:
        stream = await service.follow(ref, after=after, turn=turn)
        async for frame in stream:
            connection.push(frame)
        connection.cut("end")
    except DalsegnoError as error:
        connection.cut(f"{type(error).__name__}: {error}")
    finally:
        if stream is not None:
            await stream.aclose()
