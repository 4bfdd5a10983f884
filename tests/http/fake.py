"""A small honest service for tests of `http`: the core's decisions over dictionaries. Agents are played by the test."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from dalsegno.core import codec
from dalsegno.core.admit import Admission, Receipt, admit
from dalsegno.core.append import Draft, Keep, Known, Refusal, Write, append, record
from dalsegno.core.claim import claim
from dalsegno.core.context import message_items
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import (
    TERMINAL,
    Event,
    ItemDone,
    Origin,
    SessionCreated,
    SessionDeleted,
    SessionUpdated,
    TurnCompleted,
    TurnCreated,
)
from dalsegno.core.ids import item_id, turn_id, turn_number
from dalsegno.core.input import Input, Message, key_for
from dalsegno.core.item import message, opened
from dalsegno.core.json import JsonObject
from dalsegno.core.lease import Lease
from dalsegno.core.session import Session, apply, fold
from dalsegno.core.stream import Composer, Frame, Piece
from dalsegno.core.turn import Turn
from dalsegno.errors import Refused, Unavailable, Unreadable
from dalsegno.ports import Page, Query, Ref


@dataclass
class Shape:
    """What `health` answers."""

    ready: bool = True
    draining: bool = False
    replica: str = "r1"
    tiers: dict[str, str] = field(default_factory=lambda: {"warm": "ok"})
    degraded: list[str] = field(default_factory=list)


class FakeStream:
    """Composes frames from the fake's lists; `lost` makes it fail as a lost store would."""

    def __init__(self, service: "FakeService", ref: Ref, composer: Composer) -> None:
        self.ended = composer.ended
        self.shared = True
        self.closed = False
        self._service = service
        self._ref = ref
        self._composer = composer
        self._ready: list[Frame] = []

    def __aiter__(self) -> "FakeStream":
        return self

    async def __anext__(self) -> Frame:
        service, composer = self._service, self._composer
        while not self._ready:
            bell = service.bell
            if service.lost is not None:
                raise service.lost
            if composer.ended:
                raise StopAsyncIteration
            for event in service.logs[self._ref][composer.cursor.seq :]:
                if not composer.ended:
                    self._ready += composer.durable(event)
            self._ready += composer.live(service.pieces.get(self._ref, []))
            if not self._ready and not composer.ended:
                await bell.wait()
        return self._ready.pop(0)

    async def aclose(self) -> None:
        self.closed = True


