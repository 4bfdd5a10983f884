"""The socket between a supervisor and one of its replicas. Its end is the news of the other's death, whoever died.

    supervisor ──► replica    one `Order`, then nothing; the end of it means: the supervisor is gone, leave
    replica ──► supervisor    `Ready` when it serves, `Failed` when it cannot; the end of it: the replica is gone

A configuration travels here and not in arguments or variables, which everybody on the machine can read.
"""

import os
import signal
import socket
import threading
import time
from datetime import timedelta
from typing import TypeAlias

import msgspec

from dalsegno.ops.config import Config

REPORT_BYTES_MAX = 64 * 1024
SLACK = timedelta(seconds=5)


class Order(msgspec.Struct, frozen=True):
    """What a replica is to be. The supervisor has chosen its id and its port."""

    config: Config


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The replica serves."""

    url: str
    replica: str
    pid: int

    def __str__(self) -> str:
        return f"ready {self.url} replica={self.replica} pid={self.pid}"


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The replica cannot start or go on, for this reason and with this exit code."""

    reason: str
    code: int


Report: TypeAlias = Ready | Failed


class Lifeline:
    """The replica's end."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def order(self) -> Order:
        """What the supervisor wants. Raises `EOFError` if it is gone already."""
        line = bytearray()
        while not line.endswith(b"\n"):
            part = self._socket.recv(65536)
            if not part:
                raise EOFError("the supervisor said nothing")
            line += part
        return msgspec.json.decode(line, type=Order)

    def report(self, report: Report) -> None:
        """Tell the supervisor; if it is gone, the watch knows."""
        try:
            self._socket.sendall(msgspec.json.encode(report) + b"\n")
        except OSError:
            return

    def watch(self, *, patience: timedelta) -> None:
        """From a thread, so that a blocked event loop does not keep an orphan: leave when the supervisor is gone."""
        seconds = (patience + SLACK).total_seconds()
        threading.Thread(target=self._watch, args=(seconds,), name="lifeline", daemon=True).start()

    def _watch(self, seconds: float) -> None:
        try:
            while self._socket.recv(1):
                pass
        except OSError:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds)
        os._exit(1)
