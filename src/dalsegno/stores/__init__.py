"""The tiers on products. A URL names the product; its driver is loaded only then."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable
from urllib.parse import unquote

from dalsegno.errors import ConfigError
from dalsegno.ports import Blobs, Hot, Warm

WARM = (
    "memory:",
    "sqlite:///path.db",
    "postgresql://user@host/name",
    "redis://host/0",
    "redis+cluster://host,host",
    "redis+sentinel://host/service",
)
HOT = (
    "memory:",
    "sqlite:///path.db",
    "postgresql://user@host/name",
    "redis://host/0",
    "redis+cluster://host,host",
    "redis+sentinel://host/service",
)
REDIS = ("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")
COLD = ("memory:", "file:///folder", "s3://bucket/prefix", "gs://bucket/prefix", "az://account/container/prefix")


@runtime_checkable
class Probed(Protocol):
    """A cold tier on a server that may say yes to conditions and not mean it."""

    async def conditional(self) -> bool:
        """Whether "create only if it is not there" is honoured."""
        ...


@runtime_checkable
class Risky(Protocol):
    """A warm tier on servers that may be set up to lose what they have acknowledged."""

    @property
    def risks(self) -> Sequence[tuple[Literal["degraded", "wrong"], str]]:
        """What may be lost, and how it is mended: `wrong` where a plain restart may lose it."""
        ...


async def open_warm(url: str) -> Warm:
    """The log's database of that URL. `memory:` lives in this process and dies with it.

    Raises `ConfigError` for a URL that no driver understands, or a place that cannot be used.
    """
    match _scheme(url):
        case "memory":
            from dalsegno.stores.memory import MemoryDatabase, MemoryLog

            return MemoryLog(MemoryDatabase())
        case "sqlite":
            from dalsegno.stores.sqlite import SqliteLog

            return await SqliteLog.open(sqlite_path(url))
        case "postgresql" | "postgres":
            with _driver("PostgreSQL", extra="postgres"):
                from dalsegno.stores.postgres import PostgresLog
            return await PostgresLog.open(url)
        case scheme if scheme in REDIS:
            with _driver("Redis", extra="redis"):
                from dalsegno.stores.redis import RedisLog
            return await RedisLog.open(url)
        case scheme:
            raise _unknown("warm", scheme, WARM)


async def open_hot(url: str | None) -> Hot:
    """The hot tier of that URL: of the warm tier's own, it is kept beside the log. None is `memory:`."""
    match _scheme(url or "memory:"):
        case "memory":
            from dalsegno.stores.memory import MemoryHot

            return MemoryHot()
        case "sqlite":
            from dalsegno.stores.sqlite import SqliteHot

            return await SqliteHot.open(sqlite_path(url or ""))
        case "postgresql" | "postgres":
            with _driver("PostgreSQL", extra="postgres"):
                from dalsegno.stores.postgres import PostgresHot
            return await PostgresHot.open(url or "")
        case scheme if scheme in REDIS:
            with _driver("Redis", extra="redis"):
                from dalsegno.stores.redis import RedisHot
            return await RedisHot.open(url or "")
        case scheme:
            raise _unknown("hot", scheme, HOT)


async def open_cold(url: str | None) -> Blobs:
    """The cold tier of that URL. None is `memory:`."""
    match _scheme(url or "memory:"):
        case "memory":
            from dalsegno.stores.memory import MemoryBlobs

            return MemoryBlobs()
        case "file":
            from dalsegno.stores.directory import DirectoryBlobs

            return await DirectoryBlobs.open(folder_path(url or ""))
        case "s3" | "gs" | "az":
            with _driver("object storage", extra="s3"):
                from dalsegno.stores.objects import ObjectBlobs
            return await ObjectBlobs.open(url or "")
        case scheme:
            raise _unknown("cold", scheme, COLD)


async def migrate(url: str, *, phase: Literal["pre", "post"]) -> None:
    """Apply what the warm tier's schema lacks. `pre` adds, and the release before goes on working; `post` removes what
    only that one needed, once no replica runs it. Any number of processes may do so at once, and again.

    Raises `ConfigError` or `Unavailable`. Where there is no second phase, `post` does nothing.
    """
    match _scheme(url), phase:
        case (("postgresql" | "postgres"), "post"):
            with _driver("PostgreSQL", extra="postgres"):
                from dalsegno.stores.postgres import tidy
            await tidy(url)
        case (("memory" | "sqlite"), "post"):
            pass
        case (scheme, "post") if scheme in REDIS:
            pass
        case _:
            # Whoever opens it brings it up to date.
            await close(await open_warm(url))


async def close(tier: Warm | Hot | Blobs) -> None:
    """Let go of whatever the tier holds; some hold nothing."""
    closing = getattr(tier, "close", None)
    if closing is not None:
        await closing()


def sqlite_path(url: str) -> Path:
    """The file of a `sqlite:` URL: a relative path after three slashes, an absolute one after four."""
    _, _, rest = url.partition(":")
    path = unquote(rest.removeprefix("///"))
    if not rest.startswith("///") or "\0" in path or path.rpartition("/")[2] in ("", ".", ".."):
        raise ConfigError(f"{url!r} names no file: write sqlite:///relative.db or sqlite:////absolute.db")
    return Path(path)


def folder_path(url: str) -> Path:
    """The folder of a `file:` URL, always absolute."""
    _, _, rest = url.partition(":")
    path = unquote(rest.removeprefix("//"))
    if not path.startswith("/") or "\0" in path:
        raise ConfigError(f"{url!r} names no folder: write file:///absolute/folder")
    return Path(path)


@contextmanager
def _driver(product: str, *, extra: str) -> Iterator[None]:
    """The import of a product's driver, which is installed only where it is wanted."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"{product} needs a driver: pip install 'dalsegno[{extra}]' ({error.name} is missing)"
        ) from error


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _unknown(tier: str, scheme: str, known: tuple[str, ...]) -> ConfigError:
    return ConfigError(f"no {tier} tier is called {scheme!r}; known are {', '.join(known)}")
