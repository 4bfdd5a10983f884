"""Opening a store for a program that is not a server: the tiers of a URL, for as long as the context lasts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from dalsegno.ops.tiers import opened, places
from dalsegno.runtime.store import Shelves, Store


class _Urls(msgspec.Struct, frozen=True):
    warm: str
    cold: str


@asynccontextmanager
async def open_store(
    url: str, *, tenant: str = "default", agent: str = "default", cold: str = "", hot: str = ""
) -> AsyncIterator[Store]:
    """The sessions of `tenant` in the warm tier of that URL (`sqlite:///file.db`, `postgresql://…`, `redis://…`,
    `memory:`), for an agent that runs outside of Dalsegno.

    `agent` is the name of the agent that sessions begun here ask for, should they ever be served. `cold` and `hot` are
    the fleet's, where it has its own: what is not given is where `dalsegno serve --warm URL` would put it.

    Raises `ConfigError` for a place that cannot be used, `Unavailable` for one that does not answer.
    """
    async with opened(places(_Urls(url, cold), hot=hot)) as tiers:
        store = Store(Shelves(tiers.warm, tiers.hot, tiers.cold, tenant, agent))
        try:
            yield store
        finally:
            await store.close()
