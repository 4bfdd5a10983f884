"""One place in a supervised fleet: a replica id and the process that bears it now, seen from outside.

new ──► starting ──► ready ──► leaving ──► gone ──► starting …      any of them ──► gone, when the process dies
"""

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from datetime import timedelta
from typing import Literal

import msgspec

from dalsegno.ops.config import Config
from dalsegno.ops.lifeline import REPORT_BYTES_MAX, SLACK, Failed, Order, Ready, Report
from dalsegno.ops.line import line

State = Literal["new", "starting", "ready", "leaving", "gone"]
REPORT = msgspec.json.Decoder(Report)


class End(msgspec.Struct, frozen=True):
    """How a process ended: its exit code or minus a signal, what it said about it, and how long it served."""

    code: int
    failed: Failed | None
    served: timedelta

    def __str__(self) -> str:
        if self.failed is not None:
            return f"{'failed' if self.served else 'cannot start'}: {self.failed.reason}"
        return f"ended by {signal.Signals(-self.code).name}" if self.code < 0 else f"ended with exit code {self.code}"


class Place:
    """One replica of the fleet. `config` names its id and port; `live` starts a process and stays with it."""

    def __init__(self, config: Config, *, on_ready: Callable[[Ready], None]) -> None:
        self.id = config.replica_id
        self.state: State = "new"
        self._config = config
        self._on_ready = on_ready
        self._process: Process | None = None
        self._failed: Failed | None = None
        self._ready_at: float | None = None
        self._changed = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int:
        """The process that bears the id now, or did last; 0 = none yet."""
        return 0 if self._process is None else self._process.pid

    async def live(self) -> End:
        """One life of the replica, from its process's start to its end. Cancelled, it takes the process with it."""
        self._failed = self._ready_at = None
        self._become("starting")
        try:
            code = await self._run()
        except OSError as error:  # the system has no process or no socket for us
            self.kill()
            return End(1, Failed(str(error), 1), self._served())
        except asyncio.CancelledError:
            self.kill()
            raise
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            self._become("gone")
        return End(code, self._failed, self._served())

    def leave(self) -> None:
        """Ask the process to leave in order; what has not left long after its time is killed."""
        if self.state in ("starting", "ready"):
            self._become("leaving")
            self._send(signal.SIGTERM)
            patience = (self._config.drain_timeout + SLACK).total_seconds()
            self._deadline = asyncio.get_running_loop().call_later(patience, self.kill)

    async def replaced(self) -> None:
        """Have the process leave in order, and wait until its successor serves."""
        before = self.pid
        self.leave()
        await self.until(lambda place: place.state == "ready" and place.pid != before)

    def kill(self) -> None:
        """End the process at once, if it lives."""
        self._send(signal.SIGKILL)

    async def until(self, reached: Callable[["Place"], bool]) -> None:
        """Wait until this is true of the place; looked at whenever its state changes."""
        while not reached(self):
            await self._changed.wait()

    async def _run(self) -> int:
        """Start the process, give it its order, take its reports; its exit code."""
        async with line(limit=REPORT_BYTES_MAX) as lifeline:
            with lifeline.theirs as theirs:
                process = self._process = await _spawn(theirs.fileno())
            if self.state == "leaving":  # it was asked to before it was there
                self._send(signal.SIGTERM)
            lifeline.writer.write(msgspec.json.encode(Order(self._config)) + b"\n")
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(lifeline.reader))
                await process.wait()
                lifeline.ended()
            return await process.wait()

    def _served(self) -> timedelta:
        now = asyncio.get_running_loop().time()
        return timedelta(seconds=0.0 if self._ready_at is None else now - self._ready_at)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Take reports until the process is gone."""
        while line := await _next_line(reader):
            report = REPORT.decode(line)
            if isinstance(report, Failed):
                self._failed = report
                continue
            self._ready_at = asyncio.get_running_loop().time()
            if self.state == "starting":
                self._become("ready")
            self._on_ready(report)

    def _become(self, state: State) -> None:
        self.state = state
        before, self._changed = self._changed, asyncio.Event()
        before.set()


async def _next_line(reader: asyncio.StreamReader) -> bytes:
    """What the process says next; nothing when it is gone, also if it went without having read its order."""
    try:
        return await reader.readline()
    except ConnectionError:
        return b""


async def _spawn(lifeline: int) -> Process:
    # A session of its own: Ctrl-C on the terminal is for the supervisor, which knows what to do about it.
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "dalsegno.ops.child",
        str(lifeline),
        stdin=DEVNULL,
        pass_fds=(lifeline,),
        start_new_session=True,
    )
