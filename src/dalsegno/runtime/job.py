"""A job: a program's long work, step by step. What is on record is not done again, in whichever process it goes on.

Decides nothing about records (`core.job` does).
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from secrets import token_hex
from typing import Any, Protocol, TypeVar, cast

from dalsegno.core import job as jobs
from dalsegno.core.json import Json, JsonObject, checked
from dalsegno.errors import Conflict, DalsegnoError, Unavailable
from dalsegno.runtime.patience import PAUSES_SECONDS, seen_through
from dalsegno.runtime.presence import Presence

R = TypeVar("R")
_WITHIN: ContextVar[frozenset[tuple["Job", str]]] = ContextVar("dalsegno_job_steps", default=frozenset())
"""The steps that this happens in."""


class Log(Protocol):
    """A store, as far as a job needs it."""

    async def append(
        self, session: str, items: Sequence[JsonObject], *, expect: int | None = None, key: str | None = None
    ) -> int: ...

    async def read(self, session: str, *, after: int = 0, limit: int = 1000) -> Any: ...


class Pen:
    """A job's log as one process knows it, and the only way that it writes there."""

    def __init__(self, log: Log, session: str, presence: Presence) -> None:
        self.session = session
        self.job = jobs.Job()
        self._version = 0
        self._log = log
        self._presence = presence
        self._owner = ""
        self._lock = asyncio.Lock()
        self._unsure: deque[tuple[str, Sequence[JsonObject]]] = deque()
        """What the log has not answered to, with its key: whatever is written next is written behind it."""

    async def look(self) -> jobs.Job:
        """The job as it is now; one whose owner died has none."""
        await self._read()
        owner = self.job.owner
        if owner and not await self._presence.alive(owner):
            # It may have written its last before it went.
            await self._read()
            if self.job.owner == owner:
                self.job = jobs.orphaned(self.job)
        return self.job

    async def take(self) -> None:
        """Become the owner. Raises `Conflict` if somebody else is it, or was faster."""
        if self.job.owner:
            raise Conflict("session_busy", f"{self.session} is run by {self.job.owner}, which is alive")
        doubt = self.job.doubt  # if nothing comes of it, there is as much doubt as before
        self._owner = await self._presence.take()
        try:
            await self.write(jobs.taken(self._owner))
        except BaseException:
            if self._unsure:
                self._unsure.append((token_hex(16), [jobs.left(self._owner, doubt=doubt)]))
                self._presence.linger(self._owner, self._settled)
            elif self.job.owner == self._owner:  # it was written, and who wanted it was cancelled meanwhile
                with suppress(Conflict, Unavailable):
                    await self.leave(doubt=doubt)
            else:
                self._presence.drop(self._owner)
            raise

    async def write(self, *records: JsonObject) -> None:
        """Append behind all that is known here. Raises `Conflict` if the log went on without us.

        Who is cancelled meanwhile is told so once it is known what was written: otherwise nothing could follow it.
        """
        await seen_through(self._write(records))

    async def _write(self, records: Sequence[JsonObject]) -> None:
        async with self._lock:
            self._unsure.append((token_hex(16), records))
            await self._settle()

    async def _settle(self) -> None:
        """Write what is unsure, in its order. The keys tell what was written before."""
        while self._unsure:
            key, records = self._unsure[0]
            try:
                self._version = await self._append(records, key)
            except Unavailable:
                raise
            except DalsegnoError:
                self._unsure.popleft()
                if not self._unsure:  # the caller's own; whoever brought one before it was told that nobody knows
                    raise
            else:
                self._unsure.popleft()
                jobs.fold(records, self.job)

    async def _append(self, records: Sequence[JsonObject], key: str) -> int:
        for pause in PAUSES_SECONDS:
            with suppress(Unavailable):
                return await self._log.append(self.session, records, expect=self._version, key=key)
            await asyncio.sleep(pause)
        return await self._log.append(self.session, records, expect=self._version, key=key)

    async def _settled(self) -> None:
        async with self._lock:
            await self._settle()

    async def _read(self) -> None:
        while (found := await self._log.read(self.session, after=self._version)).last != self._version:
            jobs.fold((record.item for record in found.records), self.job)
            self._version = found.last

    async def leave(self, *records: JsonObject, doubt: str = "") -> None:
        """Write the last records, and let the job go. When the log does not answer, it is let go as soon as it does."""
        try:
            await self.write(*records, jobs.left(self._owner, doubt=doubt))
        finally:
            if self._unsure:
                self._presence.linger(self._owner, self._settled)
            else:
                self._presence.drop(self._owner)


class Job:
    """A job that this process owns until it leaves the block. Whoever took it over meanwhile, because this process was
    taken for dead, makes every later `step` raise `Conflict`.
    """

    def __init__(self, pen: Pen) -> None:
        self._pen = pen
        self._under_way: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def results(self) -> Mapping[str, Json]:
        """What is on record, by the names of the steps."""
        return dict(self._pen.job.results)

    async def step(self, name: str, function: Callable[..., Awaitable[R]], *arguments: Any) -> R:
        """What the step of that name came to: from the record, else by calling `function`, whose JSON is recorded.

        A crash in the middle of a step runs it again. What it raises is not recorded. Steps may run side by side; one
        that is asked for while it runs waits for what it comes to.
        """
        results, within = self._pen.job.results, _WITHIN.get()
        if name not in results and (self, name) in within:
            raise DalsegnoError(f"step {name!r} asks for itself")
        async with self._under_way[name]:
            if name not in results:
                token = _WITHIN.set(within | {(self, name)})
                try:
                    result = checked(await function(*arguments))
                finally:
                    _WITHIN.reset(token)
                await self._pen.write(jobs.recorded(name, result))
            return cast(R, results[name])


@asynccontextmanager
async def run_job(pen: Pen) -> AsyncIterator[Job]:
    """Take the job, and leave it at the end, finished or not: the next who takes it goes on from its record.

    Raises `Conflict` if a living process has it.
    """
    await pen.look()
    await pen.take()
    try:
        yield Job(pen)
    finally:
        with suppress(Conflict, Unavailable):
            await pen.leave()
