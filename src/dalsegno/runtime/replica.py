"""A replica: it takes sessions while it has room, runs their turns side by side, and leaves in order when told to.

Recovery is level-triggered (law 9): the duties look at the store again and again; hints only make them look sooner.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial

import msgspec

from dalsegno.core.admit import Admission, Admitted, admit
from dalsegno.core.append import Write, give_up
from dalsegno.core.claim import ATTEMPTS_MAX, Claimed, readopt, retake
from dalsegno.core.event import Event
from dalsegno.core.frozen import WORTH_EVENTS
from dalsegno.core.lease import Lease
from dalsegno.core.session import Session
from dalsegno.core.tier import INLINE_MAX
from dalsegno.errors import LeaseLost, Unavailable, Unreadable
from dalsegno.ports import Agent, Blobs, Hot, Member, Ref, Transactions, Warm
from dalsegno.runtime.blame import unrunnable
from dalsegno.runtime.contexts import Contexts
from dalsegno.runtime.decided import result_of
from dalsegno.runtime.duty import Duty
from dalsegno.runtime.eraser import Eraser
from dalsegno.runtime.hub import Hub
from dalsegno.runtime.near import Near
from dalsegno.runtime.patience import patiently
from dalsegno.runtime.publisher import Press
from dalsegno.runtime.texts import Texts
from dalsegno.runtime.tiers import Tiers
from dalsegno.runtime.turn import CONTEXT_LIMIT_BYTES, Surroundings, run_turn

log = logging.getLogger("dalsegno.replica")

CLAIM_BATCH = 16
DOUBT_EVERY = 10
"""Sweeps between two looks at what is ours in the store and does not run here, for no other reason than to be sure."""


class Tuning(msgspec.Struct, frozen=True):
    """How a replica behaves. Every limit is here (law 12)."""

    lease_ttl: timedelta = timedelta(seconds=5)
    turns_max: int = 256
    turn_deadline: timedelta = timedelta(hours=1)
    context_limit_bytes: int = CONTEXT_LIMIT_BYTES
    queue_max: int = 100
    claim_every: timedelta = timedelta(milliseconds=500)
    bury_every: timedelta = timedelta(milliseconds=50)
    sweep_every: timedelta = timedelta(seconds=1)
    erase_every: timedelta = timedelta(seconds=5)
    drain_within: timedelta = timedelta(seconds=20)
    settling: bool = False
    near_events: int = WORTH_EVENTS
    inline_max_bytes: int = INLINE_MAX


DEFAULTS = Tuning()


class Replica:
    """One process of the fleet. `start`, then `admit` what clients say; `drain`, then `stop`."""

    def __init__(
        self,
        member: Member,
        agents: Mapping[str, Agent],
        *,
        warm: Warm,
        hot: Hot,
        blobs: Blobs,
        tuning: Tuning = DEFAULTS,
    ) -> None:
        self.member = member
        self.tuning = tuning
        self.draining = False
        self.hub = Hub(warm, hot)
        self.near, self.texts = Near(hot), Texts(blobs, inline_max=tuning.inline_max_bytes)
        self.eraser = Eraser(warm, blobs, self.near, hot)
        self._warm = warm
        self._turns: dict[Ref, asyncio.Task[None]] = {}
        self._last_chances: set[Ref] = set()
        self._doubtful = False
        self._admitting: list[Ref] = []
        self._dropped: set[Ref] = set()
        """Sessions whose turn ran here and ended neither in the log nor by a lost lease."""
        self._sweeps = 0
        self._closing = False
        self._hub_task: asyncio.Task[None] | None = None
        self._around = Surroundings(
            tiers=Tiers(warm, self.hub, closing=lambda: self._closing, doubt=self._doubt),
            hot=hot,
            press=Press(hot, self.hub),
            blobs=blobs,
            texts=self.texts,
            near=self.near,
            contexts=Contexts(warm, self.near, worth_events=tuning.near_events),
            transactions=warm if isinstance(warm, Transactions) else None,
            agent=agents.get,
            draining=lambda: self.draining,
            deadline=tuning.turn_deadline,
            context_limit_bytes=tuning.context_limit_bytes,
        )
        self._claiming = Duty("claim", self._claim, interval=tuning.claim_every)
        self._burying = Duty("bury", self._bury, interval=tuning.bury_every)
        self._sweeping = Duty("sweep", self._sweep, interval=tuning.sweep_every)
        self._erasing = Duty("erase", self.eraser.finish, interval=tuning.erase_every)
        self.hub.on_ready = self._claiming.poke

    @property
    def has_room(self) -> bool:
        """Whether one more turn may run here."""
        return not self.draining and len(self._turns) < self.tuning.turns_max

    @property
    def hot(self) -> Hot:
        """The hot tier that its turns publish to."""
        return self._around.hot

    @property
    def turns(self) -> int:
        """How many turns run here."""
        return len(self._turns)

    def running(self, ref: Ref) -> asyncio.Task[None] | None:
        """The task that runs the session's turns here, if one does."""
        return self._turns.get(ref)

    async def start(self) -> None:
        """Join the fleet and begin to look for work."""
        await self._warm.join(self.member, ttl=self.tuning.lease_ttl)
        self._hub_task = asyncio.get_running_loop().create_task(self.hub.run(), name="hub")
        for duty in (self._claiming, self._burying, self._sweeping, self._erasing):
            duty.start()

    async def admit(self, admission: Admission) -> Admitted:
        """Put an input on record; if the session is free and there is room, its turn runs here and now.

        A caller that goes away meanwhile changes nothing: what was taken with the commit is run, if a little later.
        """
        taker = self.member.incarnation if self.has_room else None
        admission = msgspec.structs.replace(admission, taker=taker, queue_max=self.tuning.queue_max)
        ref = Ref(admission.tenant, admission.session)
        digest = admission.key.digest if admission.key else None
        self._admitting.append(ref)
        try:
            decision = await self._warm.commit(ref, partial(admit, admission=admission), digest=digest)
        except (Unavailable, asyncio.CancelledError) as error:
            if getattr(error, "outcome", "unknown") == "unknown":
                self._doubt()
            raise
        finally:
            self._admitting.remove(ref)
        admitted = result_of(decision)
        if admitted.session is not None and admitted.events:
            self.hub.announce(ref, admitted.session, admitted.events)
            if admitted.lease is not None:
                self._run(admitted.lease, admitted.session, admitted.events)
        return admitted

    async def drain(self) -> None:
        """Claim no more, let turns reach a step boundary and hand them over, for at most `drain_within`."""
        self.draining = True
        await self._claiming.stop()
        if self._turns:
            await asyncio.wait(self._turns.values(), timeout=self.tuning.drain_within.total_seconds())

    async def stop(self) -> None:
        """Leave the fleet. Turns still running are cut off as by a crash: another replica takes them over."""
        self.draining = self._closing = True
        for duty in (self._claiming, self._erasing, self._sweeping, self._burying):
            await duty.stop()
        for task in list(self._turns.values()):
            task.cancel()
        await asyncio.gather(*self._turns.values(), return_exceptions=True)
        await self._around.press.stop()
        if self._hub_task is not None:
            self._hub_task.cancel()
            await asyncio.gather(self._hub_task, return_exceptions=True)
        await self.near.close()
        try:
            await self._warm.leave()
        except Unavailable as error:
            log.warning("left without saying so, others will notice: %s", error)

    def _doubt(self) -> None:
        """The answer to a commit was lost: look soon which sessions are ours after all."""
        self._doubtful = True

    def _run(self, lease: Lease, session: Session, written: Sequence[Event]) -> None:
        ref = Ref(lease.tenant, lease.session)
        task = asyncio.get_running_loop().create_task(self._run_session(lease, session, written))
        self._turns[ref] = task
        if lease.attempt >= ATTEMPTS_MAX:
            self._last_chances.add(ref)
        task.add_done_callback(partial(self._ran, ref))

    async def _run_session(self, lease: Lease, session: Session, written: Sequence[Event]) -> None:
        """The leased turn, and those that queue behind it."""
        ref = Ref(lease.tenant, lease.session)
        held: Lease | None = lease
        while held is not None:
            lease = held
            try:
                held = await run_turn(lease, session, written, self._around)
            except LeaseLost:
                await self.eraser.again(ref, closing=lambda: self._closing)
                self._doubt()  # it may have been its own end, which took the next turn along, and whose answer was lost
                return
            except Unavailable:
                raise
            except Exception as error:  # a turn that cannot be run must end: it would be picked up again for ever
                log.error("a turn of session %s cannot be run; it fails", ref.id, exc_info=error)
                await self._give_up(lease, error)
                await self.eraser.again(ref, closing=lambda: self._closing)
                return
            if held is not None:
                session, written = await patiently(partial(self._reload, ref), closing=lambda: self._closing), ()

    async def _reload(self, ref: Ref) -> Session:
        session = await self._warm.load(ref)
        if session is None:
            raise Unreadable(f"session {ref.id} vanished")
        return session

    async def _give_up(self, lease: Lease, error: Exception) -> None:
        """End a turn whose log cannot be understood: an error that everybody sees, never a shorter history (P9)."""
        ref = Ref(lease.tenant, lease.session)
        decision = await self._warm.commit(ref, partial(give_up, lease=lease, error=unrunnable(error)))
        if isinstance(decision, Write):
            self.hub.announce(ref, decision.result.session, decision.events)

    def _ran(self, ref: Ref, task: asyncio.Task[None]) -> None:
        if self._turns.get(ref) is task:
            del self._turns[ref]
            if ref in self._last_chances:
                self._last_chances.discard(ref)
                self._claiming.poke()
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            self._dropped.add(ref)
            self._doubt()
        if error is not None:
            log.error("the turn of session %s was dropped and will be picked up again", ref.id, exc_info=error)
        if len(self._turns) == self.tuning.turns_max - 1 and not self.draining:
            self._claiming.poke()

    async def _claim(self) -> None:
        if self._doubtful:
            self._doubtful = False
            await self._take_back()
        while self.has_room:
            room = min(CLAIM_BATCH, self.tuning.turns_max - len(self._turns))
            try:
                chances = 0 if self._last_chances else 1
                claims = await self._warm.claim(self.member.incarnation, limit=room, chances=chances)
            except Unavailable as error:
                if error.outcome == "unknown":
                    self._doubt()
                raise
            for found in claims:
                self._take(found)
            if len(claims) < room:
                return

    def _take(self, found: Claimed) -> None:
        ref = Ref(found.session.tenant, found.session.id)
        if found.events:
            self.hub.announce(ref, found.session, found.events)
        if found.lease is not None:
            self._run(found.lease, found.session, found.events)

    async def _take_back(self) -> None:
        """Sessions that are ours in the store and not here: the answer to a claim was lost, or a turn was dropped."""
        owner, dropped = self.member.incarnation, set(self._dropped)
        held = await self._warm.holdings(owner)
        self._dropped -= dropped.difference(held)
        for ref in held:
            if ref in self._admitting:
                self._doubt()  # the answer is still on its way, or was lost: look again
            elif ref not in self._turns:
                again = readopt if ref in self._dropped else retake
                found = result_of(await self._warm.commit(ref, partial(again, owner=owner)))
                self._dropped.discard(ref)
                self._take(found)

    async def _bury(self) -> None:
        if await self._warm.bury():
            self._claiming.poke()

    async def _sweep(self) -> None:
        await self.hub.sweep()
        self._sweeps += 1
        if self._sweeps % DOUBT_EVERY == 0:
            self._doubt()
