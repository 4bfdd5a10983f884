"""The gate: how many requests and streams are inside, and the way out for all of them when the replica drains.

One pulse looks after all streams of the process: a comment for the silent, the door for readers that block. A stream
holds a seat here and knows nothing else of the gate.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

import msgspec

from dalsegno.errors import Refused, Unavailable

Why = Literal["gone", "slow", "draining", "store", "fault"]


class Limits(msgspec.Struct, frozen=True):
    """Every bound of this room. Sizes in bytes, per request."""

    body: int = 1024 * 1024
    import_body: int = 64 * 1024 * 1024
    import_line: int = 8 * 1024 * 1024
    body_time: timedelta = timedelta(seconds=30)
    requests: int = 2000
    streams: int = 20_000
    streams_per_tenant: int = 10_000
    heartbeat: timedelta = timedelta(seconds=15)
    slow_reader: timedelta = timedelta(seconds=30)


class Seat:
    """One stream's place. `write` begins and ends with `blocked`; whoever holds the seat is cancelled to leave it."""

    __slots__ = ("_gate", "_task", "beat", "blocked_since", "tenant", "why", "written")

    def __init__(self, gate: "Gate", tenant: str) -> None:
        self._gate = gate
        self._task: asyncio.Task[object] | None = None
        self.tenant = tenant
        self.beat: Callable[[], None] | None = None
        self.blocked_since: float | None = None
        self.written = gate.now
        self.why: Why | None = None

    def take(self, beat: Callable[[], None] | None) -> None:
        """The current task streams from here on; `beat` is called when nothing was written for long."""
        self._task = asyncio.current_task()
        self.beat = beat
        if self._gate.draining:
            self.leave_now("draining")

    def writing(self) -> None:
        """A write begins; if it does not end, the reader is too slow."""
        self.blocked_since = self._gate.now

    def wrote(self) -> None:
        """The write was taken by the transport's bounded buffer."""
        self.blocked_since, self.written = None, self._gate.now

    def leave_now(self, why: Why) -> None:
        """Stop the stream; its task finds out why. Nothing happens to one that is leaving."""
        if self.why is None and self._task is not None:
            self.why = why
            self._task.cancel()

    def done(self) -> None:
        """The body is complete: nothing can stop the stream any more."""
        self._task = None

    def cancelled(self) -> bool:
        """Whether a `CancelledError` was this seat's doing and nobody else's; if so it is taken back."""
        return self.why is not None and self._task is not None and self._task.uncancel() == 0

    def free(self) -> None:
        """Give the place back, whether or not it was ever taken."""
        self._task = None
        self._gate.forget(self)


class Gate:
    """Counts who is inside. `clock` tells seconds and never goes back."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.draining = False
        self.drained = asyncio.Event()
        self.now = clock()
        self.requests = 0
        self._clock = clock
        self._seats: set[Seat] = set()
        self._per_tenant: Counter[str] = Counter()
        self._pulse: asyncio.TimerHandle | None = None

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._seats)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Inside, one request more is being answered. Raises `Unavailable` with `overloaded`."""
        if self.requests >= self.limits.requests:
            raise Unavailable("too many requests at once", outcome="not_applied", code="overloaded")
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    def seat(self, tenant: str) -> Seat:
        """A place for one stream; whoever takes it frees it. Raises `rate_limited` or `overloaded`."""
        if len(self._seats) >= self.limits.streams:
            raise Unavailable("too many open streams", outcome="not_applied", code="overloaded")
        if self._per_tenant[tenant] >= self.limits.streams_per_tenant:
            raise Refused("rate_limited", f"{self.limits.streams_per_tenant} streams are open already")
        self.now = self._clock()
        seat = Seat(self, tenant)
        self._seats.add(seat)
        self._per_tenant[tenant] += 1
        if self._pulse is None:
            self._wind()
        return seat

    def forget(self, seat: Seat) -> None:
        """The seat is free again."""
        if seat in self._seats:
            self._seats.discard(seat)
            self._per_tenant[seat.tenant] -= 1
            if not self._per_tenant[seat.tenant]:
                del self._per_tenant[seat.tenant]

    def drain(self) -> None:
        """Let nobody in, and abort every stream: its client resumes on another replica."""
        self.draining = True
        self.drained.set()
        for seat in tuple(self._seats):
            seat.leave_now("draining")

    def _wind(self) -> None:
        period = min(1.0, self.limits.heartbeat.total_seconds() / 15)
        self._pulse = asyncio.get_running_loop().call_later(period, self._look, period)

    def _look(self, period: float) -> None:
        self.now = now = self._clock()
        quiet = now - self.limits.heartbeat.total_seconds() + period
        stuck = now - self.limits.slow_reader.total_seconds()
        for seat in tuple(self._seats):
            if seat.blocked_since is not None:
                if seat.blocked_since <= stuck:
                    seat.leave_now("slow")
            elif seat.written <= quiet and seat.beat is not None:
                seat.written = now
                seat.beat()
        self._pulse = None
        if self._seats:
            self._wind()
