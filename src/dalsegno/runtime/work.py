"""What a turn is doing just now: it may be left to wait for somebody only when nothing else of it is under way.

Agents do things side by side, and inside each other: a tool may be an agent that calls tools. Whoever only waits for
what it has begun inside itself is not at work.
"""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


class _Piece:
    """One thing under way, and how many others are under way inside it. They may outlive it."""

    def __init__(self, turn: "Work") -> None:
        self.turn = turn
        self.inside = 0
        self.over = False

    def __enter__(self) -> None:
        self._before = outer = _CURRENT.get()
        self._outer = None if outer is None or outer.over or outer.turn is not self.turn else outer
        _CURRENT.set(self)
        self.turn.begin(self._outer)

    def __exit__(self, *_: object) -> None:
        _CURRENT.set(self._before)
        self.over = True
        self.turn.end(self, self._outer)


_CURRENT: ContextVar[_Piece | None] = ContextVar("dalsegno_work", default=None)


class Work:
    """One turn's work under way, from its own loop."""

    def __init__(self) -> None:
        self._active = 0
        self._changed = asyncio.Event()

    def under_way(self) -> AbstractContextManager[None]:
        """Something that must be finished before the turn may be left."""
        return _Piece(self)

    async def quiet(self, *, grace: float) -> None:
        """Until nothing is under way but those who wait here, and those that wait for them; and nothing has begun for
        `grace` seconds.
        """
        with self.under_way():
            self._active -= 1
            self._changed.set()
            try:
                while True:
                    self._changed.clear()
                    if self._active:
                        await self._changed.wait()
                    elif not grace or not await self._begun(within=grace):
                        return
            finally:
                self._active += 1

    async def _begun(self, *, within: float) -> bool:
        try:
            async with asyncio.timeout(within):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def begin(self, outer: _Piece | None) -> None:
        """One thing more, inside that one."""
        self._active += 1
        self._changed.set()
        if outer is not None:
            outer.inside += 1
            self._active -= outer.inside == 1

    def end(self, piece: _Piece, outer: _Piece | None) -> None:
        """That one is over."""
        self._active -= piece.inside == 0
        if outer is not None:
            outer.inside -= 1
            self._active += outer.inside == 0 and not outer.over
        self._changed.set()


class Calls:
    """The calls of one turn that are being carried out, each `with` this until what came of it is on record: its agent
    may be gone, and they are seen through.
    """

    def __init__(self) -> None:
        self._under_way = 0
        self._over = asyncio.Event()
        self.of: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Whoever asks for one call at the same time as others gets what it comes to for the first."""

    def __bool__(self) -> bool:
        return self._under_way > 0

    def __enter__(self) -> None:
        self._under_way += 1

    def __exit__(self, *_: object) -> None:
        self._under_way -= 1
        self._over.set()

    async def none(self) -> None:
        """Until none is under way."""
        while self._under_way:
            self._over.clear()
            await self._over.wait()


async def side_by_side(work: Sequence[Coroutine[object, object, T]]) -> list[T]:
    """All of them at once; the first that fails ends the others. One alone needs no task."""
    if len(work) == 1:
        return [await work[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
