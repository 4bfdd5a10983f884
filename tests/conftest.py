"""What every test gets: the asyncio loop for async tests (`anyio_mode = "auto"`; no marker needed).

And what tests of several rooms ask for by name: a PostgreSQL, a database of it, and a wire to it that can be cut.

Laws are checked on the same examples each time, however slow the machine is; `--hypothesis-profile=explore` looks
further.

Processes that tests start keep what they have compiled, wherever that is unwanted otherwise: hundreds of replicas begin
with the same modules, and to compile these is a third of the work of a start.

What was imported by the time that the tests were collected stays: looking through it again and again for garbage took a
tenth of the time of a run.

The simulated worlds take longest, and come first: at the end no worker is left alone with them.
"""

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import database, place, proxy, server

__all__ = ["database", "place", "proxy", "server"]

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile(
    "laws",
    derandomize=True,
    max_examples=200,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "explore", settings.get_profile("laws"), derandomize=False, max_examples=5000, print_blob=True
)
settings.load_profile("laws")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the order of their files, but for the longest."""
    items.sort(key=lambda item: item.path.parent.name != "simulation")


def pytest_collection_finish() -> None:
    """All modules are there: none of it is garbage until the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests and fixtures run on asyncio, the loop that the server runs on."""
    return "asyncio"
