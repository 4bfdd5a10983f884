"""One connection to one server, shared by everybody: what is asked while an exchange is under way leaves together in
the next. That costs a quarter of the CPU time of a pool of connections, and nobody waits for one.

A connection that breaks is made again. What was on it is sent once more where that is wanted (`Manners`).
A server that answers too late is treated as one that is gone: its connection is closed, so that nothing piles up.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

from hiredis import pack_command
from redis.asyncio.connection import Connection
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from dalsegno.errors import Unavailable
from dalsegno.stores.breaker import PAUSE_SECONDS, Breaker

ANSWER_SECONDS = 0.2
DIAL_SECONDS = 0.4
TELLING = (ReadOnlyError, OutOfMemoryError, ClusterDownError, NoPermissionError)
"""Errors that say something about the server, and not about what it was asked."""

Word: TypeAlias = str | bytes | int
Dial: TypeAlias = Callable[[], Awaitable[Connection]]
"""Makes a connection that is ready to be used."""


class Manners(NamedTuple):
    """How a server is asked. With two `sendings` everything may arrive twice. `copies`: on how many replicas what was
    done has to be before it is answered for. `pause_seconds`: how long a server that fails is left alone; whoever only
    refuses with one of `failing` counts as one that fails, too.
    """

    answer_seconds: float = ANSWER_SECONDS
    dial_seconds: float = DIAL_SECONDS
    pause_seconds: float = PAUSE_SECONDS
    sendings: int = 2
    copies: int = 0
    failing: tuple[type[RedisError], ...] = TELLING


HASTY = Manners()


class Call:
    """A command, and who waits for its reply."""

    __slots__ = ("reply", "sent", "words")

    def __init__(self, words: tuple[Word, ...]) -> None:
        self.words: tuple[Any, ...] = words
        self.reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.sent = 0

    def answer(self, reply: Any) -> None:
        """Hand over the reply, unless nobody waits any more."""
        if not self.reply.done():
            self.reply.set_result(reply)

    def fail(self, reason: str) -> None:
        """Say that there will be none."""
        if not self.reply.done():
            self.reply.set_exception(Unavailable(reason, outcome="unknown" if self.sent else "not_applied"))


class Line:
    """Asks one server, in order. An error that the server answers with is a reply like any other, and is returned."""

    def __init__(self, dial: Dial, manners: Manners = HASTY) -> None:
        self._dial = dial
        self._manners = manners
        self._breaker = Breaker(manners.pause_seconds)
        self._connection: Connection | None = None
        self._waiting: deque[Call] = deque()
        self._exchanging: asyncio.Task[None] | None = None
        self._closed = False

    def ask(self, *words: Word) -> asyncio.Future[Any]:
        """The reply, some time. `Unavailable` when there is none; at once while the server is left alone."""
        call = Call(words)
        if self._closed or not self._breaker.admits():
            call.fail("the server does not answer: it is left alone for a moment")
            return call.reply
        self._waiting.append(call)
        if self._exchanging is None or self._exchanging.done():
            self._exchanging = asyncio.get_running_loop().create_task(self._exchange())
        return call.reply

    async def close(self) -> None:
        """Let go of the connection; who still waits is told."""
        self._closed = True
        if self._exchanging is not None:
            self._exchanging.cancel()
            await asyncio.wait([self._exchanging])
        self._give_up("the connection was closed")
        await self._hang_up()

    async def _exchange(self) -> None:
        """Send what waits and read the replies, until nothing waits."""
        while self._waiting:
            calls: deque[Call] = deque()
            try:
                connection = await self._connected()
                calls = self._next()
                if not calls:  # an empty write keeps the loop of Python 3.12 and 3.13 turning: it never counts as done
                    continue
                async with asyncio.timeout(self._manners.answer_seconds):
                    await self._converse(connection, calls)
            except (TimeoutError, RedisTimeoutError):
                await self._broken(calls, "no answer in time")
            except BusyLoadingError:
                for call in calls:
                    call.sent = 0  # a server that loads its data has done nothing
                await self._broken(calls, "the server is loading its data")
            except (RedisError, OSError) as error:
                if calls and all(call.sent < self._manners.sendings for call in calls):
                    await self._hang_up()
                    self._waiting.extendleft(reversed(calls))
                else:
                    await self._broken(calls, f"the connection broke: {_why(error)}")
            except asyncio.CancelledError:
                self._waiting.extendleft(reversed(calls))
                raise

    async def _connected(self) -> Connection:
        if self._connection is None:
            async with asyncio.timeout(self._manners.dial_seconds):
                self._connection = await self._dial()
        return self._connection

    def _next(self) -> deque[Call]:
        calls = deque(call for call in self._waiting if not call.reply.done())
        self._waiting.clear()
        return calls

    async def _converse(self, connection: Connection, calls: deque[Call]) -> None:
        """One pipeline. A call leaves the queue when its reply is here."""
        for call in calls:
            call.sent += 1
        packed = b"".join(pack_command(call.words) for call in calls)
        if self._manners.copies:
            wait = round(self._manners.answer_seconds * 500)
            words: tuple[Any, ...] = ("WAIT", self._manners.copies, wait)
            packed += pack_command(words)
        try:
            await connection.send_packed_command(packed, check_health=False)
        except (AttributeError, TypeError) as error:
            # Python 3.12 and 3.13 do not notice that the connection is gone (python/cpython#136234).
            raise ConnectionResetError("the connection is gone") from error
        writable = True
        replies: list[tuple[Call, Any]] = []
        for call in list(calls):
            reply = await _reply(connection)
            writable = writable and not isinstance(reply, ReadOnlyError)
            if isinstance(reply, self._manners.failing):
                self._breaker.failed()
            else:
                self._breaker.succeeded()
            if self._manners.copies:
                replies.append((call, reply))
            else:
                calls.popleft().answer(reply)
        if replies:
            self._answer_surely(replies, await _reply(connection))
            calls.clear()
        if not writable:
            # It has become a replica. Whoever is the primary now may be found under the same name.
            await self._hang_up()

    def _answer_surely(self, replies: list[tuple[Call, Any]], reached: Any) -> None:
        """What was refused is refused; what was done is done if so many replicas have it, and else nobody knows."""
        for call, reply in replies:
            if isinstance(reply, ResponseError) or (isinstance(reached, int) and reached >= self._manners.copies):
                call.answer(reply)
            else:
                call.fail(f"it has not reached {self._manners.copies} replicas")

    async def _broken(self, calls: deque[Call], reason: str) -> None:
        self._breaker.failed()
        await self._hang_up()
        for call in calls:
            call.fail(reason)
        self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        while self._waiting:
            self._waiting.popleft().fail(reason)

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


async def _reply(connection: Connection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as refusal:
        return refusal


def _why(error: Exception) -> str:
    """What the system says. What a server says may repeat what it was told, a password for instance."""
    told = error if isinstance(error, OSError) else error.__context__
    return str(told) if isinstance(told, OSError) else type(error).__name__
