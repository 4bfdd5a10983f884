"""Everything a client can ask of a replica, in the contract's words. `http` speaks it over the wire, tests speak it
directly.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import timedelta
from functools import partial

import msgspec

from dalsegno.core.admit import Admission, Receipt
from dalsegno.core.append import Decide, Write
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import (
    TERMINAL,
    Event,
    Origin,
    SessionCreated,
)
from dalsegno.core.ids import turn_number
from dalsegno.core.input import Input, key_for
from dalsegno.core.json import JsonObject
from dalsegno.core.lifecycle import artifact_of, create, delete, moved_event, replay, update
from dalsegno.core.session import Session
from dalsegno.core.stream import Composer
from dalsegno.core.tier import parse_artifact
from dalsegno.core.turn import Turn
from dalsegno.core.view import conversation, view
from dalsegno.errors import DalsegnoError, Refused, Unreadable
from dalsegno.ports import Blobs, Ids, Page, Query, Ref, Warm
from dalsegno.runtime.replica import Replica, result_of
from dalsegno.runtime.stream import Stream, open_stream

READ_EVENTS = 1000
HEALTH_SECONDS = 2.0


class Health(msgspec.Struct, frozen=True):
    """How a replica is. `tiers` says `ok` or what is wrong; `degraded` names the tiers that are not `ok`."""

    ready: bool
    draining: bool
    replica: str
    turns: int
    tiers: dict[str, str]
    degraded: list[str]


class Service:
    """One replica's answers. Every method may raise `Refused`, `Unavailable` or `Unreadable`."""

    def __init__(self, replica: Replica, *, warm: Warm, blobs: Blobs, ids: Ids) -> None:
        self._replica = replica
        self._warm = warm
        self._blobs = blobs
        self._ids = ids

    @property
    def draining(self) -> bool:
        """Whether the replica is on its way out."""
        return self._replica.draining

    async def create(self, tenant: str, *, id: str | None, opening: SessionCreated) -> Session:
        """A new session. Raises `Refused("session_exists")` if the id is taken."""
        ref = Ref(tenant, id or self._ids.session())
        return await self._write(ref, partial(create, ref=ref, opening=opening))

    async def get(self, ref: Ref) -> Session:
        """The session as it is now."""
        session = await self._warm.load(ref)
        if session is None or session.deleted:
            raise Refused("not_found", "no such session")
        return session

    async def list(self, tenant: str, query: Query) -> Page:
        """A page of the tenant's sessions."""
        return await self._warm.list(tenant, query)

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
        events = [event async for event in self._whole(ref, upto)]
        fork = Ref(ref.tenant, self._ids.session())
        await self._copy_artifacts(ref, fork, events)
        first = SessionCreated(parent.agent, parent.user, parent.metadata, Origin(ref.id, upto))
        moved = [moved_event(event, fork, first if event.seq == 1 else None) for event in events]
        return await self._write(fork, partial(replay, ref=fork, events=moved, by="fork"))

    async def restore(self, tenant: str, events: Sequence[Event], *, id: str | None = None) -> Session:
        """A session from an export. Turns that were open in it are cancelled: their replica is elsewhere."""
        ref = Ref(tenant, id or self._ids.session())
        try:
            return await self._write(ref, partial(replay, ref=ref, events=events, by="import"))
        except Unreadable as error:
            raise Refused("invalid_request", f"not an export of a session: {error}") from error

    async def items(self, ref: Ref, *, after: int, limit: int) -> tuple[Sequence[JsonObject], int | None]:
        """A page of the conversation after event `after`, and the event to continue after, if there may be more."""
        session = await self.get(ref)
        events = await self._warm.read(ref, after=after, limit=limit)
        last = events[-1].seq if events else session.head
        return conversation(session, events), last if last < session.head else None

    async def admit(
        self, ref: Ref, said: Input, *, key: str | None = None, opening: SessionCreated | None = None
    ) -> Receipt:
        """Put an input on record."""
        keyed = key_for(key, said) if key is not None else None
        admission = Admission(ref.tenant, ref.id, said, keyed, opening=opening)
        return (await self._replica.admit(admission)).receipt

    async def turn(self, ref: Ref, turn: str, *, wait: timedelta = timedelta()) -> Turn:
        """The turn; with `wait`, once it has ended or waits for somebody, or that time is over."""
        session = await self.get(ref)
        first = self._number(session, turn)
        if wait and (running := session.turn(first)) is not None and running.state != "waiting":
            session = await self._wait(ref, first, wait)
        events: list[Event] = []
        async for event in self._whole(ref, session.head, after=first - 1):
            if event.turn == first:
                events.append(event)
                if event.type in TERMINAL:
                    break
        if not events:
            raise Refused("not_found", "no such turn in this session")
        return view(session, first, events)

    async def events(self, ref: Ref, *, after: int, limit: int) -> Sequence[Event]:
        """A page of the log."""
        session = await self.get(ref)
        if after > session.head:
            raise Refused("cursor_ahead", f"the session ends at {session.head}")
        return await self._warm.read(ref, after=after, limit=limit)

    async def follow(self, ref: Ref, *, after: Cursor | None, turn: str | None = None) -> Stream:
        """A stream from a cursor (None = from now on), of the session or of one of its turns."""
        session = await self.get(ref)
        cursor = Cursor(session.head) if after is None else after
        if cursor.seq > session.head:
            raise Refused("cursor_ahead", f"the session ends at {session.head}")
        first = None if turn is None else self._number(session, turn)
        composer = Composer(cursor, turn=first)
        if first is not None and session.turn(first) is None:
            composer.ended = await self._last(ref, first, session) <= cursor.seq
        return open_stream(ref, composer, session=session, log=self._warm, hub=self._replica.hub)

    async def artifact(self, tenant: str, artifact: str) -> bytes:
        """The bytes of an artifact of one of the tenant's sessions."""
        pointer = parse_artifact(artifact)
        content = None
        if pointer is not None:
            await self.get(Ref(tenant, pointer.session))
            content = await self._blobs.get(f"{tenant}/{pointer.session}/{pointer.sha256}")
        if content is None:
            raise Refused("not_found", "no such artifact")
        return content

    async def health(self) -> Health:
        """How this replica is, looked up now: each tier is asked for something that is not there."""
        nothing = Ref("health", "none")
        tiers = {
            "warm": await _state_of(self._warm.members()),
            "hot": await _state_of(self._replica.hot.read(nothing)),
            "cold": await _state_of(self._blobs.get(f"health/{'0' * 64}")),
        }
        degraded = [name for name, state in tiers.items() if state != "ok"]
        ready = tiers["warm"] == "ok" and not self.draining
        return Health(ready, self.draining, self._replica.member.id, self._replica.turns, tiers, degraded)

    async def _write(self, ref: Ref, decide: Decide[Session]) -> Session:
        decision = await self._warm.commit(ref, decide)
        session = result_of(decision)
        if isinstance(decision, Write):
            self._replica.hub.announce(ref, session, decision.events)
        return session

    def _number(self, session: Session, turn: str) -> int:
        number = turn_number(session.id, turn)
        if number is None or number > session.head:
            raise Refused("not_found", "no such turn in this session")
        return number

    async def _last(self, ref: Ref, first: int, session: Session) -> int:
        """The number of an ended turn's last event."""
        async for event in self._whole(ref, session.head, after=first - 1):
            if event.seq == first and event.type != "turn.created":
                break
            if event.turn == first and event.type in TERMINAL:
                return event.seq
        raise Refused("not_found", "no such turn in this session")

    async def _wait(self, ref: Ref, first: int, wait: timedelta) -> Session:
        session = await self.get(ref)
        feed = self._replica.hub.attach(ref, session)
        try:
            async with asyncio.timeout(wait.total_seconds()):
                while (turn := session.turn(first)) is not None and turn.state != "waiting":
                    seen = feed.version
                    session = await self.get(ref)
                    if session.turn(first) == turn:
                        await feed.changed(seen)
        except TimeoutError:
            session = await self.get(ref)
        finally:
            self._replica.hub.detach(feed)
        return session

    async def _whole(self, ref: Ref, upto: int, *, after: int = 0) -> AsyncIterator[Event]:
        while after < upto:
            events = await self._warm.read(ref, after=after, limit=READ_EVENTS)
            if not events:
                raise Unreadable(f"session {ref.id} ends at {after}, not at {upto}")
            for event in events:
                if event.seq <= upto:
                    yield event
            after = events[-1].seq

    async def _copy_artifacts(self, source: Ref, target: Ref, events: Sequence[Event]) -> None:
        for event in events:
            artifact = artifact_of(event)
            if artifact is not None:
                content = await self._blobs.get(f"{source.tenant}/{source.id}/{artifact.sha256}")
                if content is None:
                    raise Unreadable(f"artifact {artifact} is missing")
                await self._blobs.put(f"{target.tenant}/{target.id}/{artifact.sha256}", content)


async def _state_of(question: Awaitable[object]) -> str:
    """`ok`, or what the tier said instead of an answer."""
    try:
        await asyncio.wait_for(question, timeout=HEALTH_SECONDS)
    except (DalsegnoError, TimeoutError) as error:
        return str(error) or type(error).__name__
    return "ok"
