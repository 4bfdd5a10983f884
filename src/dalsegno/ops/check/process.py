"""A process of a check: started on a fresh interpreter, given its order, listened to, and always ended."""

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from dalsegno.errors import DalsegnoError
from dalsegno.ops.check.talk import AnyNote, Order
from dalsegno.ops.line import line

LINE_BYTES_MAX = 256 * 1024 * 1024
LAST_WORDS = 1500


class Failed(DalsegnoError):
    """A process of the check could not do its work."""


async def run(order: Order, *, environment: Mapping[str, str], words: Path, seconds: float) -> list[AnyNote]:
    """What the process noted; what the agent prints goes to `words`. Raises `Failed` if it takes too long."""
    async with line(limit=LINE_BYTES_MAX) as told:
        with told.theirs as theirs, words.open("wb") as said:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "dalsegno.ops.check.child", str(theirs.fileno())),
                cwd=order.folder,
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=said,
                stderr=said,
                pass_fds=[theirs.fileno()],
            )
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                noting = group.create_task(_noted(told.reader))
                assert process.stdin is not None
                process.stdin.write(msgspec.json.encode(order))
                process.stdin.close()
                await process.wait()
                told.ended()
            return noting.result()
        except TimeoutError:
            raise Failed(f"a process of the {order.play} play did not come to its end in {seconds:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def last_words(words: Path) -> str:
    """The end of what was printed."""
    return words.read_text("utf-8", "replace")[-LAST_WORDS:].strip()


async def _noted(reader: asyncio.StreamReader) -> list[AnyNote]:
    return [msgspec.json.decode(note, type=AnyNote) async for note in reader]
