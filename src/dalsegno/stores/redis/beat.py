"""A member's beat: a thread with an event loop and connections of its own renews its records on every server.

A connection stands for its process: the system closes it when the process ends, and peers see the server miss it. Its
id is in the records that it renews. A connection that breaks while we live is made again at once, under another id.
"""

import asyncio
import contextlib
import os
import re
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import msgspec
from hiredis import pack_command
from redis.asyncio.connection import Connection
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from dalsegno.ports import Member
from dalsegno.stores.redis.dial import Dialler
from dalsegno.stores.redis.keys import Layout, Part
from dalsegno.stores.redis.place import Address, Place
from dalsegno.stores.redis.scripts import scripts

AGAIN_SECONDS = 0.05
BEGIN_SECONDS = 3.0
PATIENCE_SECONDS = 0.2
_RUN_ID = re.compile(rb"run_id:(\w+)")
_ID = re.compile(rb"^id=(\d+) ", re.MULTILINE)
FAILURES = (RedisError, OSError, TimeoutError)


class Pulse:
    """The connection to one server. Made when it is needed, and made anew after any failure. `lost_at`: when one that
    was on record had to be replaced, on the same run of the server.
    """

    def __init__(self, dial: Callable[[], Awaitable[Connection]], about: Sequence[Any]) -> None:
        self.connection: Connection | None = None
        self.lost_at: float | None = None
        self._dial = dial
        self._about = about
        self._script = scripts("redis_log")["beat"]
        self._server = self._last = b""
        self._client = 0
        self._recorded: Connection | None = None

    async def beat(self, parts: Sequence[Part]) -> None:
        """Renew the records of these parts. Raises what went wrong, without a connection."""
        try:
            connection = self.connection or await self._opened()
            replies = await _conversation(
                connection, [self._words(part, b"EVALSHA", self._script.sha) for part in parts]
            )
            if any(isinstance(reply, NoScriptError) for reply in replies):
                replies = await _conversation(
                    connection, [self._words(part, b"EVAL", self._script.text) for part in parts]
                )
            for reply in replies:
                if isinstance(reply, RedisError):
                    raise reply
        except BaseException:
            await self.hang_up()
            raise
        if self._recorded is not connection:
            # Of another run of the server everybody has lost the connection, and who is on record has come back.
            self.lost_at = time.monotonic() if self._server == self._last else None
            self._recorded, self._last = connection, self._server

    async def broken(self) -> None:
        """Return when the connection is lost."""
        connection = self.connection
        with contextlib.suppress(*FAILURES):
            while connection is not None:
                # Nobody says anything unasked: what comes is the end.
                await connection.read_response(timeout=3600.0, disconnect_on_error=False)

    async def hang_up(self) -> None:
        """Let go of the connection."""
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _opened(self) -> Connection:
        connection = self.connection = await self._dial()
        info, client, *_ = await _conversation(connection, [("INFO", "server"), ("CLIENT", "ID")])
        found = _RUN_ID.search(info) if isinstance(info, bytes) else None
        self._server, self._client = (found[1], client) if found and isinstance(client, int) else (b"", 0)
        if self._client:
            # A proxy in between has clients of its own; and not every user may ask.
            (listed,) = await _conversation(connection, [("CLIENT", "LIST", "ID", self._client)])
            if not isinstance(listed, bytes) or self._client not in ids(listed):
                self._client = 0
        return connection

    def _words(self, part: Part, how: bytes, script: bytes) -> tuple[Any, ...]:
        return how, script, 1, part.members, *self._about, self._server, self._client


