"""Transactional tools: what one writes and the record of it are one commit, made once.

A database that breaks under a tool's transaction is no error of the tool's, whatever the tool makes of it: nothing was
applied, or the record tells that it was. The turn waits for the database, looks, and runs the tool again. Only a tool
that outlives its own time is told so.
"""

import asyncio
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from itertools import chain, repeat
from typing import TypeAlias, TypeVar

from dalsegno.core.append import Decide, Decision, Draft
from dalsegno.core.session import replace
from dalsegno.errors import LeaseLost, TookTooLong, Unavailable, Unreadable
from dalsegno.ports import Call, Tool, Transaction, Transactions
from dalsegno.runtime.outcome import Outcome, failed, outcome_of
from dalsegno.runtime.patience import PAUSES_SECONDS, patiently, seen_through
from dalsegno.runtime.recorder import Recorder
from dalsegno.runtime.tiers import Tiers

R = TypeVar("R")
Put: TypeAlias = Callable[[], Awaitable[None]]
Drafted: TypeAlias = Callable[[str, Outcome], tuple[Draft, Put | None]]


class Watched:
    """A transaction that remembers what broke it: a tool may catch the error, and go on as if nothing had been."""

    def __init__(self, inner: Transaction) -> None:
        self.broken: Unavailable | Unreadable | None = None
        self._inner = inner

    async def execute(self, statement: str, parameters: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        """See port `Transaction`."""
        if self.broken is not None:
            raise self.broken
        try:
            return await self._inner.execute(statement, parameters)
        except (Unavailable, Unreadable) as error:
            self.broken = error
            raise

    async def commit(self, decide: Decide[R]) -> Decision[R]:
        """See port `Transaction`."""
        return await self._inner.commit(decide)


class _Owed(Exception):
    """The cold tier did not take what has to be there before the output may be written."""

    def __init__(self, put: Put) -> None:
        super().__init__()
        self.put = put


class Transactor:
    """Runs one turn's transactional tools."""

    def __init__(self, recorder: Recorder, *, tiers: Tiers, store: Transactions) -> None:
        self._recorder = recorder
        self._log = tiers.log
        self._closing = tiers.closing
        self._store = store

    async def run(self, tool: Tool, call: Call, draft: Drafted) -> Outcome | None:
        """None once the output is on record, together with what the tool wrote. Otherwise nothing of it was applied,
        and this is what the model is to be told. `draft` makes the record, and says what has to be put into the cold
        tier before it may be written.
        """
        return await self._until(tool, call, self._recorder.journal.outputs, draft)

    async def undo(self, tool: Tool, call: Call, record: Callable[[Outcome], Draft]) -> Outcome | None:
        """The same of a call's compensation, which `tool` runs; `record` makes the record of it."""
        return await self._until(tool, call, self._recorder.journal.undone, lambda _, made: (record(made), None))

    async def _until(self, tool: Tool, call: Call, known: Container[str], drafted: Drafted) -> Outcome | None:
        pauses = chain(PAUSES_SECONDS, repeat(PAUSES_SECONDS[-1]))
        while call.id not in known:
            try:
                return await self._once(tool, call, drafted)
            except TookTooLong as error:
                return failed(str(error))
            except _Owed as owed:
                # Not inside: no transaction is held while the cold tier is away (law 8).
                await seen_through(patiently(owed.put, closing=self._closing))
            except Unavailable:
                if self._closing():
                    raise LeaseLost from None
                await asyncio.sleep(next(pauses))
                await self._look()
        return None

    async def _once(self, tool: Tool, call: Call, drafted: Drafted) -> Outcome | None:
        async with AsyncExitStack() as stack:
            if self._store.alone:
                await stack.enter_async_context(self._recorder.shut_out())
            limit = timedelta(seconds=tool.timeout_seconds)
            opening = self._store.transaction(self._recorder.ref, timeout=limit)
            inner = await stack.enter_async_context(opening)
            watched = Watched(inner)
            made = await outcome_of(tool, replace(call, transaction=watched))
            if watched.broken is not None:
                raise watched.broken
            if made.status != "completed":
                return made
            draft, put = drafted(call.id, made)
            if put is not None:
                await _try(put)
            await self._recorder.append_with(inner.commit, draft)
        return None

    async def _look(self) -> None:
        """Once the log answers again: what became of the last try?"""
        await patiently(partial(self._log.load, self._recorder.ref), closing=self._closing)
        self._recorder.poke()
        await self._recorder.settle()


async def _try(put: Put) -> None:
    try:
        await seen_through(put())
    except Unavailable as error:
        raise _Owed(put) from error
