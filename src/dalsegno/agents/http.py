"""Forwarding a call's key without writing it down at every request: a transport for HTTP clients that tools share.

Put it around a transport of `httpx2` or `httpx`. Inside a tool, each request that changes something (`POST`, `PUT`,
`PATCH`, `DELETE`) carries the call's key as its `Idempotency-Key`: the first one the key itself, the second one the key
and `.2`, and so on, so that a tool that is run again after a crash sends the same keys. One that repeats a request
which got no answer, or one that asks to be repeated, sends the key that it had.
"""

from typing import Any, Protocol

from dalsegno.agents.current import current_run

CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
HEADER = "Idempotency-Key"
COME_AGAIN = frozenset({408, 409, 425, 429})
"""Answers after which a client sends the same request again; and everything from 500 on."""


class Transport(Protocol):
    """As much as is asked of the transport inside."""

    async def handle_async_request(self, request: Any) -> Any:
        """Send it."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


class KeyedTransport:
    """`httpx2.AsyncClient(transport=KeyedTransport(httpx2.AsyncHTTPTransport()))`.

    A request that brings an `Idempotency-Key` keeps it, and outside of tools nothing is added. The order in which a
    tool makes its requests must not change from run to run.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: Any) -> Any:
        """Send it, with the key of the call that is being carried out."""
        run = current_run()
        if run is None or request.method not in CHANGES or HEADER in request.headers:
            return await self._inner.handle_async_request(request)
        made = run.request(f"{request.method} {request.url}")
        request.headers[HEADER] = run.call.key if made.number == 1 else f"{run.call.key}.{made.number}"
        made.state = "sent"
        try:
            response = await self._inner.handle_async_request(request)
        except BaseException:
            made.state = "unanswered"
            raise
        made.state = "unanswered" if _come_again(response.status_code) else "answered"
        return response

    async def __aenter__(self) -> "KeyedTransport":
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the transport inside."""
        await self._inner.aclose()


def _come_again(status: int) -> bool:
    return status >= 500 or status in COME_AGAIN
