"""Trouble: which faults a seed brings, and when. Every kind has a verb here and a name in `KINDS`."""

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Callable, Coroutine

from dalsegno.testing.world.fleet import Host, Tiers
from dalsegno.testing.world.loop import Process
from dalsegno.testing.world.watch import Watch
from dalsegno.testing.world.weather import CRASH_POINTS, Weather

FAULTS_LEAST = 5
SECONDS = 7.0
KINDS = (
    *("crash", "host vanishes", "all crash", "crash at a point", "poison"),
    *("long pause", "short pause", "cut off", "drain"),
    *("log slow", "log down", "not applied", "lost on the way", "answer lost", "late"),
    *("hot down", "hot slow", "hot flushed", "hint lost", "hint doubled", "hint late", "cold down"),
    *("model fails", "agent raises", "tool raises", "undo raises"),
)
"""Every kind of fault; a run in which one of them never happened proves nothing about it."""

WRITES = ("log.commit", "log.commit", "log.commit", "log.claim", "log.close", "log.begin", "log.join", "log.holdings")


def point_of(seed: int) -> str:
    """The place where somebody certainly dies in this world, if anybody comes past it: each seed has its own."""
    return sorted(CRASH_POINTS)[seed % len(CRASH_POINTS)]


class Trouble:
    """The faults of one seed."""

    def __init__(self, hosts: list[Host], tiers: Tiers, watch: Watch, chance: random.Random, *, seed: int) -> None:
        self.hosts = hosts
        self.watch = watch
        self.tiers = tiers
        self.weather: Weather = tiers.weather
        self.chance = chance
        self._context = contextvars.copy_context()
        self._restarts: set[asyncio.Task[None]] = set()
        self._point = point_of(seed)
        self._verbs: dict[str, Callable[[], Awaitable[None]]] = {
            "crash": self._crash,
            "host vanishes": self._vanish,
            "all crash": self._all_crash,
            "long pause": lambda: self._pause("long pause", 1.2 + 2.0 * self.chance.random()),
            "short pause": lambda: self._pause("short pause", 0.2 + 0.5 * self.chance.random()),
            "cut off": self._cut_off,
            "drain": self._drain,
            "log slow": lambda: self._slow("log", 0.4),
            "log down": lambda: self._down("log", 0.2 + 1.5 * self.chance.random()),
            "hot slow": lambda: self._slow("hot", 0.25),
            "hot down": lambda: self._down("hot", 0.5 + 3.0 * self.chance.random()),
            "hot flushed": self._flush,
            "cold down": lambda: self._down("blobs", 0.5 + 3.0 * self.chance.random(), kind="cold down"),
            "hints": self._hints,
            "commit": self._commit,
            "commit again": self._commit,
            "point": self._crash_at,
            "mind": self._mind,
        }

    async def run(self) -> None:
        """Bring it all about."""
        self.weather.kill = self._killed
        self._arm_crash(self._point, after=self.chance.choice((0, 0, 0, 1)))
        times = sorted(SECONDS * self.chance.random() for _ in range(self.chance.randint(6, 9)))
        names = list(self._verbs)
        for when in times:
            await asyncio.sleep(max(0.0, when - self.tiers.loop.time()))
            await self._verbs[self.chance.choice(names)]()
        while sum(self.weather.happened.values()) < FAULTS_LEAST:
            await asyncio.sleep(0.3)
            await self._crash()

    async def heal(self) -> None:
        """Everything works from here on, and every host is up."""
        self.weather.heal()
        self.weather.note("healed")
        for host in self.hosts:
            if host.process.stopped:
                self.tiers.loop.resume(host.process)
        for restart in list(self._restarts):
            await restart
        for host in self.hosts:
            if host.process.dead:
                host.boot()

    def _host(self) -> Host:
        alive = [host for host in self.hosts if not host.process.dead]
        return self.chance.choice(alive or self.hosts)

    def _later(self, work: Callable[[], object], seconds: float) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            work()

        self._spawn(wait())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        """In the world's own name: what a dying process asks for must not die with it."""
        task = self.tiers.loop.create_task(work, context=self._context)
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    def _boot_later(self, host: Host, seconds: float) -> None:
        process = host.process
        self._later(lambda: host.boot() if host.process is process else None, seconds)

    def _killed(self, process: Process) -> None:
        for host in self.hosts:
            if host.process is process:
                host.kill(process, notice="told" if self.chance.random() < 0.7 else "untold")
                self._boot_later(host, 0.1 + self.chance.random())

    async def _crash(self) -> None:
        host = self._host()
        self.weather.count("crash")
        host.kill(host.process)
        self._boot_later(host, 0.05 + 1.5 * self.chance.random())

    async def _vanish(self) -> None:
        host = self._host()
        self.weather.count("host vanishes")
        host.kill(host.process, notice="untold")
        self._boot_later(host, 2.0 * self.chance.random())

    async def _all_crash(self) -> None:
        self.weather.count("all crash")
        for host in self.hosts:
            host.kill(host.process, notice="told" if self.chance.random() < 0.5 else "untold")
            self._boot_later(host, 0.1 + 1.5 * self.chance.random())

    async def _pause(self, kind: str, seconds: float) -> None:
        host = self._host()
        process = host.process
        if process.stopped or process.dead:
            return
        self.weather.count(kind)
        host.stop()
        self._later(lambda: self.tiers.loop.resume(process), seconds)

    async def _cut_off(self) -> None:
        name = self._host().process.incarnation
        self.weather.count("cut off")
        self.weather.cut.add(name)
        self._later(lambda: self.weather.cut.discard(name), 0.5 + 2.5 * self.chance.random())

    async def _drain(self) -> None:
        host = self._host()
        if host.process.dead or host.process.stopped or host.service.draining:
            return
        self.weather.count("drain")
        process = host.process

        async def restart() -> None:
            await host.drain()
            if host.process is process:
                host.boot()

        self._spawn(restart())

    async def _slow(self, tier: str, seconds: float) -> None:
        self.weather.count(f"{tier} slow")
        self.weather.slow[tier] = seconds
        self._later(lambda: self.weather.slow.pop(tier, None), 0.5 + 2.0 * self.chance.random())

    async def _down(self, tier: str, seconds: float, *, kind: str = "") -> None:
        self.weather.count(kind or f"{tier} down")
        self.weather.down.add(tier)
        self._later(lambda: self.weather.down.discard(tier), seconds)

    async def _flush(self) -> None:
        self.weather.count("hot flushed")
        self.tiers.cache.clear()
        self.watch.on_flush()

    async def _hints(self) -> None:
        kinds = self.chance.sample(("hint lost", "hint doubled", "hint late"), self.chance.randint(1, 3))
        self.weather.hints.update((kind, self.chance.choice((0.3, 1.0))) for kind in kinds)
        self._later(self.weather.hints.clear, 1.0 + 3.0 * self.chance.random())

    async def _commit(self) -> None:
        kind = self.chance.choice(("not applied", "lost on the way", "answer lost", "answer lost", "late", "late"))
        call = self.chance.choice(WRITES)
        self.weather.arm(kind, lambda process, point: point == call, after=self.chance.choice((0, 0, 1, 3)))

    async def _crash_at(self) -> None:
        self._arm_crash(self.chance.choice(sorted(CRASH_POINTS)), after=self.chance.choice((0, 1, 2, 5)))

    async def _mind(self) -> None:
        kind = self.chance.choice(("model fails", "agent raises"))
        place = kind.split()[0]
        self.weather.arm(kind, lambda process, point: point == place, after=self.chance.choice((0, 1)))

    def _arm_crash(self, point: str, *, after: int) -> None:
        self.weather.arm("crash at", lambda process, reached: reached == point, after=after)
