"""The tiers on products. A URL names the product; its driver is loaded only then."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dalsegno.errors import ConfigError
from dalsegno.ports import Blobs, Hot, Warm


async def open_warm(url: str) -> Warm:
    """The log's database of that URL. Raises `ConfigError` for a scheme that no driver has."""
    match _scheme(url):
        case "memory":
            from dalsegno.stores.memory import MemoryDatabase, MemoryLog

            return MemoryLog(MemoryDatabase())
        case "sqlite":
            from dalsegno.stores.sqlite import SqliteLog

            return await SqliteLog.open(_path(url))
        case scheme:
            raise _unknown("warm", scheme, ("memory:", "sqlite:///path/to/file.db"))


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _unknown(tier: str, scheme: str, known: tuple[str, ...]) -> ConfigError:
    return ConfigError(f"the {tier} tier has no driver for {scheme!r} URLs; it has {', '.join(known)}")


def _path(url: str) -> Path:
    """`sqlite:///relative.db` and `sqlite:////absolute.db`, as everywhere."""
    parts = urlsplit(url)
    path = unquote(parts.path).removeprefix("/")
    if parts.netloc or not path:
        raise ConfigError(f"{url!r} names no file: write three slashes before a relative path, four before an absolute one")
    return Path(path)
