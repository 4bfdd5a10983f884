"""Forwarding a call's key: every request of a tool carries one of its own, the same one in every run of the call."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from dalsegno.agents.current import carrying_out
from dalsegno.agents.http import KeyedTransport
from dalsegno.core.tool import Call

CALL = Call("call_1", "pay", {}, "KEY", "s", "t", "u")
Answer = Callable[[httpx2.Request], httpx2.Response]


class Service:
    """What arrived, and what is answered to the n-th request."""

    def __init__(self, *answers: Answer | int) -> None:
        self.keys: list[str | None] = []
        self._answers = list(answers)

    async def handle_async_request(self, request: Any) -> Any:
        """Note the key, and answer."""
        self.keys.append(request.headers.get("Idempotency-Key"))
        answer = self._answers.pop(0) if self._answers else 200
        return answer(request) if callable(answer) else httpx2.Response(answer, request=request)

    async def aclose(self) -> None:
        """There is nothing to let go of."""

    @property
    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=KeyedTransport(self), base_url="http://pay.test")  # type: ignore[arg-type]


def lost(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ReadTimeout("no answer", request=request)


async def test_the_first_request_carries_the_call_s_key_and_each_later_one_its_own():
    """Numbered in the order in which they are made, so that the next run of the call sends the same."""
    for _ in range(2):
        service = Service()
        with carrying_out(CALL):
            async with service.client as client:
                await client.post("/charges", json={"amount": 5})
                await client.post("/charges", json={"amount": 5})
                await asyncio.gather(client.put("/a"), client.patch("/b"), client.delete("/c"))
        assert service.keys == ["KEY", "KEY.2", "KEY.3", "KEY.4", "KEY.5"]


@pytest.mark.parametrize("answer", [lost, 503, 429, 409])
async def test_a_request_that_is_made_again_has_the_key_it_had(answer: Any):
    """Whether no answer came, or one that asks to come again; other requests in between change nothing."""
    service = Service(answer, 200, 200, 200)
    with carrying_out(CALL):
        async with service.client as client:
            with suppress(httpx2.ReadTimeout):
                await client.post("/charges", json={"at": 1})
            await client.post("/mails")
            await client.post("/charges", json={"at": 2})
            await client.post("/charges")
    assert service.keys == ["KEY", "KEY.2", "KEY", "KEY.3"]


async def test_what_is_sent_side_by_side_is_not_taken_for_a_repetition():
    """Two equal requests of which neither has an answer yet are two."""
    service = Service()
    with carrying_out(CALL):
        async with service.client as client:
            await asyncio.gather(client.post("/charges"), client.post("/charges"))
    assert service.keys == ["KEY", "KEY.2"]


async def test_reads_and_what_has_a_key_and_what_no_tool_sends_are_left_alone():
    """A redirected request keeps the key that it began with."""
    service = Service(200, 200, 200, lambda request: httpx2.Response(307, headers={"location": "/other"}))
    async with service.client as client:
        await client.post("/outside")
        with carrying_out(CALL):
            await client.get("/read")
            await client.post("/mine", headers={"Idempotency-Key": "mine"})
            await client.post("/moved", follow_redirects=True)
    assert service.keys == [None, None, "mine", "KEY", "KEY"]
