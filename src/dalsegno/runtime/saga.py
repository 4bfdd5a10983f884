"""Undoing: a turn that fails or is cancelled leaves nothing done that its tools can undo. `core.saga` says what.

1. `turn.undoing` is committed: from here on the turn can only end badly, whoever runs it, and no model is asked.
2. A replica that does not know the turn's tools, because the one that did is gone, runs the agent from its beginning
   against the record, and stops it where the record ends: tools are offered on the way.
3. Each call is undone, the latest first: tried again while that raises, for as long as its tool says, and then
   recorded. What is on record is not undone again; what is not is, with the same key.
4. The turn ends, and the end says what could not be undone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import chain, repeat

from dalsegno.core import item as items
from dalsegno.core import saga
from dalsegno.core.append import Draft
from dalsegno.core.event import Data, ItemDone, ToolUndone, TurnCancelled, TurnFailed, TurnUndoing
from dalsegno.core.ids import undone_digest
from dalsegno.core.item import user_message
from dalsegno.core.json import Json, clean_text
from dalsegno.core.session import replace
from dalsegno.errors import HandedOver, LeaseLost
from dalsegno.ports import Call, Tool, Undo
from dalsegno.runtime.blame import blame
from dalsegno.runtime.hub import nothing
from dalsegno.runtime.outcome import Outcome, outcome_of
from dalsegno.runtime.recorder import Recorder
from dalsegno.runtime.steps import Speaker
from dalsegno.runtime.tools import ToolBox

log = logging.getLogger("dalsegno.saga")

PAUSES_SECONDS = (0.1, 0.3, 1.0, 3.0)
LOOK_SECONDS = 0.02
REHEARSAL_SECONDS = 60.0
OUTPUT_CHARS = 2000
CANCELLED = TurnCancelled(by="client")
"""Who it was is in the log; the append looks."""


class Saga:
    """One turn's. `play` runs its agent from the beginning with a handle of its own."""

    def __init__(
        self,
        recorder: Recorder,
        speaker: Speaker,
        tools: ToolBox,
        *,
        play: Callable[[], Awaitable[None]],
        draining: Callable[[], bool],
    ) -> None:
        self._recorder = recorder
        self._speaker = speaker
        self._tools = tools
        self._play = play
        self._draining = draining

    @property
    def begun(self) -> Data | None:
        """How the turn ends that is being undone already, here or elsewhere; its agent is not to be run."""
        undoing = self._recorder.journal.undoing
        if undoing is None:
            return None
        return CANCELLED if undoing.error is None else TurnFailed(undoing.error)

    async def conclude(self, end: Data) -> Data:
        """The turn's end, once nothing that it did is left that is to be undone."""
        recorder, journal = self._recorder, self._recorder.journal
        await self._tools.under_way.none()
        await recorder.be_sure()
        if not any(intent.undo for _, intent in journal.intents.values()):
            return end
        await recorder.settle()
        if journal.undoing is None:
            if not journal.cancelled and not isinstance(end, TurnFailed):
                return end
            error = end.error if isinstance(end, TurnFailed) and not journal.cancelled else None
            await recorder.append([Draft(TurnUndoing(error), recorder.lease.turn)])
        task = asyncio.current_task()
        recorder.on_news = partial(_interrupt, recorder, task)
        try:
            await self._undo()
        except asyncio.CancelledError:
            if recorder.lost:
                raise LeaseLost from None
            raise
        finally:
            recorder.on_news = nothing
        return self._end()

    async def _undo(self) -> None:
        recorder, journal = self._recorder, self._recorder.journal
        given_up = saga.hopeless(journal, attempt=recorder.lease.attempt)
        left = saga.owed(journal)
        if left and not given_up:
            await self._hear_of_tools({one.name for one in left})
        for one in left:
            self._boundary()
            if given_up:
                await self._record(one, Outcome(saga.GIVEN_UP.format(saga.UNDONE_BY_MAX), "incomplete"))
            else:
                await self._undo_one(one)

    def _end(self) -> Data:
        recorder, journal = self._recorder, self._recorder.journal
        if journal.undone:
            text = user_message(saga.note(journal), item_id=self._speaker.new_id(items.MESSAGE))
            recorder.defer([Draft(ItemDone({**text, "role": "developer"}), recorder.lease.turn)])
        end, left = self.begun, saga.not_undone(journal)
        assert isinstance(end, TurnFailed | TurnCancelled)
        return replace(end, not_undone=left)

    # ------------------------------------------------------------------------------------------- one compensation

    async def _undo_one(self, one: saga.Owed) -> None:
        tool = self._tools.named(one.name)
        if tool is None or tool.compensate is None:
            await self._record(one, Outcome(saga.NO_COMPENSATION.format(one.name), "incomplete"))
            return
        inverse = replace(tool, run=partial(_compensate, tool.compensate, one))
        call, loop = self._tools.call(one.call_id), asyncio.get_running_loop()
        pauses, until = chain(PAUSES_SECONDS, repeat(PAUSES_SECONDS[-1])), loop.time() + tool.compensate_within_seconds
        while (made := await self._try(inverse, call, one)) is not None:
            if made.status == "completed" or loop.time() >= until:
                await self._record(one, made)
                return
            log.info("%s (%s) of turn %s is not undone yet", one.name, one.call_id, self._recorder.turn)
            await asyncio.sleep(next(pauses))
            self._boundary()

    async def _try(self, inverse: Tool, call: Call, one: saga.Owed) -> Outcome | None:
        """What came of it; None once that is on record."""
        if one.effect == "transactional":
            return await self._tools.undo_in_transaction(inverse, call, partial(self._draft, one))
        return await outcome_of(inverse, call)

    async def _record(self, one: saga.Owed, made: Outcome) -> None:
        if made.status != "completed":
            log.warning("%s (%s) of turn %s could not be undone", one.name, one.call_id, self._recorder.turn)
        await self._recorder.append([self._draft(one, made)])

    def _draft(self, one: saga.Owed, made: Outcome) -> Draft:
        text, intent = clean_text(made.text[:OUTPUT_CHARS]), self._recorder.journal.intents[one.call_id][1]
        if made.status == "completed":
            # An identical call later on is not to be answered with what is undone.
            digest = None if intent.dedupe is None else undone_digest(intent.key)
            undone = ToolUndone(one.call_id, one.name, one.key, "completed", text)
            return Draft(undone, self._recorder.lease.turn, digest)
        return Draft(ToolUndone(one.call_id, one.name, one.key, "incomplete", text), self._recorder.lease.turn)

    # ------------------------------------------------------------------------------------------- the rehearsal

    async def _hear_of_tools(self, names: set[str]) -> None:
        """Run the agent against the record until it has offered these tools, or comes to the end of it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + REHEARSAL_SECONDS
        if self._knows(names):
            return
        task = asyncio.ensure_future(self._play())
        task.add_done_callback(_heard)
        try:
            while not task.done() and not self._knows(names) and loop.time() < until:
                await asyncio.wait((task,), timeout=LOOK_SECONDS)
                self._boundary()
        finally:
            task.cancel()
            await asyncio.wait((task,))

    def _knows(self, names: set[str]) -> bool:
        return all(self._tools.named(name) is not None for name in names)

    def _boundary(self) -> None:
        if self._recorder.lost:
            raise LeaseLost
        if self._draining():
            raise HandedOver


async def _compensate(function: Callable[[Undo], Awaitable[Json]], one: saga.Owed, call: Call) -> Json:
    return await function(Undo(call, one.key, one.outcome, one.output))


def _heard(task: "asyncio.Future[None]") -> None:
    """How the rehearsal ended is of no consequence; an agent that raised may have offered too little."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, Exception):
        log.warning("an agent did not get to the end of its record: %s", blame(error))


def _interrupt(recorder: Recorder, task: "asyncio.Task[object] | None") -> None:
    if task is not None and recorder.lost:
        task.cancel()
