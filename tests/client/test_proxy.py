"""The proxy's faults really happen, and its counts say so."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Literal

import pytest

from dalsegno.testing.listener import Listener
from dalsegno.testing.proxy import Address, BlackHole, Cut, Delay, DropReplies, FaultProxy, Pass, Refuse, Throttle
from tests.support import wait_until


class Echo(Listener):
    """Answers every byte with itself, and keeps what it heard."""

    def __init__(self) -> None:
        super().__init__(self._echo)
        self.heard = b""

    @property
    def address(self) -> Address:
        return "127.0.0.1", self.port

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(4096):
            self.heard += piece
            writer.write(piece)
            await writer.drain()


class Wire:
    """A client's end of a connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, text: bytes) -> None:
        self.writer.write(text)

    async def hear(self, size: int) -> bytes:
        async with asyncio.timeout(20):
            return await self.reader.readexactly(size)

    async def ending(self) -> tuple[bytes, str]:
        """What still arrives, and whether the connection was reset or finished."""
        heard = b""
        async with asyncio.timeout(20):
            try:
                while piece := await self.reader.read(4096):
                    heard += piece
            except ConnectionResetError:
                return heard, "reset"
        return heard, "finish"


class Bench(AsyncExitStack):
    """Echoes behind a proxy, and wires to it."""

    proxy: FaultProxy

    async def wire(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.proxy.port))
        self.callback(wire.writer.close)
        return wire


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    async with Echo() as echo:
        yield echo


@pytest.fixture
async def bench(echo: Echo) -> AsyncIterator[Bench]:
    async with Bench() as bench:
        bench.proxy = await bench.enter_async_context(FaultProxy(echo.address))
        yield bench


async def test_without_a_fault_bytes_pass(bench: Bench, echo: Echo):
    """Both ways, unchanged and counted, and the end of one side is the end of the other."""
    wire, text = await bench.wire(), bytes(range(256)) * 400
    wire.say(text)
    assert await wire.hear(len(text)) == text
    wire.writer.write_eof()
    assert await wire.ending() == (b"", "finish")
    counts = bench.proxy.counts
    assert (counts.accepted, counts.bytes_up, counts.bytes_down) == (1, len(text), len(text))
    assert counts.served == {echo.address: 1}


@pytest.mark.parametrize("how", ["reset", "finish"])
@pytest.mark.parametrize("after", [0, 1, 5])
async def test_a_cut_comes_after_that_many_bytes(bench: Bench, echo: Echo, how: Literal["reset", "finish"], after: int):
    """On a connection that was open before, too: bytes count from the switch on."""
    wire = await bench.wire()
    wire.say(b"before")
    await wire.hear(6)
    await bench.proxy.switch(Cut(after=after, how=how))
    wire.say(b"0123456789")
    assert await wire.ending() == (b"0123456789"[:after], how)
    assert bench.proxy.counts.cut == 1
    assert echo.heard == b"before0123456789"


async def test_a_black_hole_gives_back_what_it_held(bench: Bench, echo: Echo):
    """Nothing moves, also on a new connection, and nothing is lost: TCP would deliver it late."""
    wire = await bench.wire()
    wire.say(b"a")
    await wire.hear(1)
    await bench.proxy.switch(BlackHole())
    wire.say(b"b")
    other = await bench.wire()
    other.say(b"c")
    await wait_until(lambda: bench.proxy.counts.held, description="a piece is held")
    assert echo.heard == b"a"
    await bench.proxy.switch(Pass())
    assert (await wire.hear(1), await other.hear(1)) == (b"b", b"c")


async def test_nobody_listens(bench: Bench):
    """Connecting is refused while open connections go on; then the same port answers again."""
    wire = await bench.wire()
    wire.say(b"a")
    await wire.hear(1)
    await bench.proxy.switch(Refuse())
    with pytest.raises(ConnectionRefusedError):
        await bench.wire()
    wire.say(b"b")
    assert await wire.hear(1) == b"b"
    await bench.proxy.switch(Pass())
    again = await bench.wire()
    again.say(b"c")
    assert await again.hear(1) == b"c"
    assert bench.proxy.counts.refusals == 1


async def test_replies_are_lost(bench: Bench, echo: Echo):
    """The server has done it and the client cannot know; that connection does not come back to life with a hole."""
    await bench.proxy.switch(DropReplies())
    wire = await bench.wire()
    wire.say(b"do it")
    await wait_until(lambda: bench.proxy.counts.dropped_bytes == 5, description="the reply is dropped")
    assert echo.heard == b"do it"
    await bench.proxy.switch(Pass())
    assert await wire.ending() == (b"", "reset")


async def test_pieces_are_late(bench: Bench):
    """Each way takes the latency."""
    await bench.proxy.switch(Delay(latency=timedelta(milliseconds=30)))
    wire, started = await bench.wire(), time.monotonic()
    wire.say(b"a")
    assert await wire.hear(1) == b"a"
    assert time.monotonic() - started >= 0.06
    assert bench.proxy.counts.delayed == 2


async def test_bytes_trickle(bench: Bench):
    """200 bytes at 2,000 a second take a tenth of a second each way, the second way overlapping the first."""
    await bench.proxy.switch(Throttle(bytes_per_second=2000))
    wire, started = await bench.wire(), time.monotonic()
    wire.say(bytes(200))
    assert await wire.hear(200) == bytes(200)
    assert time.monotonic() - started >= 0.1
    assert bench.proxy.counts.throttled_bytes == 400


async def test_planned_faults_meet_one_connection_each(bench: Bench):
    """The first connections get the plan, in order; those after it whatever holds for all."""
    bench.proxy.plan(Cut(after=1), Pass(), Refuse())
    first, second, third, fourth = [await bench.wire() for _ in range(4)]
    for wire in (first, second, fourth):
        wire.say(b"xyz")
    assert await first.ending() == (b"x", "reset")
    assert await third.ending() == (b"", "reset")
    assert (await second.hear(3), await fourth.hear(3)) == (b"xyz", b"xyz")


async def test_all_connections_are_reset_at_once(bench: Bench, echo: Echo):
    """What a host does that vanishes and comes back: clients and servers both see a reset."""
    wires = [await bench.wire() for _ in range(3)]
    for wire in wires:
        wire.say(b"x")
        await wire.hear(1)
    assert bench.proxy.abort() == 3
    assert [await wire.ending() for wire in wires] == [(b"", "reset")] * 3
    assert bench.proxy.counts.cut == 3


async def test_targets_take_turns_and_those_that_refuse_are_passed_over(bench: Bench, echo: Echo):
    """Like a load balancer; with no target left the client is reset."""
    async with Echo() as other, Echo() as gone:
        await gone.__aexit__()
        bench.proxy.targets = [echo.address, gone.address, other.address]
        for _ in range(4):
            wire = await bench.wire()
            wire.say(b"x")
            await wire.hear(1)
        assert set(bench.proxy.counts.served) == {echo.address, other.address}
        assert bench.proxy.counts.skipped >= 1
        bench.proxy.targets = [gone.address]
        assert await (await bench.wire()).ending() == (b"", "reset")
        assert bench.proxy.counts.unserved == 1
