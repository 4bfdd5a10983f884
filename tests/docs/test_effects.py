"""What the pages about effects show does what they say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dalsegno.testing.listener import Listener
from tests.docs.pages import DOCS, blocks
from tests.runtime.fleet import fleet


def shown(page: str, marker: str) -> dict[str, Any]:
    """The names that a page's marked block defines."""
    (block,) = [block for block in blocks(DOCS / "how-to" / page) if block.marker == marker]
    names: dict[str, Any] = {"__name__": "shown"}
    exec(compile(block.text, block.place, "exec"), names)
    return names


async def test_every_request_of_a_tool_carries_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a real connection: the call's key, and the same with a number."""
    async with bank() as (url, keys):
        monkeypatch.setenv("BANK", url)
        names = shown("forward-the-key.md", "file: pay.py")
        async with fleet(names["answer"]) as world, names["bank"]:
            ref = await world.session()
            assert (await world.ask(ref, "pay")).status == "completed"
            (intent,) = await world.data(ref, "tool.intent")
        assert keys == [intent.key, f"{intent.key}.2"]


@asynccontextmanager
async def bank() -> AsyncIterator[tuple[str, list[str]]]:
    """A service that notes the keys it is sent."""
    keys: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            pairs = [line.split(": ", 1) for line in head.split("\r\n")[1:] if line]
            headers = {name.lower(): value for name, value in pairs}
            keys.append(headers["idempotency-key"])
            await reader.readexactly(int(headers.get("content-length", 0)))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await writer.drain()

    async with Listener(serve) as server:
        yield server.url, keys


async def _head(reader: asyncio.StreamReader) -> str:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return ""
