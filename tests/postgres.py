"""PostgreSQL for tests: a private server, an empty database a test.

Which: the one that POSTGRES_PROGRAM names, or that is on PATH, else the newest out of a wheel. With
POSTGRES_VERSIONS=all every version that is found; with POSTGRES_VERSIONS=15,18 those.
"""

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from dalsegno.testing.proxy import FaultProxy
from dalsegno.testing.servers import postgres
from dalsegno.testing.servers.postgres import Postgres

NAMED = os.environ.get("POSTGRES_PROGRAM")
WANTED = os.environ.get("POSTGRES_VERSIONS", "preferred")


def _versions() -> list[str]:
    return [str(version) for version in sorted(postgres.found(NAMED))] if WANTED == "all" else WANTED.split(",")


@pytest.fixture(scope="session", params=_versions(), ids=lambda version: f"postgres-{version}")
def server(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """A server of each version that is wanted. Looked for when a test asks: none at all is an error, and no skip."""
    wanted: str = request.param
    program = postgres.preferred(NAMED) if wanted == "preferred" else postgres.found(NAMED)[int(wanted)]
    with postgres.running(program) as server:
        yield server


@pytest.fixture
async def proxy(server: Postgres) -> AsyncIterator[FaultProxy]:
    """A wire to the server that can be cut."""
    async with FaultProxy(server.address) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def place(server: Postgres) -> str:
    """The URL of the database that all tests of a process use, one after another: a new one costs ten times as much."""
    return server.database()


@pytest.fixture
def database(server: Postgres, place: str) -> Iterator[str]:
    """The URL of an empty database."""
    yield place
    server.empty(place)
