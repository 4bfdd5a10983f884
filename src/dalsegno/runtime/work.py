"""What a turn is doing just now: it may be left to wait for somebody only when nothing else of it is under way.

Agents do things side by side, and inside each other: a tool may be an agent that calls tools. Whoever only waits for
what it has begun inside itself is not at work.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec


class _Piece(msgspec.Struct, eq=False):
    """One thing under way, and how many others are under way inside it. They may outlive it."""

    turn: "Work"
    inside: int = 0
    over: bool = False


_CURRENT: ContextVar[_Piece | None] = ContextVar("dalsegno_work", default=None)


class Work:
    """One turn's work under way, from its own loop."""

    def __init__(self) -> None:
        self._active = 0
        self._changed = asyncio.Event()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Something that must be finished before the turn may be left."""
        outer, piece = _CURRENT.get(), _Piece(self)
        if outer is not None and (outer.over or outer.turn is not self):
            outer = None
        self._begin(outer)
        token = _CURRENT.set(piece)
        try:
            yield
        finally:
            _CURRENT.reset(token)
            self._end(piece, outer)

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

    def _begin(self, outer: _Piece | None) -> None:
        self._active += 1
        self._changed.set()
        if outer is not None:
            outer.inside += 1
            self._active -= outer.inside == 1

    def _end(self, piece: _Piece, outer: _Piece | None) -> None:
        piece.over = True
        self._active -= piece.inside == 0
        if outer is not None:
            outer.inside -= 1
            self._active += outer.inside == 0 and not outer.over
        self._changed.set()


class Calls:
    """The calls of one turn that are being carried out: its agent may be gone, and they are seen through."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Future[None]] = set()

    def __bool__(self) -> bool:
        return bool(self._under_way)

    @contextmanager
    def one(self) -> Iterator[None]:
        """A call is carried out, until what came of it is on record."""
        done = asyncio.get_running_loop().create_future()
        self._under_way.add(done)
        try:
            yield
        finally:
            self._under_way.discard(done)
            done.set_result(None)

    async def none(self) -> None:
        """Until none is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)
