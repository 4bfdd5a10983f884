"""Faults on purpose, each at an exact place: after so many deltas of an answer; at 0, before anything of it is sent.

An answer with fewer deltas has its fault behind its last one. An answer that is not streamed has all of them at 0.
"""

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import TypeAlias

import msgspec

from dalsegno.testing.model.shown import Shown


class Fail(msgspec.Struct, frozen=True, tag_field="kind", tag="fail"):
    """The provider says that it cannot: a status (429, 500, 529 …), or an error in the middle of the stream."""

    status: int = 500
    retry_after: float | None = None
    at: int = 0


class Die(msgspec.Struct, frozen=True, tag_field="kind", tag="die"):
    """The connection is cut."""

    at: int = 0


class Garble(msgspec.Struct, frozen=True, tag_field="kind", tag="garble"):
    """What is sent is no JSON, and then the answer ends."""

    at: int = 0


Fault: TypeAlias = Fail | Die | Garble


class To(msgspec.Struct, frozen=True):
    """Which requests: those whose last user message contains `said`, in that `round`; the first `times` of them."""

    said: str = ""
    round: int | None = None
    times: int = 1

    def fits(self, shown: Shown) -> bool:
        """Whether this is one of them."""
        return self.said in shown.said and self.round in (None, shown.round)


ANY = To()


class Hold:
    """Answers stand still here until `release`."""

    def __init__(self, name: str, at: int, to: To) -> None:
        self.name = name
        self.at = at
        self.to = to
        self.left = to.times
        self._reached = asyncio.Event()
        self._released = asyncio.Event()

    async def reached(self) -> None:
        """Wait until an answer stands here: what comes before is sent."""
        await self._reached.wait()

    def release(self) -> None:
        """Let it go on, and hold nothing any more."""
        self._released.set()

    async def stand(self) -> None:
        """An answer stands here."""
        self._reached.set()
        await self._released.wait()

    @property
    def is_reached(self) -> bool:
        """Whether an answer stands here, or stood."""
        return self._reached.is_set()

    @property
    def is_released(self) -> bool:
        """Whether nothing is held any more."""
        return self._released.is_set()


class Faults:
    """What is to go wrong. Each request takes the first fault that fits it, and every hold that does."""

    def __init__(self) -> None:
        self.holds: dict[str, Hold] = {}
        self._names = (str(number) for number in count(1))
        self._plan: list[tuple[Fault, To, Iterator[int]]] = []

    def hold(self, at: int = 0, *, to: To = ANY) -> Hold:
        """Hold the next answers behind so many deltas."""
        hold = Hold(next(self._names), at, to)
        self.holds[hold.name] = hold
        return hold

    def plan(self, *faults: Fault, to: To = ANY) -> None:
        """The next requests that fit get these, in this order, each `to.times` times."""
        self._plan += [(fault, to, iter(range(to.times))) for fault in faults]

    def clear(self) -> None:
        """Forget the plan and release whatever is held."""
        self._plan.clear()
        for hold in self.holds.values():
            hold.release()

    def held(self, shown: Shown) -> list[Hold]:
        """The holds for a request."""
        found = [h for h in self.holds.values() if h.left > 0 and not h.is_released and h.to.fits(shown)]
        for hold in found:
            hold.left -= 1
        return found

    def take(self, shown: Shown) -> Fault | None:
        """The fault for a request."""
        for fault, to, left in self._plan:
            if to.fits(shown) and next(left, None) is not None:
                return fault
        return None
