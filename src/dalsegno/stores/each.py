"""What is published together, for tiers that take each session's pieces by themselves and send them together anyway."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from dalsegno.core.stream import Piece
from dalsegno.errors import DalsegnoError, LeaseLost
from dalsegno.ports import Batch, Failures, Ref


async def each(publish: Callable[[Ref, int, Sequence[Piece]], Awaitable[None]], batches: Sequence[Batch]) -> Failures:
    """Publish every batch; why not, for those that were not taken."""
    ends = await asyncio.gather(*(publish(*batch) for batch in batches), return_exceptions=True)
    failed: dict[Ref, DalsegnoError | LeaseLost] = {}
    for batch, end in zip(batches, ends, strict=True):
        if isinstance(end, DalsegnoError | LeaseLost):
            failed[batch.ref] = end
        elif end is not None:
            raise end
    return failed
