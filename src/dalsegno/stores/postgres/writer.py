"""Sends what is to be written. What comes while others are on their way goes together, in one statement and one commit.

Each statement costs this process and the server a round, whatever it carries, and each commit a sync of the disk.

While few want to write, those on their way counted, nobody waits for company. Of a crowd, those that go together wait
together and then think together, and all would soon be one crowd that leaves first the server idle and then this
process: so of those that wait while nothing is on its way, half go, and the other half when these are back.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeAlias

import psycopg
from psycopg.pq.abc import PGresult

from dalsegno.errors import DalsegnoError, Unavailable
from dalsegno.stores import sqlfile
from dalsegno.stores.clock import Clock
from dalsegno.stores.outlast import Certain
from dalsegno.stores.postgres.arrays import numbers
from dalsegno.stores.postgres.connections import Connection, Connections
from dalsegno.stores.postgres.failure import is_worth_another_try
from dalsegno.stores.postgres.rows import LONE, MANY, Change, lone, many
from dalsegno.stores.postgres.wire import Wire

FLIGHTS_MAX = 2
"""How many statements are on their way at the same time: the server works at one while this process makes the next."""
SLOW_SECONDS = 0.05
TOGETHER_MAX = 64
CROWD_MIN = 16
"""Fewer than that are no crowd."""
TRIES = 3

Waiting: TypeAlias = tuple[Change, "Certain[bool]"]


class Writer:
    """Writes changes of sessions that there are; each for itself, though they may share a commit."""

    def __init__(self, connections: Connections, clock: Clock) -> None:
        self._connections = connections
        self._clock = clock
        statements = sqlfile.statements("postgres")
        self._alone = Wire("dalsegno_write_one", statements["session_write_one"], LONE)
        self._together = Wire("dalsegno_write", statements["session_write"], MANY)
        self._waiting: deque[Waiting] = deque()
        self._flying = self._aboard = 0
        """How many are on their way, and of how many changes those are that went together."""
        self._quiet = True
        """Whether no crowd wanted to write when the last ones went, those on their way counted: of a crowd, one that
        goes alone costs as much as all that could have gone with it.
        """
        self._round_comes = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(self, change: Change) -> bool:
        """Whether it was written: the row was still the one that was decided on.

        Who is cancelled is told so when it is. Nobody brings two changes of a session at once.
        """
        if self._quiet and self._flying < FLIGHTS_MAX and not self._waiting:
            with self._flight():
                return await self._send_one(change)
        future: Certain[bool] = Certain()
        self._waiting.append((change, future))
        self._start_next_round()
        return await future

    @contextlib.contextmanager
    def _flight(self) -> Iterator[None]:
        """One of the few that are on their way. One that is slow, since it waits for a lock, keeps nobody back."""
        self._flying += 1
        counted = True

        def land() -> None:
            nonlocal counted
            if counted:
                counted = False
                self._flying -= 1
                self._start_next()

        late = asyncio.get_running_loop().call_later(SLOW_SECONDS, land)
        try:
            yield
        finally:
            late.cancel()
            land()

    def _start_next_round(self) -> None:
        """What is brought during one round of the loop goes together."""
        if self._flying < FLIGHTS_MAX and not self._round_comes:
            self._round_comes = True
            asyncio.get_running_loop().call_soon(self._round)

    def _round(self) -> None:
        self._round_comes = False
        self._start_next()

    def _start_next(self) -> None:
        if self._waiting and self._flying < FLIGHTS_MAX:
            self._quiet = self._aboard + len(self._waiting) < CROWD_MIN
            together = [self._waiting.popleft() for _ in range(self._room())]
            self._aboard += len(together)
            task = asyncio.create_task(self._fly(together))
            self._tasks.add(task)
            task.add_done_callback(partial(self._landed, together))

    def _landed(self, together: list[Waiting], task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._aboard -= len(together)
        # Cancelled before it began, as the loop ends: those who wait hear of no cancellation but this.
        _fail(together, asyncio.CancelledError())
        self._start_next()

    def _room(self) -> int:
        """How many go now."""
        waiting = min(len(self._waiting), TOGETHER_MAX)
        return waiting if self._flying or waiting < CROWD_MIN else (waiting + 1) // 2

    async def _fly(self, together: list[Waiting]) -> None:
        # In order of their rows: two processes that lock the same rows do not wait for each other.
        together.sort(key=lambda waiting: waiting[0].kept.n)
        try:
            with self._flight():
                written = await self._send([change for change, _ in together])
        except Unavailable as error:
            if error.outcome == "unknown":
                _fail(together, error)
            else:
                await self._one_by_one(together)
        except DalsegnoError:
            await self._one_by_one(together)
        except BaseException as error:
            _fail(together, error)
            raise
        else:
            # The next ones are on their way by now: these may think.
            for change, future in together:
                future.set_result(change.kept.n in written)

    async def _one_by_one(self, together: Sequence[Waiting]) -> None:
        """Nothing was written: what one of them cannot have must not keep the others from theirs."""

        async def alone(change: Change, future: Certain[bool]) -> None:
            try:
                future.set_result(await self._send_one(change))
            except DalsegnoError as error:
                future.set_exception(error)
            except BaseException as error:
                _fail([(change, future)], error)
                raise

        await asyncio.gather(*(alone(*waiting) for waiting in together))

    async def _send(self, changes: list[Change]) -> list[int]:
        """The numbers of the sessions that were written."""
        parameters = many(changes)
        async with self._connections.lent(lost="unknown") as connection:
            result = await self._together.execute(connection, parameters)
        self._hear(result)
        return numbers(result.get_value(0, 0))

    async def _send_one(self, change: Change) -> bool:
        parameters = lone(change)
        async with self._connections.lent(lost="unknown") as connection:
            result = await self._answer(connection, parameters)
        self._hear(result)
        return result.get_value(0, 0) is not None

    def _hear(self, result: PGresult) -> None:
        now = result.get_value(0, 1)
        assert now is not None
        self._clock.hear(int.from_bytes(now, "big"))

    async def _answer(self, connection: Connection, parameters: list[bytes | None]) -> PGresult:
        for _ in range(TRIES - 1):
            try:
                return await self._alone.execute(connection, parameters)
            except psycopg.Error as error:
                if not is_worth_another_try(error):
                    raise
        return await self._alone.execute(connection, parameters)


def _fail(together: Sequence[Waiting], error: BaseException) -> None:
    for _, future in together:
        if not future.done():
            future.set_exception(error)
