"""Servers in a test's own loop leave nothing open, whenever they are left: also between the rounds of the loop in which
a connection is accepted, made and handed over.
"""

import asyncio
import gc
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dalsegno.testing.listener import Listener
from dalsegno.testing.model import ModelServer
from dalsegno.testing.proxy import FaultProxy, Refuse


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says nothing until the other side has gone."""
    await reader.read()


MAKE: dict[str, Callable[[], Any]] = {
    "listener": lambda: Listener(silent),
    "proxy": lambda: FaultProxy(("127.0.0.1", 1)),
    "model": ModelServer,
}


@pytest.mark.parametrize("rounds", range(7))
@pytest.mark.parametrize("made", MAKE)
async def test_what_was_accepted_is_closed(made: str, rounds: int):
    """So many rounds of the loop after somebody has connected."""
    with _nothing_left_open():
        async with MAKE[made]() as server:
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                for _ in range(rounds):
                    await asyncio.sleep(0)
                await server.__aexit__()
                assert _gone(client)


@pytest.mark.parametrize("rounds", range(7))
async def test_what_was_accepted_is_reset_when_nobody_listens_any_more(rounds: int):
    """By a proxy that begins to refuse in the middle of it."""
    with _nothing_left_open():
        async with FaultProxy(("127.0.0.1", 1)) as proxy:
            with socket.create_connection(("127.0.0.1", proxy.port)) as client:
                for _ in range(rounds):
                    await asyncio.sleep(0)
                await proxy.switch(Refuse())
                assert await asyncio.to_thread(_gone, client)


@contextmanager
def _nothing_left_open() -> Iterator[None]:
    """Whoever forgets a connection is told so when the garbage is collected."""
    with warnings.catch_warnings(record=True, action="always") as caught:
        yield
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def _gone(client: socket.socket) -> bool:
    """Whether the other side has ended it."""
    client.settimeout(5)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
