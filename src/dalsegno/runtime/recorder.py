"""The recorder: everything a turn writes goes through here, under its lease, and is folded into what the turn knows.

Appends that are made side by side leave in one commit. A draft may be deferred: it leaves with the next append, or at
the agent's next real pause, so that an answer and the turn's end are one commit and nothing stays unwritten for long.
Or it is begun: it leaves at once, and who acts next waits for it, not who has acted.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from dalsegno.core.append import Appended, Decide, Decision, Draft, Expect, Fenced, Known, Refusal, Then, append
from dalsegno.core.context import Transcript
from dalsegno.core.event import Event, ItemDone
from dalsegno.core.ids import turn_id
from dalsegno.core.lease import Lease
from dalsegno.core.session import Session
from dalsegno.core.step import Journal
from dalsegno.errors import LeaseLost, TurnOver, Unavailable
from dalsegno.ports import Ref
from dalsegno.runtime.hub import nothing
from dalsegno.runtime.outbox import Outbox
from dalsegno.runtime.patience import PAUSES_SECONDS, patiently
from dalsegno.runtime.tiers import Tiers

READ_EVENTS = 500
BESIDE_SECONDS = 0.5
CLIENT_EVENTS = frozenset({"turn.created", "turn.input", "session.updated", "session.deleted"})

TheirCommit = Callable[[Decide[Appended]], Awaitable[Decision[Appended]]]


class Recorder:
    """One turn's pen. `on_news` is called when something was said to the turn, or when the lease is gone."""

    def __init__(self, lease: Lease, session: Session, transcript: Transcript, *, tiers: Tiers) -> None:
        self.lease = lease
        self.ref = Ref(lease.tenant, lease.session)
        self.turn = turn_id(lease.session, lease.turn)
        self.session = session
        self.transcript = transcript
        self.handed: Sequence[Event] = ()  # with the lease, by the commit that took it
        self.journal = Journal()
        self.lost = self.parked = self.closed = self.over = False
        """Fenced off; waiting for somebody; the run has ended, nothing new begins; over, its transcript another's."""
        self.ahead = False
        """The agent computes between its acts, and need not wait for their records."""
        self.last = 0
        """The last event that was written for the turn, under any lease."""
        self.on_news: Callable[[], None] = nothing
        self.notes: list[Draft] = []
        """What takes part in the next commit, and is no reason for one."""
        self.log = tiers.log
        self._hub = tiers.hub
        self._doubt = tiers.doubt
        self.closing = tiers.closing
        self._lock = asyncio.Lock()
        self._shut_out = 0
        """How many transactions of this turn's tools let nobody else write."""
        self._let_in = asyncio.Event()
        self._outbox = Outbox()
        self._unsure: Sequence[Draft] | None = None
        self._last_before = 0
        self._stale = False
        self._looking: asyncio.Task[None] | None = None

    @property
    def head(self) -> int:
        """The last event that this turn knows."""
        return self.transcript.head

    def recall(self, event: Event) -> None:
        """What the transcript has already: one of the turn's own events, for the journal."""
        self.journal.note(event)
        if event.type not in CLIENT_EVENTS:
            self.last = event.seq

    def note(self, events: Sequence[Event]) -> None:
        """Fold events in, in `seq` order; known ones are passed over, and all when the turn is over."""
        if self.over:
            return
        heard = gone = False
        for event in events:
            if event.seq > self.transcript.head:
                self.transcript.add(event)
                if event.turn == self.lease.turn:
                    self.recall(event)
                    heard = heard or event.type == "turn.input"
                gone = event.type in ("session.deleted", "session.moved")
        if heard:
            self.on_news()
        if gone or self.journal.attempt > self.lease.attempt:  # others have begun it anew
            self.lose()

    async def nothing_new(self) -> None:
        """What is asked for next is not on record. Raises `TurnOver` when nothing new is to be made: what an agent left
        behind when its run ended leaves at once; where a turn is being undone, after a moment for what runs beside it.
        """
        if self.journal.undoing is not None:
            await asyncio.sleep(BESIDE_SECONDS)
        if self.journal.undoing is not None or self.closed:
            raise TurnOver

    def poke(self, head: int | None = None) -> None:
        """Something may have been said to the turn: look soon. `head` is the log's last event, if that is known."""
        if head is not None and head <= self.head:
            return
        self._stale = True
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def settle(self) -> None:
        """Write what was deferred, if it is not being written, and read what others have appended."""
        if self._outbox or self._unsure is not None or self._lock.locked():
            await self.append(())
        await self._look()

    async def be_sure(self) -> None:
        """Wait for what an agent that goes ahead has begun. And whoever was cancelled as it wrote may have written:
        what is asked for again may be on record.
        """
        on_its_way = self.ahead and (self._outbox.begun or self._lock.locked())
        if on_its_way or self._unsure is not None:
            await self.append(())

    async def _look(self) -> None:
        if self._stale and not self.lost:
            async with self._lock:
                self._stale = False
                try:
                    await self._read_on()
                except Unavailable:
                    self._stale = True

    def defer(self, drafts: Sequence[Draft]) -> None:
        """Write these with the next append, or soon without one."""
        self._check(drafts)
        self._outbox.defer(drafts, self.append)

    async def begin(self, drafts: Sequence[Draft]) -> None:
        """Write these. Of an agent that goes ahead, return when they have been sent: who acts next waits until they are
        there (`settle`, `be_sure`).
        """
        if self.ahead:
            self._check(drafts)
            await self._outbox.send(drafts, self.append)
        else:
            await self.append(drafts)

    async def append(self, drafts: Sequence[Draft], *, then: Then = "hold", seen: int | None = None) -> Appended | None:
        """Write drafts of this turn, and those deferred before. Raises `LeaseLost`.

        None = refused because a message has joined the turn since event `seen`, or because a cancel has, and what the
        turn did is to be undone first; the drafts given here are dropped.
        """
        self._check(drafts)
        last_word = list(drafts) if then != "hold" else []
        if not last_word:
            self._outbox.put(drafts)
        while True:
            if self._shut_out:
                await self._let_in.wait()
            async with self._lock:
                if not self._shut_out:
                    return await self._append(last_word, then, seen)

    async def _append(self, last_word: Sequence[Draft], then: Then, seen: int | None) -> Appended | None:
        await self._take_up()
        if then == "hold" and not self._outbox:
            return Appended(self.session, self.lease, ())
        rest, self.notes, before = [*self._outbox.take(), *self.notes], [], self.last
        try:
            appended = await self._write([*rest, *last_word], then, seen)
        except BaseException:  # whatever it is, it may have been written, and must not be forgotten
            self._unsure, self._last_before = rest, before
            raise
        if appended is None:
            self._outbox.give_back(rest)
            self._stale = True
        return appended

    @asynccontextmanager
    async def shut_out(self) -> AsyncIterator[None]:
        """A tool's transaction is open that lets nobody else write, and that ends with `append_with`: what is recorded
        beside it waits before it takes the pen, and not with it.
        """
        async with self._lock:
            self._shut_out += 1
            self._let_in.clear()
        try:
            yield
        finally:
            self._shut_out -= 1
            if not self._shut_out:
                self._let_in.set()

    async def append_with(self, commit: TheirCommit, draft: Draft) -> None:
        """Write a draft through a commit of the caller's own, once: a tool's transaction. Raises `Unavailable`."""
        async with self._lock:
            await self._take_up()
            expect, before = Expect(last=self.last), self.last
            try:
                await self._take_in(await commit(partial(self._decide, drafts=[draft], then="hold", expect=expect)))
            except (asyncio.CancelledError, Unavailable):
                # what the tool did and its record stand or fall together: there is nothing to write again
                self._unsure, self._last_before = (), before
                raise

    async def _take_up(self) -> None:
        """The pen is free: may this turn still write, and is all known that was written?"""
        if self.lost:
            raise LeaseLost
        if self._unsure is not None:
            await self._make_sure(self._unsure)

    async def _make_sure(self, batch: Sequence[Draft]) -> None:
        """A writer was cancelled in the middle of its commit, which carried others' drafts, too. What became of it?"""
        session = await patiently(partial(self.log.load, self.ref), closing=self.closing)
        if session is None or session.epoch != self.lease.epoch or session.owner != self.lease.owner:
            raise self._lost()
        await patiently(self._read_on, closing=self.closing)
        self._unsure = None
        if self.last == self._last_before:
            self._outbox.give_back(batch)

    async def _write(self, batch: Sequence[Draft], then: Then, seen: int | None) -> Appended | None:
        # bound here for all tries: one that arrives late must not pass for a new one
        decide = partial(self._decide, drafts=batch, then=then, expect=Expect(last=self.last, seen=seen))
        pauses = iter(PAUSES_SECONDS)
        while True:
            try:
                decision = await self.log.commit(self.ref, decide)
            except Unavailable as error:
                if error.outcome == "unknown":
                    self._doubt()
                if self.lost or self.closing():
                    raise self._lost() from None
                await asyncio.sleep(next(pauses, PAUSES_SECONDS[-1]))
            else:
                return await self._take_in(decision)

    def _decide(
        self,
        session: Session | None,
        known: Known | None,
        now: int,
        *,
        drafts: Sequence[Draft],
        then: Then,
        expect: Expect,
    ) -> Decision[Appended]:
        return append(session, now, lease=self.lease, drafts=drafts, then=then, expect=expect)

    async def _take_in(self, decision: Decision[Appended]) -> Appended | None:
        if isinstance(decision, Fenced):
            raise self._lost()
        if isinstance(decision, Refusal):
            if decision.code in ("unread", "owes"):
                return None
            # the answer to an earlier try was lost, and what it would have told is this: it had been written
            await patiently(self._read_on, closing=self.closing)
            return Appended(self.session, self.lease, ())
        events = decision.result.events
        if events and events[0].seq > self.head + 1:
            await patiently(self._read_on, closing=self.closing)
        self.note(events)
        self.session = decision.result.session
        self._hub.announce(self.ref, self.session, events)
        return decision.result

    async def _read_on(self) -> None:
        while not self.over and (events := await self.log.read(self.ref, after=self.head, limit=READ_EVENTS)):
            self.note(events)

    def _check(self, drafts: Sequence[Draft]) -> None:
        """A step that was under way when its turn began to be undone is not recorded."""
        made = (isinstance(draft.data, ItemDone) and draft.data.step is not None for draft in drafts)
        if self.journal.undoing is not None and any(made):
            raise TurnOver

    def lose(self) -> None:
        """The session has another owner: nothing can be written any more."""
        self.lost = True
        self.on_news()

    def _lost(self) -> LeaseLost:
        self.lose()
        return LeaseLost()
