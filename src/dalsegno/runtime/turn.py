"""READ THIS FIRST: one turn, from the lease to its end.

A message was admitted: it is event `lease.turn` of its session's log (`core.admit`). Some replica took the session
under a new epoch (`core.claim`), perhaps this one in the same commit, perhaps another one after the first died
half-way. What follows is the same in every case:

1. `prepare`: fold the log into the context and the turn's journal; pick up the open step of a dead predecessor.
2. `think`: run the agent from its beginning. Whatever the journal knows is answered from it; the first thing that it
   does not know is done: a model is asked, a tool is called, a human is awaited, and each is recorded when it is
   done.
3. `saga.conclude`: a turn that fails or is cancelled has its effects undone first, where its tools know how.
4. `end`: exactly one of completed, failed, cancelled; or parked, handed over, lost, in which case the turn goes on
   elsewhere or later and this replica holds nothing.

Every write carries the epoch, and the log refuses a stale one, so a replica that was paused for an hour can do no
harm: its next write raises `LeaseLost`, and it leaves.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial, reduce

import msgspec

from dalsegno.core.append import Appended, Draft
from dalsegno.core.event import (
    ContextSummarized,
    Data,
    Event,
    TurnCompleted,
    TurnError,
    TurnFailed,
    TurnStarted,
)
from dalsegno.core.item import user_message
from dalsegno.core.json import JsonObject
from dalsegno.core.lease import Lease
from dalsegno.core.part import add_usage
from dalsegno.core.session import Session
from dalsegno.core.stream import closes
from dalsegno.errors import HandedOver, LeaseLost, Parked, Unavailable
from dalsegno.ports import Agent, Blobs, Hot, Ref, Transactions
from dalsegno.runtime.blame import blame, told
from dalsegno.runtime.contexts import Contexts, turn_events
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.hub import nothing
from dalsegno.runtime.near import Near
from dalsegno.runtime.patience import patiently
from dalsegno.runtime.play import play
from dalsegno.runtime.publisher import Press, Publisher
from dalsegno.runtime.recorder import Recorder
from dalsegno.runtime.saga import Saga
from dalsegno.runtime.steps import Speaker
from dalsegno.runtime.texts import Texts
from dalsegno.runtime.tiers import Tiers
from dalsegno.runtime.tools import ToolBox

log = logging.getLogger("dalsegno.turn")

CONTEXT_LIMIT_BYTES = 256 * 1024


class Surroundings(msgspec.Struct, frozen=True):
    """What every turn of a replica is run with."""

    tiers: Tiers
    hot: Hot
    press: Press
    blobs: Blobs
    texts: Texts
    near: Near
    contexts: Contexts
    transactions: Transactions | None
    agent: Callable[[str], Agent | None]
    draining: Callable[[], bool]
    deadline: timedelta
    context_limit_bytes: int = CONTEXT_LIMIT_BYTES


class Running(msgspec.Struct):
    """A turn under way."""

    recorder: Recorder
    speaker: Speaker
    publisher: Publisher
    turn: Turn
    saga: Saga


async def run_turn(lease: Lease, session: Session, written: Sequence[Event], around: Surroundings) -> Lease | None:
    """Run the turn that `lease` is for to its end; the lease of the session's next turn, if it was taken along.

    `session` is the session when the lease was taken, `written` the events of the commit that took it. Raises
    `LeaseLost` when it was fenced off; nothing more can be written then.
    """
    running = await patiently(partial(prepare, lease, session, written, around), closing=around.tiers.closing)
    recorder, turn = running.recorder, running.turn
    ended: Appended | None = None
    try:
        seen: int | None = -1
        while ended is None:
            end = running.saga.begun or await think(running, around)
            if not isinstance(end, TurnCompleted):
                recorder.defer(await running.speaker.abandon())
            end = await running.saga.conclude(end)
            seen = turn.seen if isinstance(end, TurnCompleted) and turn.seen != seen else None
            # what a predecessor showed of a step is closed with the end, since only now nobody goes on with it
            last = [*running.speaker.unfinished, Draft(end, lease.turn)]
            ended = await recorder.append(last, then="take", seen=seen)
            if ended is None:  # a message joined the turn as it was ending, and the agent goes on; or a cancel did
                await recorder.settle()
        await running.speaker.abandon()
    except HandedOver:
        recorder.defer(await running.speaker.abandon())
        await recorder.append((), then="release")
    except LeaseLost:
        log.debug("turn %s of session %s was fenced off", lease.turn, lease.session)
        raise
    except Parked:
        log.debug("turn %s of session %s is parked", lease.turn, lease.session)
    finally:
        around.tiers.hub.unwatch(recorder.ref, recorder.poke)
        running.publisher.leave()
        recorder.over = True
    if not recorder.lost:
        running.publisher.forget()
        around.contexts.give_back(recorder.ref, recorder.transcript)
    return None if ended is None else ended.lease


async def prepare(lease: Lease, session: Session, written: Sequence[Event], around: Surroundings) -> Running:
    """Everything the turn knows when it starts, all of it from the log; plus what readers have seen of the open
    step.
    """
    ref, known = Ref(lease.tenant, lease.session), written[0].seq - 1 if written else session.head
    transcript, texts = await around.contexts.take(ref, session, before=known), around.texts
    recorder = Recorder(lease, session, transcript, tiers=around.tiers)
    if lease.turn <= known:
        mine = await turn_events(ref, lease.turn, log=around.tiers.log, through=known)
        for event in await texts.whole(ref.tenant, mine):
            recorder.recall(event)
    recorder.handed = written
    recorder.note(written)
    if recorder.journal.message is not None:
        recorder.journal.message = await texts.message(ref.tenant, recorder.journal.message)
    publisher = Publisher(lease, press=around.press, on_lost=recorder.lose)
    tools = ToolBox(recorder, tiers=around.tiers, texts=texts, transactions=around.transactions, near=around.near)
    speaker = Speaker(recorder, publisher, intent=tools.intent, texts=texts)
    if lease.orphaned:
        await adopt(recorder, speaker, around)
    handle = partial(Turn, recorder, speaker, tools, blobs=around.blobs, draining=around.draining)
    agent = around.agent(recorder.session.agent)
    saga = Saga(recorder, speaker, tools, play=partial(_rehearse, agent, handle), draining=around.draining)
    around.tiers.hub.watch(ref, recorder.poke)
    try:
        shorten(recorder, speaker, around.context_limit_bytes)
        await recorder.settle()
    except BaseException:
        around.tiers.hub.unwatch(ref, recorder.poke)
        raise
    return Running(recorder, speaker, publisher, handle(), saga)


async def adopt(recorder: Recorder, speaker: Speaker, around: Surroundings) -> None:
    """Take over from a dead replica: silence it, see what it had shown of the open step, and say so in the log."""
    lease, carried = recorder.lease, 0
    try:
        shown = await around.hot.fence(recorder.ref, lease.epoch)
    except Unavailable:
        shown = None
    if shown is not None and shown.pieces and shown.base <= recorder.head:
        after = await around.tiers.log.read(recorder.ref, after=shown.base)
        if not any(closes(event) for event in after):
            speaker.adopt(shown.base, shown.pieces)
            carried = shown.pieces[-1].end
    started = TurnStarted(attempt=lease.attempt, epoch=lease.epoch, carried=carried)
    await recorder.append([Draft(started, lease.turn)])


async def think(running: Running, around: Surroundings) -> Data:
    """Run the agent; how the turn is to end. A cancel or the loss of the lease interrupts it wherever it is."""
    recorder, task = running.recorder, asyncio.current_task()
    agent = around.agent(recorder.session.agent)
    if agent is None:
        return TurnFailed(TurnError("no_agent", f"no agent named {recorder.session.agent!r} is served here"))
    recorder.on_news, recorder.closed = partial(_interrupt, recorder, task), False
    deadline = asyncio.timeout(around.deadline.total_seconds())
    try:
        async with deadline:
            recorder.on_news()
            await play(partial(agent.run, running.turn), running.turn)
            await _pending_interrupt(recorder)
    except asyncio.CancelledError:
        if not recorder.lost and not recorder.journal.cancelled:
            raise
        await _forget_interrupts(task)
    except LeaseLost:
        await _forget_interrupts(task)
        raise
    except TimeoutError as error:
        if not deadline.expired():
            return TurnFailed(told(error))
        return TurnFailed(TurnError("deadline_exceeded", f"the turn took longer than {around.deadline}"))
    except Exception as error:  # whatever a user's agent raises ends its turn and nothing else
        log.warning("turn %s of session %s failed: %s", running.turn.id, running.turn.session, blame(error))
        log.debug("what failed turn %s", running.turn.id, exc_info=error)
        return TurnFailed(told(error))
    finally:
        recorder.on_news, recorder.closed = nothing, True
    if recorder.lost:
        raise LeaseLost
    return TurnCompleted(usage=_usage(running))


async def _rehearse(agent: Agent | None, handle: Callable[[], Turn]) -> None:
    """Run the agent once more from its beginning, as if nobody had."""
    if agent is not None:
        turn = handle()
        await play(partial(agent.run, turn), turn)


def shorten(recorder: Recorder, speaker: Speaker, limit_bytes: int) -> None:
    """When the context outgrows its limit, the oldest turns give way to a note that names what it stands for."""
    through = recorder.transcript.excess(limit_bytes)
    if through is None or through >= recorder.lease.turn:
        return
    text = (
        f"[The conversation up to its event {through} is not shown: it is longer than {limit_bytes} bytes. "
        "What follows is complete.]"
    )
    item = {**user_message(text, item_id=speaker.new_id("message")), "role": "developer"}
    recorder.defer([Draft(ContextSummarized(through, item), recorder.lease.turn)])


def _interrupt(recorder: Recorder, task: "asyncio.Task[object] | None") -> None:
    if task is not None and (recorder.lost or recorder.journal.cancelled):
        task.cancel()


async def _pending_interrupt(recorder: Recorder) -> None:
    """Let an interrupt that arrived with the last write be delivered here, and not in the middle of the end."""
    if recorder.lost or recorder.journal.cancelled:
        await asyncio.sleep(0)


async def _forget_interrupts(task: "asyncio.Task[object] | None") -> None:
    """The interrupt has been heard; one that came twice must not end the task in the middle of the turn's end."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    while task is not None and task.cancelling():
        task.uncancel()


def _usage(running: Running) -> JsonObject | None:
    steps = {key: record.usage for key, record in running.recorder.journal.steps.items()}
    return reduce(add_usage, {**steps, **running.speaker.usage}.values(), None)
