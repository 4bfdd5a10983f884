"""What is special about objects in a folder: names that are paths, crashes that leave files, disks that fill up."""

import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dalsegno.errors import ConfigError, Refused, Unavailable
from dalsegno.stores.directory import DirectoryBlobs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cold"


@pytest.fixture
async def blobs(root: Path) -> AsyncIterator[DirectoryBlobs]:
    blobs = await DirectoryBlobs.open(root)
    yield blobs
    await blobs.close()


def name(content: bytes, folder: str = "acme/s1/") -> str:
    return folder + hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "folder",
    [
        "../",
        "../../",
        "a/../../",
        "/",
        "//",
        "a//b/",
        ".unfinished/",
        "./",
        "%2e%2e/",
        "..\\",
        "C:\\",
        "a\0b/",
        "~/",
        "Ω/",
    ],
)
async def test_no_name_leads_out_of_the_folder(blobs: DirectoryBlobs, root: Path, folder: str):
    """A name is refused, or its object lies below the folder, and is found again under this name only."""
    try:
        await blobs.put(name(b"x", folder), b"x")
    except Refused:
        assert [path for path in root.parent.rglob("*") if path.is_file()] == []
        return
    (file,) = [path for path in root.parent.rglob("*") if path.is_file()]
    assert file.resolve().is_relative_to(root.resolve()) and ".unfinished" not in file.parts
    assert await blobs.get(name(b"x", folder)) == b"x"
    assert await blobs.get(name(b"x", "a/")) is None
    await blobs.delete(folder)
    assert await blobs.get(name(b"x", folder)) is None


async def test_tenants_that_differ_in_case_stay_apart(blobs: DirectoryBlobs, root: Path):
    """Also on a file system that takes one for the other."""
    for folder in ("acme/", "ACME/", "Acme/"):
        await blobs.put(name(b"x", folder), b"x")
    folders = [path.name for path in root.iterdir() if path.name != ".unfinished"]
    assert len({folder.lower() for folder in folders}) == 3
    await blobs.delete("ACME/")
    assert await blobs.get(name(b"x", "acme/")) == b"x"


async def test_a_damaged_object_is_mended_by_whoever_has_its_bytes(blobs: DirectoryBlobs, root: Path):
    """Blobs 1: `put` creates or finds the same bytes; what is damaged is neither."""
    await blobs.put(name(b"right"), b"right")
    (file,) = root.rglob(name(b"right", ""))
    file.write_bytes(b"wrong")
    await blobs.put(name(b"right"), b"right")
    assert await blobs.get(name(b"right")) == b"right"


async def test_a_crash_leaves_nothing_for_ever(root: Path, blobs: DirectoryBlobs):
    """What a dead process had begun to write is no object, and is removed when it is old."""
    old, fresh = root / ".unfinished" / "old", root / ".unfinished" / "fresh"
    old.write_bytes(b"half an obj")
    fresh.write_bytes(b"half an obj")
    os.utime(old, (time.time() - 7200,) * 2)
    again = await DirectoryBlobs.open(root)
    assert not old.exists() and fresh.exists()
    await again.close()


async def test_nothing_is_left_of_what_is_deleted(blobs: DirectoryBlobs, root: Path):
    """Empty folders go, too; and an object may come back while they do."""
    for number in range(20):
        content = str(number).encode()
        await blobs.put(name(content, f"acme/s{number}/"), content)
    await blobs.delete("acme/s1")
    left = sorted(path.name for path in (root / "acme").iterdir())
    assert left == ["s0", *(f"s{number}" for number in range(2, 10))]
    await blobs.delete("acme/")
    assert [path.name for path in root.iterdir()] == [".unfinished"]
    await blobs.delete("")


async def test_a_folder_that_cannot_be_written_says_so(
    root: Path, blobs: DirectoryBlobs, monkeypatch: pytest.MonkeyPatch
):
    """`Unavailable`, nothing applied, and nothing half written is left."""

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable) as caught:
        await blobs.put(name(b"x"), b"x")
    assert caught.value.outcome == "not_applied"
    assert [path for path in root.rglob("*") if path.is_file()] == []
    assert await blobs.get(name(b"x")) is None


async def test_a_place_that_is_none_is_a_configuration_error(tmp_path: Path):
    """The message says where."""
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match="file"):
        await DirectoryBlobs.open(tmp_path / "file" / "cold")
