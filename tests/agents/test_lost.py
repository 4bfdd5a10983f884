"""Errors of MCP clients: which of them mean that the connection is gone."""

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from pydantic_ai.exceptions import ModelRetry

from dalsegno.agents.lost import CONNECTION_CLOSED, is_lost

INVALID_REQUEST = -32600


def told(error: Exception) -> ModelRetry:
    """The error as a framework tells it to a model."""
    retry = ModelRetry(str(error))
    retry.__cause__ = error
    return retry


CLOSED = MCPError(CONNECTION_CLOSED, "Connection closed")


@pytest.mark.parametrize(
    "error",
    [
        CLOSED,
        told(CLOSED),
        ExceptionGroup("tasks", [ValueError("no"), told(CLOSED)]),
        MCPError(INVALID_REQUEST, "Session terminated"),
        ConnectionResetError(),
        anyio.ClosedResourceError(),
    ],
)
def test_nobody_will_answer_any_more(error: Exception):
    """However it is wrapped."""
    assert is_lost(error)


@pytest.mark.parametrize("error", [MCPError(INVALID_REQUEST, "no such tool"), ValueError("no"), told(TimeoutError())])
def test_the_server_is_there(error: Exception):
    """It refused, or is slow: others' calls are not cut off."""
    assert not is_lost(error)
