"""Notes: what an adapter keeps in the log for itself, and finds there again. Readers may see them, no model does.

A note takes part in the next commit, whatever that is for, and so is on record no later than anything that was done
after it. Alone it is written only if nothing else is for a while.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

from dalsegno.core.append import Draft
from dalsegno.core.event import Event, ItemDone
from dalsegno.core.json import JsonObject
from dalsegno.errors import Refused
from dalsegno.runtime.patience import patiently
from dalsegno.runtime.recorder import Recorder
from dalsegno.runtime.steps import Speaker

ALONE_SECONDS = 0.05
NOTE_BYTES_MAX = 16 * 1024 * 1024


class Notes:
    """The notes of one turn, and its session's log."""

    def __init__(self, recorder: Recorder, speaker: Speaker) -> None:
        self._recorder = recorder
        self._speaker = speaker
        self._timer: asyncio.TimerHandle | None = None

    @property
    def hidden(self) -> Sequence[int]:
        """The first events of the turns that were rolled back."""
        return self._recorder.session.hidden

    def keep(self, item: JsonObject) -> None:
        """Record an item of a type of our own. It is given an id.

        What no log can hold is an error here, and not for whoever writes next; `Refused` if it is too large.
        """
        recorder = self._recorder
        named = {**item, "id": self._speaker.new_id(str(item["type"]))}
        draft = Draft(ItemDone(named), recorder.lease.turn)
        if len(draft.body) > NOTE_BYTES_MAX:
            raise Refused("too_large", f"a note has at most {NOTE_BYTES_MAX} bytes")
        recorder.notes.append(draft)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ALONE_SECONDS, self._write)

    async def settle(self) -> None:
        """Everything that was kept is on record now."""
        notes, self._recorder.notes = self._recorder.notes, []
        await self._recorder.append(notes)

    async def read(self, *, after: int, limit: int) -> Sequence[Event]:
        """Up to `limit` events of the session behind event `after`, as they are in the log."""
        handed = self._recorder.handed
        if handed and handed[0].seq <= after + 1 and after + limit <= handed[-1].seq:
            return [event for event in handed if event.seq > after][:limit]
        read = partial(self._recorder.log.read, self._recorder.ref, after=after, limit=limit)
        return await patiently(read, closing=self._recorder.closing)

    def go_ahead(self) -> None:
        """The agent goes on while its records are on their way to the log, since it computes between its acts. Whatever
        the turn does next waits until they are there; only `turn.context` may lack them.
        """
        self._recorder.ahead = True

    async def asked(self, call_id: str) -> JsonObject | None:
        """The `function_call` item on record for a call of this turn, once what is being written is there."""
        await self._recorder.be_sure()
        return self._recorder.journal.calls.get(call_id)

    def steps(self, prefix: str) -> list[str]:
        """The names of this turn's steps on record that begin so, in the order of the log."""
        return [key.rpartition("#")[0] for key in self._recorder.journal.steps if key.startswith(prefix)]

    def _write(self) -> None:
        self._timer = None
        notes, self._recorder.notes = self._recorder.notes, []
        if notes and not (self._recorder.lost or self._recorder.parked):
            self._recorder.defer(notes)
