"""One scripted model for all tests of adapters; each begins with one that echoes, and an empty log."""

from collections.abc import AsyncIterator

import pytest

from dalsegno.testing.model import ModelServer, echo


@pytest.fixture(scope="session")
async def model_server(anyio_backend: str) -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


@pytest.fixture
def model(model_server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    """The server, as new; the clients of OpenAI and Anthropic find it."""
    model_server.calm()
    model_server.log.clear()
    model_server.script = echo
    for name, value in model_server.environment.items():
        monkeypatch.setenv(name, value)
    return model_server
