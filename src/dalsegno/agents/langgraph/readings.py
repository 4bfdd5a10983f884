"""Threads at hand: what was read of a session's thread, so that the session's next turn reads only what is new.

Derived, and held to no promise: without it everything is read. What was read is gone on with only if the log has, at
that number, the very event that was read last: a log that was restored from a backup, or another session's under the
same id, has another. What a turn adds is not kept; whether it came to be on record is for the next one to read.
"""

from collections import OrderedDict

import msgspec

from dalsegno.agents.langgraph.thread_of_turn import Reading, TurnThreads
from dalsegno.agents.turn import Turn

BUDGET_BYTES = 32 * 1024 * 1024


class _Kept(msgspec.Struct, frozen=True):
    reading: Reading
    weight: int


class Readings:
    """The threads of the sessions that were busy here, the least recently used first to go."""

    def __init__(self, *, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget = budget_bytes
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._weight = 0

    async def open(self, turn: Turn) -> TurnThreads:
        """The turn's thread, read up to where the turn found the log."""
        ref, threads = (turn.tenant, turn.session), TurnThreads(turn)
        kept = self._forget(ref)
        # for this turn alone: another one of the same session, of a replica that was fenced off perhaps, reads for
        # itself
        reading = await threads.read(None if kept is None else kept.reading)
        self._forget(ref)
        if reading is not None:
            self._kept[ref] = _Kept(reading, reading.weight())
            self._weight += self._kept[ref].weight
        while self._weight > self._budget:
            self._forget(next(iter(self._kept)))
        return threads

    def _forget(self, ref: tuple[str, str]) -> _Kept | None:
        kept = self._kept.pop(ref, None)
        self._weight -= 0 if kept is None else kept.weight
        return kept
