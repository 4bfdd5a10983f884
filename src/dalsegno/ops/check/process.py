"""A process of a check: started on a fresh interpreter, given its order, listened to, and always ended."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec

from dalsegno.errors import DalsegnoError
from dalsegno.ops.check.talk import AnyNote, Order

LINE_BYTES_MAX = 256 * 1024 * 1024
LAST_WORDS = 1500


class Failed(DalsegnoError):
    """A process of the check could not do its work."""


async def run(order: Order, *, environment: Mapping[str, str], words: Path, seconds: float) -> list[AnyNote]:
    """What the process noted; what the agent prints goes to `words`. Raises `Failed` if it takes too long."""
    reading, writing = os.pipe()
    with words.open("wb") as said:
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "dalsegno.ops.check.child", str(writing)),
                cwd=order.folder,
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=said,
                stderr=said,
                pass_fds=[writing],
            )
        finally:
            os.close(writing)
    notes: list[AnyNote] = []
    try:
        async with asyncio.timeout(seconds):
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(order))
            process.stdin.close()
            async for line in _lines(reading):
                notes.append(msgspec.json.decode(line, type=AnyNote))
            await process.wait()
    except TimeoutError:
        raise Failed(f"a process of the {order.play} play did not come to its end in {seconds:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return notes


def last_words(words: Path) -> str:
    """The end of what was printed."""
    return words.read_text("utf-8", "replace")[-LAST_WORDS:].strip()


async def _lines(descriptor: int) -> AsyncIterator[bytes]:
    reader, pipe = asyncio.StreamReader(limit=LINE_BYTES_MAX), os.fdopen(descriptor, "rb")
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        async for line in reader:
            yield line
    finally:
        transport.close()
