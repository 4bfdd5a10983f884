"""A lane: what is asked for while something is on its way goes together next, in the order in which it came. Knows
neither tables nor servers.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from dalsegno.errors import DalsegnoError, Unavailable
from dalsegno.stores.breaker import Breaker

A = TypeVar("A")
B = TypeVar("B")
WAITING_MAX = 10_000
TOGETHER_MAX = 256


class Lane(Generic[A, B]):
    """Asks `carry` for many answers at once. Whoever does not want to wait any longer is cancelled.

    What has the same `name` never goes together: it goes in the order in which it came.
    """

    def __init__(
        self,
        carry: Callable[[Sequence[A]], Awaitable[Sequence[B]]],
        *,
        name: Callable[[A], Hashable],
        breaker: Breaker,
    ) -> None:
        self._carry = carry
        self._name = name
        self._breaker = breaker
        self._waiting: deque[tuple[A, asyncio.Future[B]]] = deque()
        self._going: asyncio.Task[None] | None = None

    async def ask(self, asked: A) -> B:
        """The answer. Raises `Unavailable` when there is none, or none is to be expected."""
        if len(self._waiting) >= WAITING_MAX or not self._breaker.admits():
            raise Unavailable("the hot tier does not answer, or not fast enough", outcome="not_applied")
        future: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._going is None or self._going.done():
            self._going = asyncio.create_task(self._go())
        return await future

    async def close(self) -> None:
        """Wait for what is on its way."""
        if self._going is not None:
            await asyncio.wait((self._going,))

    async def _go(self) -> None:
        while together := self._next():
            try:
                answers = await self._carry([asked for asked, _ in together])
            except DalsegnoError as error:
                if isinstance(error, Unavailable):
                    self._breaker.failed()
                for _, future in together:
                    if not future.done():
                        future.set_exception(error)
                continue
            self._breaker.succeeded()
            for (_, future), answer in zip(together, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    def _next(self) -> list[tuple[A, "asyncio.Future[B]"]]:
        """The first of those that somebody still waits for, one of a name."""
        together: list[tuple[A, asyncio.Future[B]]] = []
        later: list[tuple[A, asyncio.Future[B]]] = []
        names: set[Hashable] = set()
        while self._waiting and len(together) < TOGETHER_MAX:
            asked, future = self._waiting.popleft()
            if future.done():
                continue
            name = self._name(asked)
            if name in names:
                later.append((asked, future))
            else:
                names.add(name)
                together.append((asked, future))
        self._waiting.extendleft(reversed(later))
        return together
