"""What a model function returns, in whichever way it says it, as parts one by one."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

from dalsegno.core.context import Context
from dalsegno.core.part import Part

Said = AsyncGenerator[Part] | AsyncIterator[Part] | Awaitable[Part | Sequence[Part]]
Model = Callable[[Context], Said]


def parts(said: Said) -> AsyncGenerator[Part]:
    """What a model says, part by part, whichever way it says it."""
    return said if isinstance(said, AsyncGenerator) else _each(said)


async def one(part: Part) -> AsyncGenerator[Part]:
    """A single part, as a model says it."""
    yield part


async def _each(said: AsyncIterator[Part] | Awaitable[Part | Sequence[Part]]) -> AsyncGenerator[Part]:
    """A model that returns an iterator, or everything at once, seen as one that yields."""
    if isinstance(said, AsyncIterator):
        async for part in said:
            yield part
        return
    whole = await said
    for part in [whole] if isinstance(whole, Part) else whole:
        yield part
