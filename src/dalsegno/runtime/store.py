"""The store: sessions for an agent that runs outside. It loads what a model is shown, and appends to it.

The sessions are those that `dalsegno serve` over the same tiers serves, in the same log, under the same promises: who
is served later, or was before, finds the conversation. Decides nothing (`core.bring` does).
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from functools import partial
from secrets import token_hex
from typing import ParamSpec, TypeVar

import msgspec

from dalsegno.core.append import Decision, Write
from dalsegno.core.bring import Added, Brought, bring, key_of, parse_items
from dalsegno.core.context import Transcript
from dalsegno.core.effect import Finding
from dalsegno.core.event import EffectClass, Event, SessionCreated
from dalsegno.core.ids import session_named
from dalsegno.core.job import JOB
from dalsegno.core.json import JsonObject
from dalsegno.core.lifecycle import delete
from dalsegno.core.move import present
from dalsegno.core.session import Session
from dalsegno.core.view import records, said, summary_of
from dalsegno.errors import Conflict, Refused, Unavailable, Unreadable
from dalsegno.ports import Blobs, Hint, Hot, Query, Ref, Warm
from dalsegno.runtime.decided import result_of
from dalsegno.runtime.eraser import Eraser
from dalsegno.runtime.job import Job, Pen, run_job
from dalsegno.runtime.near import Near
from dalsegno.runtime.once import Decorator, Once, Rules
from dalsegno.runtime.presence import Presence
from dalsegno.runtime.texts import Texts

R = TypeVar("R")
P = ParamSpec("P")
READ_EVENTS = 1000
PAGE = 200
ATTEMPTS = 12
WAIT = timedelta(minutes=1)
FIRST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 2.0
CONFLICTS = frozenset({"version_mismatch", "session_busy"})


class Loaded(msgspec.Struct, frozen=True):
    """What a model is to be shown of a session, as Open Responses items, and the session's version, for `append`."""

    items: list[JsonObject]
    version: int


class Record(msgspec.Struct, frozen=True):
    """One item of a session's log, and the number of its event."""

    seq: int
    item: JsonObject


class Records(msgspec.Struct, frozen=True):
    """Items of a part of a session's log, and its last event: to go on behind. Nothing follows if it is `after`."""

    records: list[Record]
    last: int


class Shelves(msgspec.Struct, frozen=True):
    """Where a store's sessions are: the three tiers, the tenant whose they are, and the agent that they are for."""

    warm: Warm
    hot: Hot
    cold: Blobs
    tenant: str
    agent: str


Answer = Callable[[Loaded], Awaitable[Sequence[JsonObject]]]


