"""Parking: the turn is left to wait for somebody, with all that it waits for, once nothing else of it can be done."""

import asyncio
from collections.abc import Iterable
from typing import NoReturn

from dalsegno.core.append import Draft
from dalsegno.core.event import Action, TurnWaiting
from dalsegno.errors import Parked
from dalsegno.runtime.patience import seen_through
from dalsegno.runtime.recorder import Recorder
from dalsegno.runtime.work import Work

GRACE_SECONDS = 0.02
"""How long a turn that is about to wait for a human gives a framework to begin the other calls of its step."""


class Parking:
    """What one turn waits for."""

    def __init__(self, recorder: Recorder, work: Work) -> None:
        self._recorder = recorder
        self._work = work
        self._wanted: dict[str, Action] = {}
        self._leaving = False
        self._lock = asyncio.Lock()

    def check(self) -> None:
        """Raises `Parked` once the turn is being left: nothing can be begun any more."""
        if self._leaving:
            raise Parked

    async def park(self, actions: Iterable[Action]) -> NoReturn:
        """Leave the turn until these are decided, and whatever else it waits for by then."""
        self._wanted.update((action.call_id, action) for action in actions)
        journal = self._recorder.journal
        others = journal.calls.keys() - journal.outputs.keys() - self._wanted.keys()
        await self._work.quiet(grace=GRACE_SECONDS if others else 0)
        self._leaving = True
        async with self._lock:
            if not self._recorder.parked:
                await seen_through(self._leave())
        raise Parked

    async def _leave(self) -> None:
        waiting = Draft(TurnWaiting(tuple(self._wanted.values())), self._recorder.lease.turn)
        await self._recorder.append([waiting], then="release")
        self._recorder.parked = True
