"""Port `Log`, sentence 8: who is cancelled while it waits for its commit is told once that has been decided."""

import asyncio
from contextlib import suppress
from typing import Any


async def outlast(future: "asyncio.Future[Any]") -> None:
    """Wait until the future is done, however often the caller is cancelled meanwhile; what it comes to is not asked."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait((future,))
    if not future.cancelled():
        # Nobody else may: an error is not to be reported as one that was forgotten.
        future.exception()
