"""An application over the fake service, with one tenant and no keys."""

import pytest

from dalsegno.http.app import App, build_app
from dalsegno.ports import Ref
from tests.http.fake import FakeService

S = "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b"


@pytest.fixture
async def service() -> FakeService:
    return FakeService()


@pytest.fixture
async def app(service: FakeService) -> App:
    return build_app(service)


@pytest.fixture
async def ref(service: FakeService) -> Ref:
    """A session with one finished turn: six events."""
    found = Ref("default", S)
    await service.say(found, "hi")
    service.answer(found, "Hel", "lo 👋")
    return found
