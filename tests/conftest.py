"""What every test gets: the asyncio loop for async tests (`anyio_mode = "auto"`; no marker needed).

And what tests of several rooms ask for by name: a PostgreSQL, and a database of it.
"""

import pytest

from tests.postgres import database, server

__all__ = ["database", "server"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests and fixtures run on asyncio, the loop that the server runs on."""
    return "asyncio"
