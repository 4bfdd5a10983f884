"""Publishes the pieces of open steps: to readers in this process at once, and to the hot tier, each under its epoch.

Losing pieces costs latency only (P10); being refused means that the session has another owner (P4).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context

from dalsegno.core.lease import Lease
from dalsegno.core.stream import Piece
from dalsegno.errors import DalsegnoError
from dalsegno.ports import Batch, Failures, Hot, Ref
from dalsegno.runtime.hub import Hub

log = logging.getLogger("dalsegno.publisher")

News = Callable[[], Sequence[Piece]]
"""What a step has said since the last call."""

PACE_SECONDS = 0.002
"""Between two rounds: a model that says everything at once would otherwise cost one for each word."""
AGAIN_SECONDS = 0.25
LATE_MAX = 1000
"""Pieces that wait for the hot tier to come back; if it stays away, readers elsewhere wait for the item as a whole."""
TOGETHER_MAX = 64
"""How many sessions' pieces go together."""


class Press:
    """One process's. In each round, what its turns have said since the last one is shown here, and sent together.

    A round does not wait for the hot tier: only those wait whose last pieces are still on their way to it.
    """

    def __init__(self, hot: Hot, hub: Hub) -> None:
        self.hub = hub
        self._hot = hot
        self._due: list[Publisher] = []
        self._next = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._comes = False
        """A task is on its way to the next round."""
        self._idle: asyncio.Future[None] | None = None
        """A task waits for something to do."""
        self._stopped = False

    def want(self, publisher: "Publisher") -> None:
        """It has something for the next round: when the loop next comes round, or when it is time."""
        if self._stopped:
            return
        self._due.append(publisher)
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle, self._comes = None, True
        elif not self._comes:
            self._begin()

    async def stop(self) -> None:
        """Publish no more."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self) -> None:
        self._comes = True
        self._start(self._run())

    def _start(self, work: Coroutine[object, object, None]) -> None:
        context = Context()  # not that of the turn that speaks first: it would be held
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._ended, context=context)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the hot tier has a defect", exc_info=error)

    async def _run(self) -> None:
        """Rounds, until another task has begun one meanwhile, because this one waited for the hot tier."""
        loop = asyncio.get_running_loop()
        while True:
            early = self._next - loop.time()
            if early > 0:
                await asyncio.sleep(early)
            self._next = loop.time() + PACE_SECONDS
            await self._send(self._round())
            if self._comes or self._idle is not None:
                return
            self._idle = loop.create_future()
            await self._idle

    def _round(self) -> "list[Publisher]":
        """Those that send something now."""
        due, self._due = self._due[:TOGETHER_MAX], self._due[TOGETHER_MAX:]
        self._comes = False
        if self._due:
            self._begin()
        sending: dict[Ref, Publisher] = {}
        for publisher in due:
            if publisher.ref in sending:  # a session's next turn, behind its last one, or beside a zombie
                self.want(publisher)
            elif publisher.show():
                sending[publisher.ref] = publisher
        if missed := [one for one in sending.values() if one.missed]:
            self._start(self._send(missed))  # where they are kept somebody is away, perhaps: the others do not wait
        return [one for one in sending.values() if not one.missed]

    async def _send(self, sending: "Sequence[Publisher]") -> None:
        failed: Failures | None = None
        try:
            # What cannot be forgotten now is replaced by the next turn's, or expires.
            forgotten = [self._hot.clear(one.ref, one.epoch) for one in sending if not one.sending]
            if forgotten:
                await asyncio.gather(*forgotten, return_exceptions=True)
            batches = [Batch(one.ref, one.epoch, one.sending) for one in sending if one.sending]
            failed = await self._hot.publish(batches) if batches else {}
        except DalsegnoError:
            pass
        finally:  # whatever a tier raises, nobody waits for ever
            for publisher in sending:
                publisher.sent(failed)


class Publisher:
    """One turn's pieces on their way out. What is generated and recorded in one breath is never published at all."""

    def __init__(self, lease: Lease, *, press: Press, on_lost: Callable[[], None]) -> None:
        self.ref = Ref(lease.tenant, lease.session)
        self.epoch = lease.epoch
        self.sending: Sequence[Piece] = ()
        """What is on its way to the hot tier; nothing = it is to forget what it has."""
        self.missed = False
        """What was sent last was not taken."""
        self._press = press
        self._on_lost = on_lost
        self._news: News | None = None
        """The step that is being said; it knows what nobody has been shown."""
        self._unsent: list[Piece] = []
        """What readers here have been shown, and the hot tier is still to be given."""
        self._shown = self._done = self._over = self._settled = False
        """Something of the step is out; a step is whole that was; no more steps; all of them are on record."""
        self._due = self._away = False
        """The press knows that there is something; the hot tier has not answered, or is left alone for a while."""

    def push(self, news: News) -> None:
        """The step has said something: publish what it is, in the next round."""
        if not self._over:
            self._news = news
            self._want()

    def hold(self) -> None:
        """The step is whole and about to be recorded: of one that nobody has been shown, nothing need go."""
        if not self._shown:
            self._news = None

    def close(self) -> None:
        """The step is whole, and soon on record: what is not out yet need not go. In the hot tier the next step takes
        its place, or the turn's end: until it is on record, whoever takes over goes on from there.
        """
        self._news, self._unsent = None, []
        if self._shown:
            self._shown, self._done = False, True

    def leave(self) -> None:
        """The turn is over here: nothing more goes out."""
        self._news, self._unsent, self._over = None, [], True

    def forget(self) -> None:
        """All that was shown is on record: the hot tier is to forget the last of it."""
        self._settled = True
        if self._done:
            self._want()

    def show(self) -> bool:
        """Readers here see what is new; whether the hot tier is to be asked for something now."""
        self._due = False
        pieces = self._news() if self._news is not None else ()
        if pieces:
            self._press.hub.live(self.ref, pieces, epoch=self.epoch)
            self._shown = True
            self._unsent = [*self._unsent, *pieces] if len(self._unsent) < LATE_MAX else []
        if self._away or not self._owes:
            return False
        self._away = True
        self.sending, self._unsent, self._done = self._unsent, [], False
        return True

    def sent(self, failed: Failures | None) -> None:
        """The hot tier has accepted what was being sent, of all but these. None = it did not say."""
        pieces, self.sending = self.sending, ()
        error = failed.get(self.ref) if failed else None
        self.missed = failed is None or isinstance(error, DalsegnoError)
        if self.missed:
            # These go with what comes next, or by themselves: what the hot tier has of a step has no gaps.
            if not (self._done or self._over):
                self._unsent = [*pieces, *self._unsent]
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._back)
            return
        if error is not None:
            self._on_lost()
        elif pieces:
            self._press.hub.published(self.ref, pieces, epoch=self.epoch)
        self._back()

    def _back(self) -> None:
        self._away = False
        if self._owes:
            self._want()

    @property
    def _owes(self) -> bool:
        """Whether the hot tier is to be given something, or to forget what it was."""
        return bool(self._unsent) or (self._done and self._settled)

    def _want(self) -> None:
        if not self._due:
            self._due = True
            self._press.want(self)
