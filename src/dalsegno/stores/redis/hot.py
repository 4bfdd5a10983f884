"""The ports `Hot` and `Cache` on Redis (7.0 or newer) and Valkey: open steps behind a fence, hints by publish and
subscribe, and what is kept near, on a connection of its own: it is large, and what is being said must not wait for it.

A session's step is one stream (`lua/redis_hot/step.lua`), and every change is one script, in which the server itself
refuses a stale epoch. Plain XADD with ids `epoch-n` would refuse a zombie, too, and costs a server 2 µs instead of 8;
but it cannot tell a repetition from a zombie, keep what a take-over continues, replace a step, bound it, or let it
expire in the same command. There is no second key for the state: a server that evicts keys takes all or nothing.

A server that loses its memory has lost the fences in it as well: until the new owner publishes, a zombie may begin a
step there. Readers compare its epoch with the log's, and nothing else depends on it (P10).
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import msgspec
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from dalsegno.core.stream import Piece
from dalsegno.errors import ConfigError, DalsegnoError, LeaseLost, Unavailable
from dalsegno.ports import Batch, Failures, Hint, OpenStep, Ref
from dalsegno.stores.each import each
from dalsegno.stores.ears import Ears
from dalsegno.stores.redis.ear import Ear
from dalsegno.stores.redis.entries import Entries
from dalsegno.stores.redis.line import HASTY, Manners
from dalsegno.stores.redis.place import Place, parse
from dalsegno.stores.redis.route import Route, route_to
from dalsegno.stores.redis.scripts import run
from dalsegno.stores.redis.steps import Asked, Steps, portions

LIFETIME = timedelta(minutes=10)
HINTS_TOGETHER = 512
NAME_BYTES = 8
REFUSED, FAILED = 0, -1
OLDEST = 7
_VERSION = re.compile(rb"redis_version:(\d+)")

R = TypeVar("R")


class RedisHot:
    """One replica's handle. Make it with `open`."""

    def __init__(self, place: Place, steps: Steps, manners: Manners) -> None:
        self._route = route = route_to(place, manners)
        self._aside = route_to(place, manners)
        self._seconds = manners.answer_seconds
        self._steps = steps
        self._entries = Entries(place.namespace)
        # Channels do not belong to a database, keys do.
        self._channels = [f"{place.namespace}:{place.db}:hints:{n}".encode() for n in range(route.channels)]
        self._name = secrets.token_bytes(NAME_BYTES)
        """Begins each message, so that nobody takes its own apart: it has told itself."""
        self._home = Ears[Hint]()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(tuple[Hint, ...]).decode

    @classmethod
    async def open(cls, url: str, *, lifetime: timedelta = LIFETIME, manners: Manners = HASTY) -> "RedisHot":
        """The hot tier of that URL. Nobody has to be there yet: it may be lost at any moment, also the first.

        Raises `ConfigError` for a URL that says nothing, a password that is refused, or a server that is too old.
        """
        place = parse(url)
        hot = cls(place, Steps(place.namespace, lifetime), manners)
        await _check(hot._route, manners.answer_seconds)
        return hot

    async def publish(self, batches: Sequence[Batch]) -> Failures:
        """See port `Hot`. One server is asked once for all of them; of a cluster's, each for its own."""
        if self._route.whole:
            return await self._in_time(self._publish(batches))
        return await each(self._publish_one, batches)

    async def _publish_one(self, ref: Ref, epoch: int, pieces: Sequence[Piece]) -> None:
        failed = await self._in_time(self._publish([Batch(ref, epoch, pieces)]))
        if ref in failed:
            raise failed[ref]

    async def _publish(self, batches: Sequence[Batch]) -> Failures:
        failed: dict[Ref, DalsegnoError | LeaseLost] = {}
        for portion in portions(batches):
            keys = [self._steps.key(batch.ref) for batch in portion]
            taken = await _run(self._route, keys, self._steps.publish(portion))
            for (ref, epoch, _), answer in zip(portion, taken, strict=True):
                if answer == REFUSED:
                    failed[ref] = LeaseLost(f"session {ref.id} has a newer epoch than {epoch}")
                elif answer == FAILED:
                    failed[ref] = Unavailable(f"the hot tier cannot keep the open step of session {ref.id}")
        return failed

    async def fence(self, ref: Ref, epoch: int) -> OpenStep | None:
        """See port `Hot`."""
        shown = await self._ask(ref, self._steps.fence(epoch))
        if shown == REFUSED:
            raise LeaseLost(f"session {ref.id} has a newer epoch than {epoch}")
        return self._steps.shown(shown)

    async def read(self, ref: Ref, *, base: int = 0, after: int = 0) -> OpenStep | None:
        """See port `Hot`."""
        shown = await self._ask(ref, self._steps.read(base, after))
        return self._steps.shown(shown, base=base, after=after)

    async def clear(self, ref: Ref, epoch: int) -> None:
        """See port `Hot`. A stale epoch's clear does nothing: the step is somebody else's by now."""
        await self._ask(ref, self._steps.clear(epoch))

    async def tell(self, hints: Sequence[Hint]) -> None:
        """See port `Hot`. What is said at once travels together, in one message a channel."""
        self._home.tell(hints)
        together: dict[bytes, list[Hint]] = {}
        for hint in hints:
            together.setdefault(self._channel(hint), []).append(hint)
        messages = (
            self._route.ask(channel, self._route.publish, channel, self._said(said[first : first + HINTS_TOGETHER]))
            for channel, said in together.items()
            for first in range(0, len(said), HINTS_TOGETHER)
        )
        for reply in await self._in_time(asyncio.gather(*messages)):
            _accepted(reply)

    @asynccontextmanager
    async def listen(self, heard: Callable[[Hint], None]) -> AsyncIterator[None]:
        """See port `Hot`. What is said once it has been entered is heard, if the servers answer."""

        def understood(message: bytes) -> None:
            if message.startswith(self._name):
                return
            with suppress(msgspec.MsgspecError):
                for hint in self._decode(message[NAME_BYTES:]):
                    heard(hint)

        ears = [Ear(self._route, channel, understood) for channel in self._channels]
        listening = [asyncio.create_task(ear.run()) for ear in ears]
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await asyncio.gather(*(ear.open.wait() for ear in ears))
            with self._home.listen(heard):
                yield
        finally:
            for task in listening:
                task.cancel()
            await asyncio.wait(listening)

    async def put(self, ref: Ref, name: str, version: int, content: bytes, *, keep: timedelta) -> None:
        """See port `Cache`."""
        asked = self._entries.put(name, version, content, keep)
        if asked is not None:
            await self._in_time(_run(self._aside, [self._entries.key(ref)], asked))

    async def get(self, ref: Ref, name: str) -> tuple[int, bytes] | None:
        """See port `Cache`."""
        asked = self._entries.get(name)
        return self._entries.found(await self._in_time(_run(self._aside, [self._entries.key(ref)], asked)))

    async def forget(self, ref: Ref) -> None:
        """See port `Cache`."""
        await self._in_time(_run(self._aside, [self._entries.key(ref)], self._entries.forget()))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._route.close()
        await self._aside.close()

    def _said(self, hints: Sequence[Hint]) -> bytes:
        return self._name + self._encode(hints)

    def _channel(self, hint: Hint) -> bytes:
        if len(self._channels) == 1:
            return self._channels[0]
        return self._channels[key_slot(hint.session.encode()) % len(self._channels)]

    async def _ask(self, ref: Ref, asked: Asked) -> Any:
        return await self._in_time(_run(self._route, [self._steps.key(ref)], asked))

    async def _in_time(self, asking: Awaitable[R]) -> R:
        try:
            async with asyncio.timeout(self._seconds):
                return await asking
        except TimeoutError:
            raise Unavailable("the hot tier did not answer in time") from None


async def _run(route: Route, keys: Sequence[bytes], asked: Asked) -> Any:
    """A script's reply; with several keys only where one server answers for all."""
    script, words = asked
    return _accepted(await run(route, script, keys, words))


def _accepted(reply: Any) -> Any:
    """The reply, if it is no error."""
    if isinstance(reply, ResponseError):
        raise Unavailable(f"the hot tier refuses: {reply}", outcome="not_applied")
    return reply


async def _check(route: Route, seconds: float) -> None:
    """Ask whoever is there who they are; if nobody is there, that may be so."""
    try:
        async with asyncio.timeout(seconds):
            connection = await route.dial(b"")
            try:
                await connection.send_command("INFO", "server")
                told: bytes = await connection.read_response()
            finally:
                await connection.disconnect(nowait=True)
    except (AuthenticationError, AuthorizationError) as error:
        raise ConfigError("the hot tier refuses the user or the password") from error
    except (RedisError, OSError, TimeoutError, Unavailable):
        return
    version = _VERSION.search(told)
    if version is not None and int(version[1]) < OLDEST:
        raise ConfigError(f"the hot tier is Redis {version[1].decode()}; it has to be {OLDEST} or newer")
