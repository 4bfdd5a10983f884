"""The real command line as processes: started, read line by line, and always ended."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import dalsegno
from dalsegno.testing.servers.process import free_port
from tests.support import wait_until

Variables: TypeAlias = Mapping[str, str]
SOURCE = Path(dalsegno.__file__).resolve().parent.parent
READY = re.compile(r"ready (http://\S+) replica=(\S+) pid=([0-9]+)")

AGENT = """
import asyncio, os, time

async def slow(context):
    for word in ("one ", "two ", "three ", "four "):
        yield word
        await asyncio.sleep(0.1)

async def quick(context):
    yield f"hello from {os.getpid()}"

async def answer(turn):
    for n in range(8 if "slow" in turn.text else 1):
        await turn.generate(slow if "slow" in turn.text else quick, name=f"part {n}")

async def stuck(turn):
    print("stuck", flush=True)
    time.sleep(60)

def plain(turn): ...
"""


FORKING = """
import os, time
from pathlib import Path

if worker := os.fork():
    Path(os.environ["WORKERS"], str(worker)).touch()
else:
    time.sleep(60)
    os._exit(0)

async def answer(turn):
    await turn.say(f"hello from {os.getpid()}")
"""
"""An agent with a worker that outlives it and holds open whatever it inherits, as pools of processes do."""


class Ready(NamedTuple):
    """What a replica said when it could serve."""

    url: str
    replica: str
    pid: int


class Finished(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


def environment(more: Variables | None = None) -> dict[str, str]:
    """This process's environment without settings of ours, and with ours to be imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DALSEGNO_")}
    return {**kept, "PYTHONPATH": str(SOURCE), "COLUMNS": "120", **(more or {})}


def command(*arguments: str) -> list[str]:
    """The command line's."""
    return [sys.executable, "-m", "dalsegno", *arguments]


async def run(*arguments: str, cwd: Path, stdin: bytes = b"", variables: Variables | None = None) -> Finished:
    """Run a command to its end."""
    process = await asyncio.create_subprocess_exec(
        *command(*arguments),
        cwd=cwd,
        env=environment(variables),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate(stdin)
    except BaseException:
        await ended(process)
        raise
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


async def ended(process: asyncio.subprocess.Process) -> None:
    """End it, and read what it says to the end: a pipe that is left open is a fault of the next test's."""
    if process.returncode is None:
        process.kill()
    await process.communicate()


class Running:
    """A `serve` that is up. `lines` is what it has printed so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.errors: list[str] = []

    @property
    def ready(self) -> Sequence[Ready]:
        """Every replica that has said so, in order."""
        found = (READY.fullmatch(line) for line in self.lines)
        return [Ready(match[1], match[2], int(match[3])) for match in found if match]

    @property
    def pids(self) -> dict[str, int]:
        """The latest process of each replica."""
        return {ready.replica: ready.pid for ready in self.ready}

    @property
    def url(self) -> str:
        """Where it serves."""
        return self.ready[0].url

    async def until_ready(self, count: int) -> None:
        """Wait until so many replicas have said that they can serve, restarts included."""
        await wait_until(
            lambda: len(self.ready) >= count or self.process.returncode is not None,
            description=f"{count} replicas were ready; it said {self.lines} and {self.errors}",
            timeout=20,
        )
        assert len(self.ready) >= count, (self.lines, self.errors)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end; the exit code."""
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 15)


@contextmanager
def workers(folder: Path) -> Iterator[dict[str, str]]:
    """The variables for agents that fork; their workers are ended with the block."""
    folder.mkdir()
    try:
        yield {"WORKERS": str(folder)}
    finally:
        for worker in folder.iterdir():
            kill(int(worker.name))


@asynccontextmanager
async def serving(
    *arguments: str, cwd: Path, replicas: int = 1, variables: Variables | None = None
) -> AsyncIterator[Running]:
    """`dalsegno serve …` with our agent on a free port, until the context ends; nothing survives it."""
    (cwd / "agent.py").write_text(AGENT)
    told = ("--port", "0", "--replicas", str(replicas)) if "--port" not in arguments else ("--replicas", str(replicas))
    process = await asyncio.create_subprocess_exec(
        *command("serve", *arguments, *told),
        cwd=cwd,
        env=environment(variables),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    running = Running(process)
    readers = [
        asyncio.create_task(_read(process.stdout, running.lines)),
        asyncio.create_task(_read(process.stderr, running.errors)),
    ]
    try:
        await running.until_ready(replicas)
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        for pid in running.pids.values():
            kill(pid)
        await asyncio.gather(process.wait(), *readers)


async def _read(stream: asyncio.StreamReader | None, lines: list[str]) -> None:
    assert stream is not None
    while line := await stream.readline():
        lines.append(line.decode().rstrip("\n"))


def free_ports(count: int) -> int:
    """The first of so many ports in a row on which nobody listens."""
    return free_port(*range(1, count))


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def alive(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False
