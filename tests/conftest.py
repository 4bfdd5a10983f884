"""What every test gets: the asyncio loop for async tests (`anyio_mode = "auto"`; no marker needed).

And what tests of several rooms ask for by name: a PostgreSQL, a database of it, and a wire to it that can be cut.
"""

import pytest

from tests.postgres import database, proxy, server

__all__ = ["database", "proxy", "server"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests and fixtures run on asyncio, the loop that the server runs on."""
    return "asyncio"
