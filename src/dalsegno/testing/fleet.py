"""Real replicas: each a process of `dalsegno serve`, to be killed, stopped, told to leave, and started again.

    async with Fleet("agent.py:answer", folder=tmp_path, options=("--lease-ttl", "1s")) as fleet:
        async with Client(fleet.urls) as client:
            ...
            await fleet["r1"].kill()
            await fleet["r1"].start()

Every replica has a port of its own that it keeps for all its lives, so that it can be addressed and found again. What
the processes say is kept in `folder`. Whatever happens inside the block, nothing that was started here outlives it.
Knows processes and the line that they print; nothing of sessions.
"""

import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

PORTS = range(20_000, 32_000)
"""Below the ports that the system gives to clients: nobody takes one by chance while its replica is down."""
READY = re.compile(r"ready (?P<url>http://\S+) replica=(?P<replica>\S+) pid=(?P<pid>[0-9]+)")
PATIENCE = timedelta(seconds=30)
TAIL_BYTES = 4000


class NotServing(Exception):
    """The process ended, or said nothing, instead of serving. The message has the end of what it logged."""


@dataclass(frozen=True)
class Ready:
    """What a replica says of itself when it serves."""

    url: str
    replica: str
    pid: int


class Served:
    """One command line `dalsegno serve …`, borne by one process after another; with `--replicas N`, a whole fleet.

    `ready` are the lines that its present process has printed, the newest last.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.arguments = tuple(arguments)
        self.log = folder / f"{name}.log"
        self.ready: list[Ready] = []
        self.starts = 0
        self._folder = folder
        self.environment = environment
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    @property
    def pid(self) -> int:
        """The process that bears the name now, or did last; 0 = none yet."""
        return 0 if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether its process has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def serving(self) -> bool:
        """Whether its process lives and has said that it serves."""
        return self.alive and bool(self.ready)

    @property
    def code(self) -> int | None:
        """How the last process ended: its exit code or minus a signal; None while it lives."""
        return None if self._process is None else self._process.returncode

    async def start(self, *, ready: int = 1, within: timedelta = PATIENCE) -> None:
        """Start a process and wait until it has said `ready` so many times. Raises `NotServing`."""
        await self.spawn()
        await self.until_ready(ready, within=within)

    async def spawn(self) -> None:
        """Start a process and do not wait for it."""
        if self.alive:
            raise RuntimeError(f"{self.name} is alive")
        self.ready = []
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "dalsegno",
                "serve",
                *self.arguments,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=log,
                cwd=self._folder,
                env=None if self.environment is None else dict(self.environment),
                start_new_session=True,
            )
        self.starts += 1
        self._reading = asyncio.create_task(self._read(self._process), name=f"stdout of {self.name}")

    async def until_ready(self, count: int = 1, *, within: timedelta = PATIENCE) -> None:
        """Wait for that many lines `ready` of the present process. Raises `NotServing`."""
        try:
            async with asyncio.timeout(within.total_seconds()):
                while len(self.ready) < count:
                    if self._reading is None or self._reading.done():
                        raise NotServing(f"{self.name} ended with code {await self.ended()}: {self.tail()}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise NotServing(f"{self.name} was not ready within {within}: {self.tail()}") from None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it lives."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def pause(self) -> None:
        """Stop it in the middle of whatever it does (SIGSTOP)."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self.send(signal.SIGCONT)

    async def kill(self) -> None:
        """End it as hard as the system can (SIGKILL), and wait until it is gone."""
        self.send(signal.SIGKILL)
        await self.ended()

    async def leave(self, *, within: timedelta = PATIENCE) -> int:
        """Tell it to leave in order (SIGTERM); its exit code. Raises `TimeoutError` if it stays."""
        self.send(signal.SIGTERM)
        async with asyncio.timeout(within.total_seconds()):
            return await self.ended()

    async def ended(self) -> int:
        """Wait for the end of the process; its exit code, or minus the signal."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        code = await self._process.wait()
        if self._reading is not None:
            await asyncio.wait([self._reading])
        return code

    def tail(self) -> str:
        """The end of what it logged."""
        return self.text()[-TAIL_BYTES:]

    def text(self) -> str:
        """Everything that it logged in all its lives."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                found = READY.match(line.decode("utf-8", "replace"))
                if found is not None:
                    self.ready.append(Ready(found["url"], found["replica"], int(found["pid"])))
                    self._news.set()
        finally:
            self._news.set()


class Fleet:
    """Replicas of one agent, each a process on a port of its own. Without `environment` they inherit this process's."""

    def __init__(
        self,
        target: str,
        *,
        folder: Path,
        replicas: int = 3,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.replicas: list[Served] = []
        self._ports: list[int] = []
        for number in range(1, replicas + 1):
            port = free_port(self._ports)
            self._ports.append(port)
            arguments = (target, "--port", str(port), "--replica-id", f"r{number}", *options)
            self.replicas.append(Served(f"r{number}", arguments, folder=folder, environment=environment))

    @property
    def urls(self) -> list[str]:
        """Where the replicas are, in order."""
        return [f"http://127.0.0.1:{port}" for port in self._ports]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The same for sockets."""
        return [("127.0.0.1", port) for port in self._ports]

    def __getitem__(self, name: str) -> Served:
        return next(replica for replica in self.replicas if replica.name == name)

    def __iter__(self) -> Iterator[Served]:
        return iter(self.replicas)

    def by_pid(self, pid: int) -> Served | None:
        """The replica that this process is."""
        return next((replica for replica in self.replicas if replica.pid == pid), None)

    async def start(self) -> None:
        """Start all that are down, side by side. Raises `NotServing`."""
        down = [replica for replica in self.replicas if not replica.alive]
        async with asyncio.TaskGroup() as group:
            for replica in down:
                group.create_task(replica.start())

    async def stop(self) -> None:
        """End every process that was started here, stopped ones too."""
        for replica in self.replicas:
            replica.send(signal.SIGKILL)
        for replica in self.replicas:
            if replica.starts:
                await replica.ended()

    def text(self) -> str:
        """Everything that the replicas have logged."""
        return "".join(replica.text() for replica in self.replicas)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


@contextlib.asynccontextmanager
async def supervised(
    target: str,
    *,
    folder: Path,
    replicas: int = 3,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Served]:
    """A supervisor and its replicas on one port. They leave in order at the end, or are killed with it."""
    arguments = (target, "--port", str(free_port()), "--replicas", str(replicas), *options)
    served = Served("supervisor", arguments, folder=folder, environment=environment)
    try:
        await served.start(ready=replicas)
        yield served
    finally:
        if served.alive:
            try:
                await served.leave()
            except TimeoutError:
                os.killpg(served.pid, signal.SIGKILL)
        if served.starts:
            await served.ended()  # with all that it says


def free_port(taken: Sequence[int] = ()) -> int:
    """A port of the loopback interface on which nobody listens."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):  # a test may have seeded the other
        if port in taken:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")
