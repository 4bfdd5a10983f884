"""Opening tiers by URL."""

from pathlib import Path
from typing import Any

import pytest

from dalsegno import stores
from dalsegno.errors import ConfigError
from dalsegno.stores.directory import DirectoryBlobs
from dalsegno.stores.memory import MemoryBlobs, MemoryHot, MemoryLog
from dalsegno.stores.sqlite import SqliteHot, SqliteLog


async def test_a_url_names_a_product(tmp_path: Path):
    """The scheme chooses the driver; every tier can be closed the same way."""
    database, folder = f"sqlite:///{tmp_path}/a%20b.db", f"file://{tmp_path}/cold"
    opened: list[tuple[Any, type[Any]]] = [
        (await stores.open_warm("memory:"), MemoryLog),
        (await stores.open_warm(database), SqliteLog),
        (await stores.open_hot(None), MemoryHot),
        (await stores.open_hot(database), SqliteHot),
        (await stores.open_cold(None), MemoryBlobs),
        (await stores.open_cold(folder), DirectoryBlobs),
    ]
    for tier, kind in opened:
        assert isinstance(tier, kind)
        await stores.close(tier)
    assert (tmp_path / "a b.db").is_file() and (tmp_path / "cold").is_dir()


def test_paths_are_relative_after_three_slashes():
    """As with every tool that takes such URLs."""
    assert stores.sqlite_path("sqlite:///a/b.db") == Path("a/b.db")
    assert stores.sqlite_path("sqlite:////a/b.db") == Path("/a/b.db")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://x",
        "",
        "sqlite",
        "sqlite:",
        "sqlite://host/x.db",
        "sqlite:///",
        "sqlite:///.",
        "sqlite:////a/..",
        "sqlite:///a%00b",
        "a.db",
    ],
)
async def test_a_url_that_nobody_understands_is_a_configuration_error(url: str):
    """The message lists what is known."""
    with pytest.raises(ConfigError, match="sqlite:///"):
        await stores.open_warm(url)


@pytest.mark.parametrize("url", ["ftp://x", "file://", "file://relative/folder", "file:///a%00b"])
async def test_the_same_for_objects(url: str):
    """The message lists what is known."""
    with pytest.raises(ConfigError, match="file:///"):
        await stores.open_cold(url)
