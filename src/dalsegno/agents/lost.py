"""Connections to MCP servers: how to tell from an error that one is lost. Knows no SDK."""

from collections.abc import Iterator

import anyio

CONNECTION_CLOSED = -32000
"""MCP's code for a request that nobody can answer any more."""
SESSION_TERMINATED = "Session terminated"
"""What clients say where the server does not know the session, which it had before it was restarted."""


def is_lost(error: BaseException) -> bool:
    """Whether nobody will ever answer over the connection that raised this."""
    return any(_is_loss(one) for one in _causes(error))


def _is_loss(error: BaseException) -> bool:
    code = getattr(getattr(error, "error", error), "code", None)
    if isinstance(code, int):
        return code == CONNECTION_CLOSED or SESSION_TERMINATED in str(error)
    return isinstance(error, ConnectionError | anyio.ClosedResourceError | anyio.BrokenResourceError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and the members of groups."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__] if one.__cause__ is not None else []
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else []
