"""`dalsegno sessions copy`, without the words: two warm tiers are opened, and one's sessions removed to the other."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

import msgspec

from dalsegno import stores
from dalsegno.errors import ConfigError
from dalsegno.ops.reach import refuse_nowhere
from dalsegno.ops.tiers import places
from dalsegno.runtime.mover import Report, Route
from dalsegno.runtime.removal import Plan, Removal
from dalsegno.runtime.shelf import with_shelf

WHERE = ("host", "hostaddr", "port", "dbname", "service", "options", "namespace")
"""What a URL's query may say about the place; the rest is how to get there."""
PORTS = {"postgresql": 5432, "redis": 6379, "rediss": 6379}


class Stores(msgspec.Struct, frozen=True, kw_only=True):
    """The two stores by their URLs, and the names that they have in the sessions' logs; empty = `name_of` the URL.

    `cold` is the cold tier of both; empty = the one that the source has by default.
    """

    warm: str
    target: str
    cold: str = ""
    origin: str = ""
    to: str = ""


class Tally:
    """What has become of how many sessions so far."""

    def __init__(self) -> None:
        self.sessions = Counter[str]()
        self.events = 0
        self.bytes = 0

    @property
    def verified(self) -> int:
        """How many were read back in the destination and are the same."""
        return self.sessions["moved"] + self.sessions["there"] + self.sessions["buried"]

    def note(self, report: Report) -> None:
        """One session more."""
        self.sessions[report.what] += 1
        self.events += report.events
        self.bytes += report.bytes


async def copy(given: Stores, plan: Plan, *, told: Callable[[Report], None]) -> None:
    """Carry the plan out. Raises `ConfigError`, `Unavailable` or another `DalsegnoError`."""
    async with _opened(given) as route:
        await Removal(route, plan, told=told).run()


def name_of(url: str) -> str:
    """A store's name in the logs: its product, and eight digits that only the same place has.

    The logs are their tenants': neither hosts nor credentials are in it.
    """
    scheme = url.partition(":")[0].lower()
    product = "postgresql" if scheme == "postgres" else scheme
    if product == "sqlite":
        place = str(stores.sqlite_path(url).resolve())
    else:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        if product in PORTS and "," not in host and ":" not in host.rpartition("]")[2]:
            host = f"{host}:{PORTS[product]}"
        asked, path = parse_qs(parts.query), parts.path.rstrip("/")
        if product == "postgresql" and not path and "dbname" not in asked:
            # libpq's own default: the database that is called as its user is
            path = f"/{parts.username or ''}"
        place = f"{host.lower()}{path}{[(name, asked[name]) for name in WHERE if name in asked]}"
    return f"{product}-{sha256(place.encode()).hexdigest()[:8]}"


@asynccontextmanager
async def _opened(given: Stores) -> AsyncIterator[Route]:
    origin, to = given.origin or name_of(given.warm), given.to or name_of(given.target)
    if origin == to:
        raise ConfigError("--from and --to name the same store")
    if given.target.partition(":")[0].lower() == "memory":
        raise ConfigError("a warm tier in memory is gone when this command ends")
    refuse_nowhere(given.warm)
    async with AsyncExitStack() as stack:
        source = await stores.open_warm(given.warm)
        stack.push_async_callback(stores.close, source)
        target = await stores.open_warm(given.target)
        stack.push_async_callback(stores.close, target)
        cold = await stores.open_cold(places(given).cold)
        stack.push_async_callback(stores.close, cold)
        yield Route(with_shelf(source, cold), with_shelf(target, cold), origin, to)
