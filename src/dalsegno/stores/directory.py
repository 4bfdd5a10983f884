"""The port `Blobs` in a folder: one file an object, under its name. For one machine, or a file system that is shared.

An object is written beside its place, synced, and linked to its name: so it is there whole or not at all, and a name
that is there is never written again. Knows nothing of sessions; a name is a path whose last part ends in a SHA-256.
"""

import asyncio
import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

from dalsegno.errors import ConfigError, Refused, Unavailable
from dalsegno.stores.hashed import check, check_name, is_named_after, verified

R = TypeVar("R")
THREADS = 4
ATTEMPTS = 5
PART_BYTES_MAX = 240
ABANDONED_SECONDS = 3600
_UNFINISHED = ".unfinished"


class DirectoryBlobs:
    """Objects below one folder. Every part of a name becomes a folder, spelled so that no file system confuses two."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        try:
            (self._root / _UNFINISHED).mkdir(parents=True, exist_ok=True)
            _clean(self._root / _UNFINISHED)
        except OSError as error:
            raise ConfigError(f"the cold tier cannot be kept at {root}: {error}") from error
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="dalsegno-directory")

    @classmethod
    async def open(cls, root: Path) -> "DirectoryBlobs":
        """Open the folder, and make it if there is none. Raises `ConfigError`."""
        return await asyncio.to_thread(cls, root)

    async def put(self, name: str, content: bytes) -> None:
        """See port `Blobs`. Raises `Refused` for a name that does not end in the content's SHA-256."""
        path = self._path(name)
        await self._on_thread(lambda: self._put(name, path, content))

    async def get(self, name: str) -> bytes | None:
        """See port `Blobs`."""
        path = self._path(name)
        return await self._on_thread(lambda: _get(name, path))

    async def delete(self, prefix: str) -> None:
        """See port `Blobs`."""
        path, stem = self._split(prefix)
        await self._on_thread(lambda: self._delete(path, stem))

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[str]:
        """See port `Blobs`. In order of the names; every page looks at all files below the prefix."""
        path, stem = self._split(prefix)
        names = await self._on_thread(lambda: [self._name_of(file) for file in self._below(path, stem)])
        return sorted(name for name in names if name > after)[:limit]

    async def close(self) -> None:
        """Let go of the threads."""
        await asyncio.to_thread(self._threads.shutdown)

    def _path(self, name: str) -> Path:
        check_name(name)
        return self._root.joinpath(*map(_spelled, name.split("/")))

    def _split(self, prefix: str) -> tuple[Path, str]:
        """The folder that a prefix is in, and how the entries begin that are meant."""
        folder, _, stem = prefix.rpartition("/")
        return self._root.joinpath(*map(_spelled, folder.split("/"))) if folder else self._root, stem

    def _name_of(self, file: Path) -> str:
        return "/".join(unquote(part) for part in file.relative_to(self._root).parts)

    async def _on_thread(self, work: Callable[[], R]) -> R:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            # What was written is not under its name yet, or is the very same bytes: a retry does no harm.
            raise Unavailable(f"the cold tier does not answer: {error}", outcome="not_applied") from error

    def _put(self, name: str, path: Path, content: bytes) -> None:
        check(name, content)
        if path.exists() and is_named_after(name, path.read_bytes()):
            return
        unfinished = self._root / _UNFINISHED / secrets.token_hex(12)
        try:
            _write(unfinished, content)
            changed = [path.parent]
            for attempt in range(ATTEMPTS):
                changed += _make_folders(path.parent, self._root)
                try:
                    _name(unfinished, path)
                    break
                except FileNotFoundError:
                    # A `delete` has removed the folder between its making and the link.
                    if attempt == ATTEMPTS - 1:
                        raise
            for folder in changed:
                _sync(folder)
        finally:
            unfinished.unlink(missing_ok=True)

    def _below(self, folder: Path, stem: str) -> Iterator[Path]:
        """The files in those entries of the folder whose names begin with `stem`."""
        if not folder.is_dir():
            return
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name != _UNFINISHED and unquote(entry.name).startswith(stem):
                yield from _files(Path(entry.path))

    def _delete(self, folder: Path, stem: str) -> None:
        changed: set[Path] = set()
        for file in self._below(folder, stem):
            file.unlink(missing_ok=True)
            changed.add(file.parent)
        for parent in sorted(changed, key=lambda path: len(path.parts), reverse=True):
            _sync(parent)
            _remove_empty(parent, self._root)


def _spelled(part: str) -> str:
    """A part of a name as a file name: lower case, digits, `-`, `_` and inner dots stay, the rest is escaped, so that a
    file system that takes `A` for `a` keeps two tenants apart, and `..` leads nowhere."""
    text = "".join(char if char in "abcdefghijklmnopqrstuvwxyz0123456789-_" else _escaped(char) for char in part)
    if not text or len(text) > PART_BYTES_MAX:
        raise Refused("invalid_request", f"{part[:50]!r} cannot be a part of an object's name")
    return text


def _escaped(char: str) -> str:
    # `quote` leaves letters and dots as they are.
    return f"%{ord(char):02x}" if ord(char) < 128 else quote(char, safe="", errors="surrogatepass").lower()


def _get(name: str, path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return verified(name, content)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _name(unfinished: Path, path: Path) -> None:
    """Give the finished file its name. What bears it already is damaged, or the same bytes from somebody else."""
    try:
        os.link(unfinished, path)
    except OSError as error:
        # A file system without links, or a name that is taken: an exchange is as atomic, and the bytes are the name's.
        if isinstance(error, FileNotFoundError) or error.errno == errno.ENOSPC:
            raise
        os.replace(unfinished, path)


def _make_folders(folder: Path, root: Path) -> list[Path]:
    """Make what is missing, and name the folders that have to be synced for it to last."""
    missing = []
    while folder != root and not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
    return [path.parent for path in missing]


def _sync(folder: Path) -> None:
    # Where a folder cannot be opened or synced (Windows), the system offers no better.
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, _, names in os.walk(path):
        for name in names:
            yield Path(folder, name)


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _clean(folder: Path) -> None:
    """What a process left behind that died while it wrote."""
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - entry.stat().st_mtime > ABANDONED_SECONDS:
                os.unlink(entry.path)
