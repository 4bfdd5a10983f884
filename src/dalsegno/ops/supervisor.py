"""The supervisor: N replicas on one port, each a process, restarted when it dies. It serves nothing itself.

    a replica dies         a new incarnation under the same id, at once and then with growing pauses
    SIGTERM, SIGINT        all leave in order; exit 0 when they are gone. The second one ends them at once
    SIGHUP                 a rolling restart: one leaves and its successor serves before the next one leaves
    the supervisor dies    the replicas notice by their lifelines and leave in order

The first replica starts alone: what is wrong with TARGET or a tier is said once, and a fresh store gets its schema.
Knows processes, and nothing of sessions.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Sequence
from datetime import timedelta

import msgspec

from dalsegno.errors import ConfigError, DalsegnoError
from dalsegno.ops.address import reserved
from dalsegno.ops.config import Config
from dalsegno.ops.lifeline import Ready
from dalsegno.ops.place import End, Place

log = logging.getLogger("dalsegno.supervisor")

FIRST_PAUSE = timedelta(milliseconds=100)
LONGEST_PAUSE = timedelta(seconds=10)
STABLE_AFTER = timedelta(seconds=10)
"""A replica that served for so long has earned a restart without a pause."""
IN_ORDER = (0, -signal.SIGTERM)


class NotStarted(DalsegnoError):
    """The fleet never came up."""


class Supervisor:
    """A fleet on one port of this machine. `run` until told to `leave`."""

    def __init__(self, config: Config, *, on_ready: Callable[[Ready], None]) -> None:
        self._port = reserved(config.host, config.port)
        self.port: int = self._port.getsockname()[1]
        self.places = [Place(replica, on_ready=on_ready) for replica in replicas(config, port=self.port)]
        self._leaving = asyncio.Event()
        self._up = False
        self._ends: dict[str, End] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._rolling: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Keep the fleet up until told to leave; the exit code. Raises `ConfigError` or `NotStarted` at a bad start."""
        first, *others = self.places
        try:
            self._keep(first)
            await first.until(lambda place: place.state in ("ready", "gone"))
            if first.state == "gone" and not self._leaving.is_set():
                await asyncio.gather(*self._keepers)
                raise _failure(self._ends[first.id])
            self._up = True
            for place in others:
                self._keep(place)
            await asyncio.gather(*self._keepers)
            return 0 if all(end.code in IN_ORDER for end in self._ends.values()) else 1
        finally:
            tasks = [*self._keepers, *([self._rolling] if self._rolling else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._port.close()

    def leave(self, why: str) -> None:
        """All replicas leave in order; asked again, they end at once."""
        if self._leaving.is_set():
            log.warning("%s again: ending all replicas at once", why)
            for place in self.places:
                place.kill()
            return
        log.info("%s: draining %d replicas", why, len(self.places))
        self._leaving.set()
        for place in self.places:
            place.leave()

    def roll(self) -> None:
        """Replace the replicas one after another, unless that is being done already.

        It stops at a replica that does not come up again: the others go on serving.
        """
        if self._rolling is not None and not self._rolling.done():
            log.info("a rolling restart is under way")
        else:
            self._rolling = asyncio.get_running_loop().create_task(self._roll())

    async def _roll(self) -> None:
        for place in self.places:
            await place.until(lambda place: place.state == "ready")
            log.info("rolling restart: %s", place.id)
            await place.replaced()
        log.info("rolling restart done")

    def _keep(self, place: Place) -> None:
        self._keepers.append(asyncio.get_running_loop().create_task(self._kept(place), name=place.id))

    async def _kept(self, place: Place) -> None:
        """Start it again whenever it is gone, until the fleet leaves, or if the fleet never came up."""
        pause = timedelta()
        while not self._leaving.is_set():
            end = self._ends[place.id] = await place.live()
            leaving = self._leaving.is_set()
            if not leaving and not self._up:
                return  # `run` raises why
            level = logging.INFO if end.code in IN_ORDER else logging.WARNING
            log.log(
                level, "replica %s (pid %d) %s%s", place.id, place.pid, end, "" if leaving else "; starting it again"
            )
            if leaving:
                return
            if end.served > STABLE_AFTER or end.code == 0:
                pause = timedelta()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), timeout=pause.total_seconds())
            pause = min(max(FIRST_PAUSE, pause * 2), LONGEST_PAUSE)


def _failure(end: End) -> DalsegnoError:
    if end.failed is None:
        return NotStarted(f"the first replica {end}")
    return ConfigError(end.failed.reason) if end.failed.code == 2 else NotStarted(end.failed.reason)


async def supervise(config: Config, *, on_ready: Callable[[Ready], None]) -> int:
    """Run a supervisor under this process's signals; the exit code."""
    supervisor, loop = Supervisor(config, on_ready=on_ready), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.leave, number.name)
    loop.add_signal_handler(signal.SIGHUP, supervisor.roll)
    return await supervisor.run()


def replicas(config: Config, *, port: int) -> Sequence[Config]:
    """What each replica is to be. Its name is a stable one: `r1`, `r2`, …; with one of your own, `web.1`, `web.2`, …"""
    prefix = "r" if config.replica_id == "r1" else f"{config.replica_id}."
    own_ports = range(config.own_port, config.own_port + config.replicas) if config.own_port else [0] * config.replicas
    return [
        msgspec.structs.replace(config, port=port, own_port=own_port, replica_id=f"{prefix}{number}", replicas=1)
        for number, own_port in enumerate(own_ports, 1)
    ]
