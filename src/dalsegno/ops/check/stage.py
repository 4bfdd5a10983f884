"""Where plays take place: a copy of the working folder and a folder for temporary files, made anew for every process.

A replica on another host has the files that were deployed and nothing else. And nothing of the user's is written to.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

BYTES_MAX = 64 * 1024 * 1024
FILES_MAX = 5_000
LEFT_OUT = {".dalsegno", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"}
LINKED = {".git", ".hg", ".svn", ".venv", "venv", ".tox", ".nox", "node_modules"}


class Stage(msgspec.Struct, frozen=True):
    """One place, the same for every process, so that nothing differs by the names of folders."""

    source: Path
    folder: Path
    temp: Path
    copied: tuple[Path, ...]
    linked: tuple[Path, ...]

    def set(self) -> None:
        """As it was deployed."""
        for place in (self.folder, self.temp):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        for path in self.copied:
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.source / path, target)
        for path in self.linked:
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(self.source / path)

    @property
    def shared(self) -> tuple[Path, ...]:
        """What was too much to be copied: writing there is writing to the user's own."""
        return tuple(path for path in self.linked if not _is_tooling(self.source / path))


def stage(source: Path, place: Path) -> Stage:
    """The copy of `source` that will be in `place`."""
    copied, linked, size = list[Path](), list[Path](), 0
    for path in _walk(source):
        whole = source / path
        if whole.is_dir() or not whole.is_file():
            linked.append(path)
            continue
        weight = whole.stat().st_size
        if len(copied) >= FILES_MAX or size + weight > BYTES_MAX:
            linked.append(path)
        else:
            copied.append(path)
            size += weight
    return Stage(source, place / "copy" / (source.name or "root"), place / "tmp", tuple(copied), tuple(linked))


def _walk(source: Path) -> Iterator[Path]:
    """Files, and folders that are not looked into, the shallow ones first."""
    waiting, seen = [Path()], 0
    while waiting:
        folder = waiting.pop(0)
        if seen > FILES_MAX and folder != Path():
            yield folder
            continue
        for entry in sorted((source / folder).iterdir()):
            path = folder / entry.name
            if entry.name in LEFT_OUT:
                continue
            seen += 1
            if entry.is_dir() and not entry.is_symlink() and not _is_tooling(entry):
                waiting.append(path)
            else:
                yield path


def _is_tooling(path: Path) -> bool:
    return path.name in LINKED or (path / "pyvenv.cfg").is_file()
