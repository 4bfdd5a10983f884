"""The ports `Hot` and `Cache` in dicts: open steps behind a fence, hints to whoever listens, what is kept near.

A step's pieces are kept only as far as they are contiguous, so every reading is a beginning. A `fence` keeps the pieces
for the new epoch: they are what clients were shown, and the next attempt goes on from there or replaces them.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec

from dalsegno.core.stream import Piece
from dalsegno.errors import LeaseLost
from dalsegno.ports import Batch, Failures, Hint, OpenStep, Ref
from dalsegno.stores.memory.entries import MemoryEntries

LIFETIME = timedelta(minutes=10)
STEPS_MAX = 10_000
STEP_BYTES_MAX = 8 * 1024 * 1024
PIECE_BYTES = 200
"""Of a piece, beside its text."""


class CachedStep(msgspec.Struct):
    """A session's open step: contiguous pieces, and about how many bytes they are.

    `epoch` is the newest one seen, `author` the one that the pieces were last published under. `expires` is in seconds.
    """

    epoch: int = 0
    author: int = 0
    base: int = 0
    end: int = 0
    size: int = 0
    pieces: list[Piece] = []
    expires: float = 0.0

    def forget(self, *, base: int) -> None:
        """Begin anew; the fence stays."""
        self.base, self.end, self.size, self.pieces = base, 0, 0, []

    def add(self, piece: Piece) -> None:
        """Keep a piece that continues the step; one that repeats, follows a gap or exceeds the bound is dropped."""
        if piece.base < self.base:
            return
        if piece.base > self.base:
            self.forget(base=piece.base)
        size = PIECE_BYTES + len(piece.delta)
        if piece.at == self.end and self.size + size <= STEP_BYTES_MAX:
            self.end, self.size = piece.end, self.size + size
            self.pieces.append(piece)


class MemoryCache:
    """What the handles of a fleet share: steps that expire when nobody touches them, listeners, and what is kept near.
    May be emptied.
    """

    def __init__(self, *, seconds: Callable[[], float] = time.monotonic, lifetime: timedelta = LIFETIME) -> None:
        self.steps: OrderedDict[Ref, CachedStep] = OrderedDict()
        self.listeners: dict[object, Callable[[Hint], None]] = {}
        self.entries = MemoryEntries(seconds=seconds)
        self._seconds = seconds
        self._lifetime = lifetime.total_seconds()

    def find(self, ref: Ref) -> CachedStep | None:
        """The session's step, if it has not expired."""
        self._expire()
        return self.steps.get(ref)

    def touch(self, ref: Ref, epoch: int) -> CachedStep:
        """The session's step, for a writer under `epoch`. Raises `LeaseLost` when a newer epoch has been here."""
        self._expire()
        step = self.steps.setdefault(ref, CachedStep())
        if epoch < step.epoch:
            raise LeaseLost(f"session {ref.id} is at epoch {step.epoch}, not {epoch}")
        step.expires = self._seconds() + self._lifetime
        self.steps.move_to_end(ref)
        while len(self.steps) > STEPS_MAX:
            self.steps.popitem(last=False)
        return step

    def clear(self) -> None:
        """Lose everything but the listeners."""
        self.steps.clear()
        self.entries.clear()

    def _expire(self) -> None:
        now = self._seconds()
        while self.steps and next(iter(self.steps.values())).expires <= now:
            self.steps.popitem(last=False)


class MemoryHot:
    """One replica's handle of a cache."""

    def __init__(self, cache: MemoryCache | None = None) -> None:
        self.cache = MemoryCache() if cache is None else cache

    async def publish(self, batches: Sequence[Batch]) -> Failures:
        await asyncio.sleep(0)
        failed: dict[Ref, LeaseLost] = {}
        for ref, epoch, pieces in batches:
            try:
                self.add(ref, epoch, pieces)
            except LeaseLost as error:
                failed[ref] = error
        await asyncio.sleep(0)
        return failed

    def add(self, ref: Ref, epoch: int, pieces: Sequence[Piece]) -> None:
        """One batch. Raises `LeaseLost`."""
        step = self.cache.touch(ref, epoch)
        if pieces and epoch > step.author:
            goes_on = epoch == step.epoch and (pieces[0].base, pieces[0].at) == (step.base, step.end)
            if not goes_on:
                step.forget(base=0)
            step.author = epoch
        step.epoch = epoch
        for piece in pieces:
            step.add(piece)

    async def fence(self, ref: Ref, epoch: int) -> OpenStep | None:
        await asyncio.sleep(0)
        step = self.cache.touch(ref, epoch)
        step.epoch = epoch
        return _reading(step, after=0)

    async def read(self, ref: Ref, *, base: int = 0, after: int = 0) -> OpenStep | None:
        await asyncio.sleep(0)
        step = self.cache.find(ref)
        if step is None:
            return None
        return _reading(step, after=after if step.base == base else 0)

    async def clear(self, ref: Ref, epoch: int) -> None:
        """A stale epoch's clear does nothing: the step is somebody else's by now."""
        await asyncio.sleep(0)
        step = self.cache.find(ref)
        if step is not None and epoch >= step.epoch:
            step.forget(base=step.base)
            step.epoch = epoch

    async def tell(self, hints: Sequence[Hint]) -> None:
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        for listener in self.cache.listeners:
            loop.call_soon(self._deliver, listener, hints)

    @asynccontextmanager
    async def listen(self, heard: Callable[[Hint], None]) -> AsyncIterator[None]:
        """One replica's ear; a hint that is on its way when the context ends is not delivered."""
        listener = object()
        self.cache.listeners[listener] = heard
        try:
            yield
        finally:
            del self.cache.listeners[listener]

    async def put(self, ref: Ref, name: str, version: int, content: bytes, *, keep: timedelta) -> None:
        await asyncio.sleep(0)
        self.cache.entries.put(ref, name, version, content, keep=keep)
        await asyncio.sleep(0)

    async def get(self, ref: Ref, name: str) -> tuple[int, bytes] | None:
        await asyncio.sleep(0)
        found = self.cache.entries.find(ref, name)
        return None if found is None else (found.version, found.content)

    async def forget(self, ref: Ref) -> None:
        await asyncio.sleep(0)
        self.cache.entries.forget(ref)

    def _deliver(self, listener: object, hints: Sequence[Hint]) -> None:
        heard = self.cache.listeners.get(listener)
        if heard is not None:
            for hint in hints:
                heard(hint)


def _reading(step: CachedStep, *, after: int) -> OpenStep | None:
    if not step.pieces:
        return None
    return OpenStep(step.base, step.epoch, tuple(piece for piece in step.pieces if piece.end > after))