class Store:
    """A tenant's sessions. A session goes by its id, or by any other name of at most 1,024 bytes (see `id_of`).

    Every method may raise `Refused` (what was asked is not so; nothing was applied), `Unavailable` (a tier did not
    answer; its `outcome` says whether something may have been applied) and `Unreadable`.
    """

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves
        self._log = shelves.warm
        self._texts = Texts(shelves.cold)
        self._presence = Presence(shelves.warm)
        self._near = Near(shelves.hot)
        self._eraser = Eraser(shelves.warm, shelves.cold, self._near, shelves.hot)

    def id_of(self, session: str) -> str:
        """The id that the session has everywhere else. The id of a name is always the same, in every store: whoever
        knows the name knows the id. No id lets anybody in; the tenant does.
        """
        return session_named(session)

    async def load(self, session: str) -> Loaded:
        """The context of a session, whole. A session that nobody began is empty, and at version 0."""
        found = await self._found(session)
        if found is None:
            return Loaded([], 0)
        transcript = Transcript(found.id, head=found.through, removed=found.removed)
        async for event in self._events(found, after=found.through):
            transcript.add(event)
        return Loaded(list(transcript.context().items), found.head)

    async def append(
        self, session: str, items: Sequence[JsonObject], *, expect: int | None = None, key: str | None = None
    ) -> int:
        """Add items in one commit, and return the session's new version; a session that nobody began begins.

        With `expect`, only to that version: `Conflict` if there is another, or a turn is open. With `key`, once: the
        same items under the same key change nothing more and return the first answer. Without it an append whose
        outcome is unknown must not be repeated blindly: load, and look.
        """
        data = parse_items(items)
        keyed = None if key is None else key_of(key, data)
        return await self._bring(session, Brought(self._tenant, session_named(session), data, expect, keyed))

    async def update(self, session: str, answer: Answer, *, attempts: int = ATTEMPTS) -> int:
        """Load, call `answer`, append what it returns; all of it again when somebody else was faster or has a turn
        open. Returns the new version.

        `answer` may be called several times. Pauses grow up to 2 s, with jitter. Raises the last `Conflict`.
        """
        for attempt in range(attempts - 1):
            with suppress(Conflict):
                return await self._answer(session, answer)
            pause = min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
        return await self._answer(session, answer)

    async def head(self, session: str) -> int:
        """The session's version; 0 for one that nobody began."""
        found = await self._found(session)
        return 0 if found is None else found.head

    async def read(self, session: str, *, after: int = 0, limit: int = READ_EVENTS) -> Records:
        """The items among `limit` events behind event `after`: also those that no model is shown, without what was
        removed.
        """
        found = await self._found(session)
        if found is None or found.head <= after:
            return Records([], after)
        events = await self._page(found, after=after, limit=min(limit, found.head - after))
        held = [Record(event.seq, item) for event in events for item in records(found, event)]
        return Records(held, events[-1].seq)

    async def pop(self, session: str) -> JsonObject | None:
        """Remove the conversation's last item, and return it; None if there is none. Raises `Conflict`."""
        found = await self._found(session)
        if found is None:
            return None
        last: tuple[int, list[JsonObject]] = (0, [])
        async for event in self._events(found, after=found.through):
            items = summary_of(event) if event.seq == found.summary and not last[1] else said(found, event)
            last = (event.seq, items) if items else last
        seq, items = last
        if not items:
            return None
        after = 0 if seq == found.summary else seq - 1
        await self._bring(session, Brought(self._tenant, found.id, parse_items(items[:-1]), found.head, after=after))
        return items[-1]

    async def clear(self, session: str) -> int:
        """Remove all that the conversation had, and return the new version. Raises `Conflict` while a turn is open."""
        if await self._found(session) is None:
            return 0
        return await self._bring(session, Brought(self._tenant, session_named(session), after=0))

    async def delete(self, session: str) -> None:
        """End the session for good. Its id, and so its name, is never used again."""
        ref = self._ref(session)
        decision = await self._log.commit(ref, delete)
        try:
            self._result(decision)
        finally:
            await self._eraser.erase(ref)

    async def sessions(self, metadata: JsonObject) -> AsyncIterator[Session]:
        """The sessions whose metadata holds all of that, in order of id."""
        after: str | None = ""
        while after is not None:
            page = await self._log.list(self._tenant, Query(after=after, limit=PAGE, metadata=metadata))
            for session in page.sessions:
                if not session.moved:
                    yield session
            after = page.next

    def job(self, name: str) -> AbstractAsyncContextManager[Job]:
        """Take the job of that name, or go on with it: `async with store.job("import-42") as job`.

        Raises `Conflict` if a living process has it. Its record is the session `job:NAME`.
        """
        return run_job(self._pen(f"{JOB}{name}"))

    def idempotent(
        self,
        name: str,
        *,
        key: Callable[..., str] | None = None,
        effect: EffectClass = "once",
        probe: Callable[..., Awaitable[Finding]] | None = None,
        wait: timedelta = WAIT,
    ) -> Decorator:
        """A decorator: the async function runs once for each key, by default for each set of arguments.

        `name` stays the same when the function is renamed: calls are on record under it, in sessions `call:NAME:KEY`.
        `effect` is what a call does to the world, as a tool's: `read` and `keyed` are called again if their process
        died, `once` only if `probe`, given the same arguments, finds that it did not happen. A parameter that is called
        `idempotency_key` is given a key to forward.
        """
        rules = Rules(self._tenant, key, effect, probe, wait)

        def decorate(function: Callable[P, Awaitable[R]]) -> Once[P, R]:
            return Once(function, rules, name=name, pen=self._pen)

        return decorate

    async def close(self) -> None:
        """Let go of what is under way."""
        await self._near.close()
        with suppress(Unavailable):
            await self._presence.leave()

    @property
    def _tenant(self) -> str:
        return self._shelves.tenant

    def _pen(self, session: str) -> Pen:
        return Pen(self, session, self._presence)

    def _ref(self, session: str) -> Ref:
        return Ref(self._tenant, session_named(session))

    async def _answer(self, session: str, answer: Answer) -> int:
        loaded, key = await self.load(session), token_hex(16)
        items = await answer(loaded)
        try:
            return await self.append(session, items, expect=loaded.version, key=key)
        except Unavailable:
            # Whether it was applied or not: the key says so.
            return await self.append(session, items, expect=loaded.version, key=key)

    async def _bring(self, session: str, brought: Brought) -> int:
        metadata: JsonObject = {} if session_named(session) == session.lower() else {"name": session}
        brought = msgspec.structs.replace(brought, opening=SessionCreated(self._shelves.agent, metadata=metadata))
        return (await self._texts.bring(brought, log=self._log, write=self._write)).head

    async def _write(self, brought: Brought) -> Added:
        ref, digest = Ref(brought.tenant, brought.session), brought.key.digest if brought.key else None
        decision = await self._log.commit(ref, partial(bring, brought=brought), digest=digest)
        added = self._result(decision)
        if isinstance(decision, Write):
            with suppress(Unavailable):
                await self._shelves.hot.tell([Hint(ref.tenant, ref.id, head=added.head)])
        return added

    def _result(self, decision: Decision[R]) -> R:
        try:
            return result_of(decision)
        except Refused as refused:
            if refused.code in CONFLICTS:
                raise Conflict(refused.code, refused.detail) from None
            raise

    async def _found(self, session: str) -> Session | None:
        found = await self._log.load(self._ref(session))
        if found is not None and found.deleted:
            raise Refused("not_found", "the session was deleted")
        return None if found is None else present(found)

    async def _events(self, session: Session, *, after: int) -> AsyncIterator[Event]:
        """The log behind `after` up to the head that was loaded, with all texts."""
        while after < session.head:
            for event in await self._page(session, after=after, limit=min(READ_EVENTS, session.head - after)):
                yield event
                after = event.seq

    async def _page(self, session: Session, *, after: int, limit: int) -> Sequence[Event]:
        ref = Ref(session.tenant, session.id)
        events = await self._log.read(ref, after=after, limit=limit)
        if not events or events[0].seq != after + 1:
            await self._found(session.id)  # it may have been deleted meanwhile
            raise Unreadable(f"session {session.id}: its log has no event {after + 1}")
        return await self._texts.whole(ref.tenant, events)
