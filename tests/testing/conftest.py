"""One model server and one set of clients for all tests; each test begins with a model that echoes and an empty log."""

from collections.abc import AsyncIterator

import pytest

from dalsegno.testing.model import ModelServer, echo
from tests.testing.providers import Provider, providers


@pytest.fixture(scope="session")
async def model_server(anyio_backend: str) -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


@pytest.fixture(scope="session")
async def clients(model_server: ModelServer) -> AsyncIterator[dict[str, Provider]]:
    """The real clients, which try nothing twice."""
    async with providers(model_server) as made:
        yield made


@pytest.fixture
def model(model_server: ModelServer) -> ModelServer:
    """The server, as new."""
    model_server.calm()
    model_server.log.clear()
    model_server.script = echo
    return model_server


@pytest.fixture(params=["chat", "responses", "messages"])
def provider(request: pytest.FixtureRequest, clients: dict[str, Provider]) -> Provider:
    """Each of them."""
    return clients[request.param]