class Beat:
    """One member's. `begin`, then `close`; `stop` beats no more and keeps the connections."""

    def __init__(self, place: Place, layout: Layout, member: Member, ttl: timedelta) -> None:
        self.name = member.incarnation
        self._place = place
        self._layout = layout
        self._member = member
        self._every = ttl.total_seconds() / 3
        self._patience = BEGIN_SECONDS
        self._about = (member.incarnation, msgspec.json.encode(member), round(ttl.total_seconds() * 1000))
        self._dialler = Dialler(place)
        self._pulses: dict[Address, Pulse] = {}
        self._table: dict[Address, list[Part]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._first: Future[None] = Future()
        self._stopping, self._closing = asyncio.Event(), asyncio.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dalsegno-redis-beat", daemon=True)

    def begin(self) -> None:
        """Be alive from now on. Raises Redis's errors if that cannot be."""
        self._thread.start()
        self._first.result()
        # A child process that was forked without exec would keep the connections beyond our death.
        mine = weakref.WeakMethod(self._let_go)
        os.register_at_fork(after_in_child=lambda: (method := mine()) and method())

    def is_settled(self, address: Address) -> bool:
        """Whether our own connection was not lost of late: if it was, so perhaps was that of others, who live."""
        pulse = self._pulses.get(address)
        if pulse is None or pulse.connection is None:
            return False
        return pulse.lost_at is None or time.monotonic() - pulse.lost_at > 3 * self._every

    def stop(self) -> None:
        """Beat no more; the connections stay."""
        self._say(self._stopping)
        self._stopped.wait()

    def close(self) -> None:
        """Beat no more, and let go of the connections."""
        self.stop()
        self._say(self._closing)
        self._thread.join()

    def _say(self, what: asyncio.Event) -> None:
        """Let the thread know, if it is still there."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(what.set)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                await self._beat()
            # From now on there is a time to live, and one server that is silent must not cost it with the others.
            self._patience = max(PATIENCE_SECONDS, self._every)
            self._first.set_result(None)
            await self._go_on()
            self._stopped.set()
            await self._closing.wait()
        except TimeoutError:
            self._first.set_exception(TimeoutError(f"no answer in {BEGIN_SECONDS:g} s"))
        except FAILURES as error:
            self._first.set_exception(error)
        finally:
            self._stopped.set()
            if not self._first.done():
                self._first.set_exception(RuntimeError("the beat has ended"))
            for pulse in self._pulses.values():
                await pulse.hang_up()

    async def _go_on(self) -> None:
        """Beat until told to stop."""
        due = time.monotonic() + self._every
        while True:
            await self._quiet_until(due)
            if self._stopping.is_set():
                return
            try:
                await self._beat()
                due = time.monotonic() + self._every
            except FAILURES:
                # A server is away, or does not want to: again, before the time is over.
                due = time.monotonic() + min(self._every, AGAIN_SECONDS)

    async def _beat(self) -> None:
        """Renew everything. A server that fails keeps nobody from the others."""
        if self._table is None:
            self._table = await self._found()
        for address in self._table.keys() - self._pulses.keys():
            self._pulses[address] = Pulse(self._dial_to(address), self._about)
        beating = (self._in_time(self._pulses[address], parts) for address, parts in self._table.items())
        failures = [one for one in await asyncio.gather(*beating, return_exceptions=True) if one is not None]
        if sum(map(len, self._table.values())) < len(self._layout.parts):
            failures.append(RedisConnectionError("nobody has some parts of the cluster"))
        if failures:
            self._table = None if self._place.kind == "cluster" else self._table
            raise failures[0]

    async def _in_time(self, pulse: Pulse, parts: Sequence[Part]) -> None:
        async with asyncio.timeout(self._patience):
            await pulse.beat(parts)

    async def _quiet_until(self, due: float) -> None:
        """Wait for the time of the next beat; less if we are to stop, or if a connection is lost meanwhile."""
        watching = [asyncio.ensure_future(pulse.broken()) for pulse in self._pulses.values() if pulse.connection]
        stop = asyncio.ensure_future(self._stopping.wait())
        lost, _ = await asyncio.wait(
            (*watching, stop), timeout=max(0.0, due - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
        )
        for task in (*watching, stop):
            task.cancel()
        await asyncio.gather(*watching, stop, return_exceptions=True)
        if lost - {stop}:
            for pulse, watch in zip([p for p in self._pulses.values() if p.connection], watching, strict=True):
                if watch in lost:
                    await pulse.hang_up()

    async def _found(self) -> dict[Address, list[Part]]:
        """Which server has which parts."""
        if self._place.kind != "cluster":
            return {self._place.addresses[0]: list(self._layout.parts)}
        for address in (*self._pulses, *self._place.addresses):
            with contextlib.suppress(*FAILURES):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    slots = await self._dialler.slots(address)
                table: dict[Address, list[Part]] = {}
                for part in self._layout.parts:
                    if key_slot(part.members) in slots:
                        table.setdefault(slots[key_slot(part.members)], []).append(part)
                return table
        raise RedisConnectionError("no server of the cluster answers")

    def _dial_to(self, address: Address) -> Callable[[], Awaitable[Connection]]:
        if self._place.kind == "sentinel":
            return self._dialler.primary
        return lambda: self._dialler.to(address)

    def _let_go(self) -> None:
        for pulse in self._pulses.values():
            writer = pulse.connection and pulse.connection._writer
            if writer:
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, writer.get_extra_info("socket").fileno())
                os.close(nowhere)


def ids(listed: bytes) -> set[int]:
    """The connections that a server names."""
    return {int(one) for one in _ID.findall(listed)}


async def _conversation(connection: Connection, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """The replies to these commands, errors as they are."""
    try:
        await connection.send_packed_command(b"".join(map(pack_command, map(tuple, commands))), check_health=False)
    except (AttributeError, TypeError) as error:
        # Python 3.12 and 3.13 do not notice that the connection is gone (python/cpython#136234).
        raise RedisConnectionError("the connection is gone") from error
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as refusal:
            replies.append(refusal)
    return replies
