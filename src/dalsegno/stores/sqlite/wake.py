"""Hints between the processes of a machine: a datagram to the socket of everybody who listens. Nothing here waits.

A datagram takes some 5 µs to send and is dropped when its receiver's queue is full; hints may be lost. Who is there is
what lies in a folder beside the database; a socket that nobody answers from is removed by whoever finds it.
"""

import asyncio
import contextlib
import hashlib
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from dalsegno.stores.ears import Ears

PATH_BYTES_MAX = 100
"""The system takes 108 bytes, or 104, with a zero at the end."""
HEARD_AT_ONCE = 100
ATTEMPTS = 3
BYTES_MAX = 65_536
_ENDING = ".sock"


class Wake:
    """One process's ear and voice."""

    def __init__(self, folder: Path) -> None:
        self._folder = _short(folder)
        self._name = secrets.token_hex(8) + _ENDING
        self._ears = Ears[bytes]()
        self._peers: list[str] = []
        self._seen = -1
        self._ear: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._voice = self._socket()

    @property
    def others(self) -> bool:
        """Whether there are other processes that may hear."""
        return self._voice is not None and self._folder is not None and bool(self._others(self._folder))

    def send(self, message: bytes) -> None:
        """Tell every other process."""
        if self._voice is None or self._folder is None:
            return
        for peer in self._others(self._folder):
            # Its queue may be full, or it is not ours to send to.
            with contextlib.suppress(OSError):
                self._say(message, peer)

    @contextlib.contextmanager
    def listen(self, heard: Callable[[bytes], None]) -> Iterator[None]:
        """Call `heard` on the running event loop for every message of another process, until the context ends."""
        self._open_ear(asyncio.get_running_loop())
        with self._ears.listen(heard):
            yield

    def close(self) -> None:
        """Let go of the sockets."""
        if self._ear is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._ear.fileno())
            self._ear.close()
            if self._folder is not None:
                (self._folder / self._name).unlink(missing_ok=True)
                self._tidy(self._folder)
            self._ear = None
        if self._voice is not None:
            self._voice.close()
            self._voice = None

    def _tidy(self, folder: Path) -> None:
        """The sockets of the dead, and the folder with the last one."""
        for peer in self._others(folder):
            with contextlib.suppress(OSError):
                self._say(b"", peer)
        with contextlib.suppress(OSError):
            folder.rmdir()

    def _say(self, message: bytes, peer: str) -> None:
        try:
            if self._voice is not None:
                self._voice.sendto(message, peer)
        except (ConnectionRefusedError, FileNotFoundError):
            # Its process is gone.
            with contextlib.suppress(OSError):
                os.unlink(peer)

    def _open_ear(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._ear is not None or self._folder is None:
            return
        ear = self._socket()
        if ear is None:
            return
        try:
            for attempt in range(ATTEMPTS):
                _make(self._folder)
                try:
                    ear.bind(str(self._folder / self._name))
                    break
                except FileNotFoundError:
                    # Somebody has closed the last other ear, and taken the folder with it.
                    if attempt == ATTEMPTS - 1:
                        raise
        except OSError:
            # Hints stay inside this process; a poll is behind each of them.
            ear.close()
            return
        self._ear, self._loop = ear, loop
        loop.add_reader(ear.fileno(), self._hear)

    def _hear(self) -> None:
        for _ in range(HEARD_AT_ONCE):
            if self._ear is None:
                return
            try:
                message = self._ear.recv(BYTES_MAX)
            except OSError:
                return
            self._ears.tell((message,))

    def _others(self, folder: Path) -> list[str]:
        """The sockets in the folder but ours; listed again when the folder has changed."""
        try:
            changed = os.stat(folder).st_mtime_ns
            if changed != self._seen:
                names = os.listdir(folder)
                self._peers = [str(folder / name) for name in names if name.endswith(_ENDING) and name != self._name]
                self._seen = changed
        except OSError:
            self._peers, self._seen = [], -1
        return self._peers

    def _socket(self) -> socket.socket | None:
        if not hasattr(socket, "AF_UNIX"):
            return None
        try:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        except OSError:
            return None
        made.setblocking(False)
        return made


def _short(folder: Path) -> Path | None:
    """The folder itself, or one in the temporary folder when the sockets' paths would be too long for the system."""
    longest = len(os.fsencode(folder.absolute())) + len(os.sep) + 16 + len(_ENDING)
    if longest <= PATH_BYTES_MAX:
        return folder.absolute()
    mark = hashlib.blake2b(os.fsencode(folder.resolve()), digest_size=12).hexdigest()
    short = Path(tempfile.gettempdir()) / f"dalsegno-{mark}"
    return short if len(os.fsencode(short)) + 22 <= PATH_BYTES_MAX else None


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # In a temporary folder somebody else may have been there first.
    if hasattr(os, "geteuid") and folder.stat().st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to somebody else")
