"""Which tiers a configuration means, and opening them. No URL at all = embedded: a SQLite file and a directory."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import msgspec

from dalsegno import stores
from dalsegno.ports import Blobs, Hot, Warm
from dalsegno.runtime.shelf import with_shelf

FOLDER = ".dalsegno"
FILE = "sessions.db"


class Urls(Protocol):
    """What an operator gave; empty = not given."""

    @property
    def warm(self) -> str: ...

    @property
    def cold(self) -> str: ...


class Places(msgspec.Struct, frozen=True):
    """The three URLs that are meant. `notes` say what an operator may not expect."""

    warm: str
    hot: str
    cold: str
    notes: tuple[str, ...] = ()


class Tiers(msgspec.Struct, frozen=True):
    """The three tiers, open."""

    warm: Warm
    hot: Hot
    cold: Blobs


def places(given: Urls, *, hot: str = "", folder: Path | None = None) -> Places:
    """Fill in what was not given: everything stays with the sessions, and on this machine if they are."""
    folder = (Path.cwd() if folder is None else folder) / FOLDER
    warm, cold, notes = given.warm, given.cold, []
    if not warm:
        warm = f"sqlite:///{quote(str(folder / FILE))}"
        notes.append(f"sessions are kept in {folder}; choose another place with --warm or DALSEGNO_WARM")
    scheme = warm.partition(":")[0].lower()
    if not cold and scheme == "memory":
        cold = "memory:"
    elif not cold and scheme == "sqlite":
        file = stores.sqlite_path(warm).absolute()
        cold = f"file://{quote(str(file.with_name(file.name + '-cold')))}"
    elif not cold:
        cold = f"file://{quote(str(folder / 'cold'))}"
        notes.append(f"large payloads are kept in {folder / 'cold'} of this machine: a fleet on several needs --cold")
    return Places(warm, hot or warm, cold, tuple(notes))


@asynccontextmanager
async def opened(where: Places, *, counting: Callable[[Warm], Warm] | None = None) -> AsyncIterator[Tiers]:
    """The tiers, until the context ends. The warm one brings back what is archived; `counting` wraps it below that."""
    async with AsyncExitStack() as stack:
        warm = await stores.open_warm(where.warm)
        stack.push_async_callback(stores.close, warm)
        hot = await stores.open_hot(where.hot)
        stack.push_async_callback(stores.close, hot)
        cold = await stores.open_cold(where.cold)
        stack.push_async_callback(stores.close, cold)
        yield Tiers(with_shelf(warm if counting is None else counting(warm), cold), hot, cold)
