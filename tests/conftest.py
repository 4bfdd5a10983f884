"""What every test gets: the asyncio loop for async tests (`anyio_mode = "auto"`; no marker needed). Nothing else."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests and fixtures run on asyncio, the loop that the server runs on."""
    return "asyncio"