class FakeService:
    """Everything `http.needs.Service` asks. `fault` is raised by every method, `lost` by every open stream."""

    def __init__(self) -> None:
        self.draining = False
        self.fault: BaseException | None = None
        self.lost: BaseException | None = None
        self.shape = Shape()
        self.sessions: dict[Ref, Session] = {}
        self.logs: dict[Ref, list[Event]] = {}
        self.keys: dict[tuple[Ref, bytes], Known] = {}
        self.pieces: dict[Ref, list[Piece]] = {}
        self.artifacts: dict[tuple[str, str], bytes] = {}
        self.streams: list[FakeStream] = []
        self.bell = asyncio.Event()
        self._ids = (f"0198f0c2-7d1e-7c3a-9b52-{n:012x}" for n in itertools.count(1))
        self._clock = itertools.count(1_795_000_000_000, 7)

    # ------------------------------------------------------------------------ the contract

    async def create(self, tenant: str, *, id: str | None, opening: SessionCreated) -> Session:
        self._check()
        ref = Ref(tenant, id or next(self._ids))
        if ref in self.sessions:
            raise Refused("session_exists", "there is one already")
        return self._record(Session(id=ref.id, tenant=tenant), ref, [Draft(opening)])

    async def get(self, ref: Ref) -> Session:
        self._check()
        session = self.sessions.get(ref)
        if session is None or session.deleted:
            raise Refused("not_found", f"no such session: {ref.id}")
        return session

    async def list(self, tenant: str, query: Query) -> Page:
        self._check()
        mine = sorted(
            (s for ref, s in self.sessions.items() if ref.tenant == tenant and not s.deleted), key=lambda s: s.id
        )
        found = [
            s
            for s in mine
            if s.id > query.after
            and query.status in ("", s.status)
            and query.user in (None, s.user)
            and all(s.metadata.get(name) == value for name, value in query.metadata.items())
        ]
        page = found[: query.limit]
        return Page(tuple(page), page[-1].id if len(found) > query.limit else None)

    async def update(self, ref: Ref, metadata: JsonObject, *, head: int | None) -> Session:
        session = await self.get(ref)
        if head not in (None, session.head):
            raise Refused("version_mismatch", f"the head is {session.head}")
        return self._record(session, ref, [Draft(SessionUpdated(metadata))])

    async def delete(self, ref: Ref) -> None:
        self._record(await self.get(ref), ref, [Draft(SessionDeleted())])

    async def fork(self, ref: Ref, *, at: int | None) -> Session:
        session = await self.get(ref)
        upto = session.head if at is None else at
        if not 1 <= upto <= session.head:
            raise Refused("invalid_request", "`at` is an event of the session")
        first = SessionCreated(session.agent, session.user, session.metadata, Origin(ref.id, upto))
        events = self.logs[ref][:upto]
        copied = [Event(1, "session.created", None, events[0].at, codec.encode(first)), *events[1:]]
        return await self.restore(ref.tenant, copied)

    async def restore(self, tenant: str, events: Sequence[Event]) -> Session:
        self._check()
        ref = Ref(tenant, next(self._ids))
        self.sessions[ref], self.logs[ref] = fold(ref.id, tenant, events), [*events]
        return self.sessions[ref]

    async def items(self, ref: Ref, *, after: int, limit: int) -> tuple[Sequence[JsonObject], int | None]:
        session = await self.get(ref)
        found = []
        events = self.logs[ref][after : after + limit]
        for event in events:
            data = codec.decode(event)
            if isinstance(data, ItemDone):
                found.append(data.item)
            elif isinstance(data, TurnCreated):
                found += message_items(data.input, session=ref.id, turn=event.turn or 0, seq=event.seq)
        return found, events[-1].seq if events and events[-1].seq < session.head else None

    async def admit(
        self, ref: Ref, said: Input, *, key: str | None = None, opening: SessionCreated | None = None
    ) -> Receipt:
        self._check()
        keyed = key_for(key, said) if key is not None else None
        known = self.keys.get((ref, keyed.digest)) if keyed else None
        admission = Admission(ref.tenant, ref.id, said, keyed, opening=opening)
        decision = admit(self.sessions.get(ref), known, next(self._clock), admission=admission)
        if isinstance(decision, Refusal):
            raise Refused(decision.code, decision.detail)
        if isinstance(decision, Write):
            self._store(ref, decision.session, decision.events)
            for digest, remembered in decision.keys:
                self.keys.setdefault((ref, digest), remembered)
        assert isinstance(decision, Write | Keep)
        return decision.result.receipt

    async def turn(self, ref: Ref, turn: str, *, wait: timedelta) -> Turn:
        session = await self.get(ref)
        first = self._turn(session, turn)
        try:
            async with asyncio.timeout(wait.total_seconds()):
                while wait and self.sessions[ref].turn(first) is not None:
                    await self.bell.wait()
        except TimeoutError:
            pass
        events = [event for event in self.logs[ref] if event.turn == first]
        ends: dict[str, str] = {name: name.removeprefix("turn.") for name in TERMINAL}
        still = self.sessions[ref].turn(first)
        status = still.state if still else ends[events[-1].type]
        done = [codec.decode(event) for event in events]
        output = tuple(data.item for data in done if isinstance(data, ItemDone))
        return Turn(turn, ref.id, status, 1, first, events[-1].seq, (), output, None, None)  # type: ignore[arg-type]

    async def events(self, ref: Ref, *, after: int, limit: int) -> Sequence[Event]:
        await self.get(ref)
        return self.logs[ref][after : after + limit]

    async def follow(self, ref: Ref, *, after: Cursor | None, turn: str | None = None) -> FakeStream:
        session = await self.get(ref)
        cursor = Cursor(session.head) if after is None else after
        if cursor.seq > session.head:
            raise Refused("cursor_ahead", f"the head is {session.head}")
        first = None if turn is None else self._turn(session, turn)
        composer = Composer(cursor, turn=first)
        if first is not None and session.turn(first) is None:
            last = max(event.seq for event in self.logs[ref] if event.turn == first)
            composer.ended = last <= cursor.seq
        self.streams.append(FakeStream(self, ref, composer))
        return self.streams[-1]

    async def artifact(self, tenant: str, artifact: str) -> bytes:
        self._check()
        if (tenant, artifact) not in self.artifacts:
            raise Refused("not_found", f"no artifact {artifact}")
        return self.artifacts[tenant, artifact]

    async def health(self) -> Shape:
        self._check()
        return self.shape

    # ------------------------------------------------------------------------ what tests play

    def take(self, ref: Ref) -> Lease:
        """Begin to run the session's oldest turn."""
        decision = claim(self.sessions[ref], next(self._clock), owner="r1")
        assert isinstance(decision, Write)
        self._store(ref, decision.session, decision.events)
        assert decision.result.lease is not None
        return decision.result.lease

    def write(self, ref: Ref, lease: Lease, *drafts: Draft) -> None:
        """Append to the turn that the lease is for."""
        decision = append(self.sessions[ref], next(self._clock), lease=lease, drafts=drafts)
        assert isinstance(decision, Write), decision
        self._store(ref, decision.session, decision.events)

    def show(self, ref: Ref, lease: Lease, item: JsonObject, *texts: str) -> None:
        """Publish pieces of the open step: the item, then its text."""
        base, at, offset = self.sessions[ref].head, 1, 0
        pieces = [Piece(base, 0, lease.turn, str(item["id"]), item=opened(item))]
        for text in texts:
            pieces.append(Piece(base, at, lease.turn, str(item["id"]), field="text", offset=offset, delta=text))
            at, offset = at + len(text), offset + len(text)
        self.pieces[ref] = pieces
        self._ring()

    def answer(self, ref: Ref, *texts: str) -> None:
        """Run the oldest turn to its end: one streamed message."""
        lease = self.take(ref)
        item = self.reply(ref, lease, "".join(texts))
        self.show(ref, lease, item, *texts)
        self.finish(ref, lease, item)

    def reply(self, ref: Ref, lease: Lease, text: str) -> JsonObject:
        """The message with which the turn answers."""
        return message(text, item_id=item_id(turn_id(ref.id, lease.turn), "message", "1.1"))

    def finish(self, ref: Ref, lease: Lease, item: JsonObject) -> None:
        """Record the streamed item and complete the turn."""
        self.pieces.pop(ref, None)
        done = ItemDone(item, step="model#1", streamed=True)
        self.write(ref, lease, Draft(done, lease.turn), Draft(TurnCompleted(None), lease.turn))
        self.sessions[ref] = fold(ref.id, ref.tenant, self.logs[ref])

    def break_streams(self) -> None:
        """The store is gone."""
        self.lost = Unavailable("the store does not answer")
        self._ring()

    def corrupt(self) -> None:
        """The log cannot be read."""
        self.fault = Unreadable("event 3 has a wrong checksum")

    async def say(self, ref: Ref, text: str, *, key: str | None = None) -> Receipt:
        """What a client would do over HTTP."""
        return await self.admit(ref, Message(text), key=key, opening=SessionCreated())

    def _record(self, session: Session, ref: Ref, drafts: Sequence[Draft]) -> Session:
        session, events = record(session, drafts, next(self._clock))
        self._store(ref, session, events)
        return session

    def _store(self, ref: Ref, session: Session, events: Sequence[Event]) -> None:
        before = self.sessions.get(ref, Session(id=ref.id, tenant=ref.tenant))
        for event in events:
            before = apply(before, event, codec.decode(event))
        self.sessions[ref] = session
        self.logs.setdefault(ref, []).extend(events)
        self._ring()

    def _ring(self) -> None:
        self.bell.set()
        self.bell = asyncio.Event()

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault

    def _turn(self, session: Session, turn: str) -> int:
        number = turn_number(session.id, turn)
        if number is None or number > session.head:
            raise Refused("not_found", f"no such turn: {turn}")
        return number
