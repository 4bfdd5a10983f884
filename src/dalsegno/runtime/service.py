"""Everything a client can ask of a replica, in the contract's words. `http` speaks it over the wire, tests speak it
directly.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import partial

from dalsegno.core import codec
from dalsegno.core.admit import Admission, Receipt
from dalsegno.core.append import ELSEWHERE, Decide, Write
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import TERMINAL, Event, Origin, SessionCreated
from dalsegno.core.ids import turn_number
from dalsegno.core.input import Approval, Input, ToolResult, key_for
from dalsegno.core.json import JsonObject
from dalsegno.core.lifecycle import create, delete, missing_text, moved_event, own_artifact, replay, update
from dalsegno.core.move import expected, present
from dalsegno.core.session import Session, apply
from dalsegno.core.stream import Composer
from dalsegno.core.tier import Artifact, parse_artifact
from dalsegno.core.turn import Turn
from dalsegno.core.view import conversation, view
from dalsegno.errors import Refused, Unavailable, Unreadable
from dalsegno.ports import Blobs, Ids, Page, Query, Ref, Warm
from dalsegno.runtime.decided import result_of
from dalsegno.runtime.feed import Feed
from dalsegno.runtime.health import Health, is_ready, look
from dalsegno.runtime.reading import has_waited, pages
from dalsegno.runtime.replica import Replica
from dalsegno.runtime.stream import Stream, open_stream
from dalsegno.runtime.watch import Watches


class Service:
    """One replica's answers. Every method may raise `Refused`, `Unavailable` or `Unreadable`."""

    def __init__(self, replica: Replica, *, warm: Warm, blobs: Blobs, ids: Ids, watches: Watches | None = None) -> None:
        self._replica = replica
        self._warm = warm
        self._blobs = blobs
        self._texts = replica.texts
        self._ids = ids
        self._watches = watches or Watches()
        self._settling = replica.tuning.settling
        """Sessions are still on their way to this store: one that is not here may be in the other, and none begins."""

    @property
    def draining(self) -> bool:
        """Whether the replica is on its way out."""
        return self._replica.draining

    async def create(self, tenant: str, *, id: str | None, opening: SessionCreated) -> Session:
        """A new session. Raises `Refused("session_exists")` if the id is taken."""
        ref = Ref(tenant, id or self._ids.session())
        return await self._begin(ref, partial(create, ref=ref, opening=opening))

    async def get(self, ref: Ref) -> Session:
        """The session as it is now."""
        session = await self._warm.load(ref)
        if session is None and self._settling:
            raise Unavailable(ELSEWHERE.detail, outcome="not_applied")
        if session is None or session.deleted:
            raise Refused("not_found", "no such session")
        return present(session)

    async def list(self, tenant: str, query: Query) -> Page:
        """A page of the tenant's sessions; those that moved to another store are listed there."""
        page = await self._warm.list(tenant, query)
        return Page(tuple(session for session in page.sessions if not session.moved), page.next)

    async def update(self, ref: Ref, metadata: JsonObject, *, head: int | None) -> Session:
        """Replace the metadata; with `head`, only if that is still the session's last event."""
        return await self._write(ref, partial(update, metadata=metadata, head=head))

    async def delete(self, ref: Ref) -> None:
        """End the session for good: its turns are fenced off, its events, keys and artifacts removed.

        What cannot be removed now does not undo the deletion: the fleet removes it later, or a repeated request, which
        says `not_found` like all others.
        """
        try:
            await self._write(ref, delete)
        finally:
            await self._replica.eraser.erase(ref)

    async def fork(self, ref: Ref, *, at: int | None) -> Session:
        """A new session that begins with this one's log up to event `at`; turns that are open there are cancelled."""
        parent = await self.get(ref)
        upto = parent.head if at is None else at
        if not 1 <= upto <= parent.head:
            raise Refused("invalid_request", f"`at` must be an event of the session: 1 to {parent.head}")
        events = [event async for page in pages(self._read, ref, through=upto) for event in page]
        fork = Ref(ref.tenant, self._ids.session())
        self._refuse_new()
        first = SessionCreated(parent.agent, parent.user, parent.metadata, Origin(ref.id, upto))
        own = {event.seq: artifact for event in events if (artifact := own_artifact(event, ref.id)) is not None}
        moved = [moved_event(event, fork, None) if event.seq in own else event for event in events]
        moved[0] = moved_event(events[0], fork, first)
        if own:
            # What is copied before its log is written is found again by this, should we die half-way.
            await self._write(fork, partial(replay, ref=fork, events=moved[:1], by="fork"))
        try:
            await self._copy_artifacts(ref, fork, own.values())
            return await self._begin(fork, partial(replay, ref=fork, events=moved, by="fork"))
        except Unavailable:
            # Perhaps it took so long that it was given up, and erased before all of this was put.
            await self._replica.eraser.again(fork, closing=lambda: True)
            raise

    async def restore(self, tenant: str, events: Sequence[Event], *, id: str | None = None) -> Session:
        """A session from an export. Turns that were open in it are cancelled: their replica is elsewhere."""
        ref = Ref(tenant, id or self._ids.session())
        if any(missing_text(event) is not None for event in events):
            raise Refused("invalid_request", "not an export of a session: it lacks texts")
        try:
            return await self._begin(ref, partial(replay, ref=ref, events=events, by="import"))
        except Unreadable as error:
            raise Refused("invalid_request", f"not an export of a session: {error}") from error

    async def items(self, ref: Ref, *, after: int, limit: int) -> tuple[Sequence[JsonObject], int | None]:
        """A page of the conversation after event `after`, and the event to continue after, if there may be more."""
        session = self._not_ahead(await self.get(ref), after)
        events = await self._read(ref, after=after, limit=limit)
        last = events[-1].seq if events else session.head
        whole = await self._with_texts(ref, events)
        return conversation(session, whole), last if last < session.head else None

    async def admit(
        self, ref: Ref, said: Input, *, key: str | None = None, opening: SessionCreated | None = None
    ) -> Receipt:
        """Put an input on record."""
        keyed = key_for(key, said) if key is not None else None
        admission = Admission(ref.tenant, ref.id, said, keyed, opening=opening, settling=self._settling)
        try:
            return (await self._texts.admit(admission, log=self._warm, admit=self._replica.admit)).receipt
        except Refused as refused:
            if refused.code != "no_such_action" or not isinstance(said, Approval | ToolResult):
                raise
            if await has_waited(self._read, await self.get(ref), said):
                raise Refused("already_decided", f"{said.call_id} has been decided, or its turn has ended") from None
            raise

    async def turn(self, ref: Ref, turn: str, *, wait: timedelta = timedelta()) -> Turn:
        """The turn; with `wait`, once it has ended or waits for somebody, or that time is over."""
        session = await self.get(ref)
        first = self._number(session, turn)
        if wait and (running := session.turn(first)) is not None and running.state != "waiting":
            session = await self._wait(ref, session, first, wait)
        events = await self._of_turn(ref, first, session)
        if not events:
            raise Refused("not_found", "no such turn in this session")
        return view(session, first, await self._with_texts(ref, events))

    async def events(self, ref: Ref, *, after: int, limit: int) -> Sequence[Event]:
        """A page of the log."""
        self._not_ahead(await self.get(ref), after)
        return await self._with_texts(ref, await self._read(ref, after=after, limit=limit))

    async def follow(self, ref: Ref, *, after: Cursor | None, turn: str | None = None) -> Stream:
        """A stream from a cursor (None = from now on), of the session or of one of its turns."""
        session = await self.get(ref)
        cursor = Cursor(session.head) if after is None else after
        self._not_ahead(session, cursor.seq)
        first = None if turn is None else self._number(session, turn)
        composer = Composer(cursor, turn=first)
        if first is not None and session.turn(first) is None:
            composer.ended = await self._last(ref, first, session) <= cursor.seq
        hub, texts = self._replica.hub, self._texts
        return open_stream(ref, composer, session=session, log=self._warm, hub=hub, texts=texts)

    async def artifact(self, tenant: str, artifact: str) -> bytes:
        """The bytes of an artifact of one of the tenant's sessions."""
        pointer = parse_artifact(artifact)
        content = None
        if pointer is not None:
            await self.get(Ref(tenant, pointer.session))
            content = await self._blobs.get(pointer.name(tenant))
        if content is None:
            raise Refused("not_found", "no such artifact")
        return content

    async def health(self) -> Health:
        """How this replica is, looked up now."""
        watches, replica = self._watches, self._replica
        found = await look(
            {
                "warm": (watches.warm, self._warm.members()),
                "hot": (watches.hot, replica.hot.read(Ref("health", "none"))),
                "cold": (watches.cold, self._blobs.get(f"health/{'0' * 64}")),
            }
        )
        tiers = {str(tier): one.words for tier, one in found.items()}
        degraded = [tier for tier, one in found.items() if one.state != "ok"]
        ready = is_ready(found) and not self.draining
        return Health(ready, self.draining, replica.member.id, replica.turns, tiers, [*degraded])

    async def _begin(self, ref: Ref, decide: Decide[Session]) -> Session:
        self._refuse_new()
        return await self._write(ref, decide)

    def _refuse_new(self) -> None:
        """The replicas of the store that the others come from would not know of a session that began here."""
        if self._settling:
            raise Unavailable("sessions are still moving to this store, and begin in the other", outcome="not_applied")

    async def _write(self, ref: Ref, decide: Decide[Session]) -> Session:
        if self._settling:
            decide = partial(expected, decide=decide)
        decision = await self._warm.commit(ref, decide)
        session = result_of(decision)
        if isinstance(decision, Write):
            self._replica.hub.announce(ref, session, decision.events)
        return session

    def _not_ahead(self, session: Session, after: int) -> Session:
        if after > session.head:
            raise Refused("cursor_ahead", f"the session ends at {session.head}")
        return session

    def _number(self, session: Session, turn: str) -> int:
        number = turn_number(session.id, turn)
        if number is None or number > session.head:
            raise Refused("not_found", "no such turn in this session")
        return number

    async def _of_turn(self, ref: Ref, first: int, session: Session) -> Sequence[Event]:
        """The events of the turn that began at `first`: nothing behind its end is read."""
        found: list[Event] = []
        async with aclosing(pages(self._read, ref, through=session.head, after=first - 1)) as reading:
            async for page in reading:
                for event in page:
                    if event.turn == first:
                        found.append(event)
                        if event.type in TERMINAL:
                            return found
                    elif event.seq == first:
                        return found  # no turn begins there
        return found

    async def _last(self, ref: Ref, first: int, session: Session) -> int:
        """The number of an ended turn's last event."""
        events = await self._of_turn(ref, first, session)
        if events and events[-1].type in TERMINAL:
            return events[-1].seq
        raise Refused("not_found", "no such turn in this session")

    async def _wait(self, ref: Ref, session: Session, first: int, wait: timedelta) -> Session:
        """The session once that turn has ended or waits for somebody, or the time is over."""
        feed = self._replica.hub.attach(ref, session)
        try:
            async with asyncio.timeout(wait.total_seconds()):
                while (turn := session.turn(first)) is not None and turn.state != "waiting":
                    seen = feed.version
                    session = await self._further(session, feed)
                    if session.turn(first) == turn and feed.version == seen:
                        await feed.change()
        except TimeoutError:
            session = await self.get(ref)
        finally:
            self._replica.hub.detach(feed)
        return session

    async def _further(self, session: Session, feed: Feed) -> Session:
        """The session as the feed knows it by now; read anew where the feed does not tell, or tells of its end here."""
        events = feed.since(session.head) if feed.head > session.head else ()
        if events is None or feed.failure is not None or any(event.type.startswith("session.") for event in events):
            return await self.get(feed.ref)
        for event in events:
            session = apply(session, event, codec.decode(event))
        return session

    async def _read(self, ref: Ref, *, after: int, limit: int) -> Sequence[Event]:
        """The events behind `after`; a session that is erased meanwhile is not found, and never a shorter one."""
        events = await self._warm.read(ref, after=after, limit=limit)
        if events and events[0].seq != after + 1:
            raise Refused("not_found", "no such session")
        return events

    async def _with_texts(self, ref: Ref, events: Sequence[Event]) -> Sequence[Event]:
        try:
            return await self._texts.whole(ref.tenant, events)
        except Unreadable:
            await self.get(ref)  # it may have been deleted meanwhile
            raise

    async def _copy_artifacts(self, source: Ref, target: Ref, artifacts: Iterable[Artifact]) -> None:
        for artifact in artifacts:
            content = await self._blobs.get(artifact.name(source.tenant))
            if content is None:
                await self.get(source)  # it may have been deleted meanwhile
                raise Unreadable(f"artifact {artifact} is missing")
            copy = Artifact(target.id, artifact.epoch, artifact.sha256)
            await self._blobs.put(copy.name(target.tenant), content)
