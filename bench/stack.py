"""The stack as clients meet it: a turn over HTTP, opening a session on PostgreSQL and Redis, and deltas on the way from
one replica to the readers of another.

The servers are private ones of this machine, and clients, replicas and servers share its cores.
"""

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from bench import opening
from bench.content import MESSAGE_BYTES, text
from bench.raw import median_ms
from bench.report import Figure
from bench.streams import open_stream
from bench.takeover import AGENT
from dalsegno.client import Client, SessionHandle
from dalsegno.core.json import dumps
from dalsegno.testing.fleet import Fleet, free_port
from dalsegno.testing.servers import postgres, redis
from dalsegno.testing.servers.postgres import Postgres
from dalsegno.testing.servers.redis import Redis

SHOP = Path(__file__).parent / "workload.py"
TURNS = 10
TALKS = 60
STREAMS = 500
PIECES = 60
WARM_UP_SECONDS = 2.0
TURN_BAR_MS = 10.0
DELTA_BAR_MS, DELTA_LATE_BAR_MS = 5.0, 50.0
WORD = re.compile(rb'"delta":"(\d+\.\d+) ')
HOT_BAR_MS, EMPTY_BAR_MS, LONG_BAR_MS = 10.0, 25.0, 50.0
SESSIONS = 40
SHORT, LONG = 1_000, 100_000


def measure() -> list[Figure]:
    """All figures of this file."""
    with postgres.running() as warm, redis.running() as hot, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [
            *asyncio.run(_talks("SQLite", folder, (f"sqlite:////{folder}/bench.db",))),
            *asyncio.run(_talks("PostgreSQL and Redis", folder, (warm.database(), hot.url))),
            *_openings(warm, hot, folder),
            *asyncio.run(_deltas(warm, hot, folder)),
        ]


# ---------------------------------------------------------------------------- a turn over HTTP


async def _talks(name: str, folder: Path, urls: Sequence[str]) -> list[Figure]:
    """From the request's first byte until the turn's end is read, of every session's tenth turn."""
    seconds: list[float] = []
    path = os.pathsep.join([str(SHOP.parents[1]), os.environ.get("PYTHONPATH", "")])
    served = Fleet(
        f"{SHOP}:agent",
        folder=folder,
        replicas=1,
        options=_options(folder, urls),
        environment={**os.environ, "PYTHONPATH": path},
    )
    async with served as fleet, Client(fleet.urls) as client, _wire(fleet.addresses[0]) as wire:
        for _ in range(TALKS):
            session = await client.sessions.create()
            for number in range(1, TURNS + 1):
                took = await wire.turn(f"/v1/sessions/{session.id}/inputs")
                seconds += [took] if number == TURNS else []
    with _empty() as port:
        async with _wire(("127.0.0.1", port)) as wire:
            nothing = median_ms([await wire.ask("/nothing") for _ in range(TALKS * TURNS)])
    of = f"{TURN_BAR_MS:g} ms; a round trip to an empty Starlette server: {nothing:.2f} ms"
    what = f"over HTTP, turn {TURNS} with one tool, POST until its end, {name}, p50"
    return [Figure(what, median_ms(seconds), "ms", TURN_BAR_MS, 1.0, of)]


class _Wire:
    """One connection that is kept. Does as little as it can, so that it is the server that is measured."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def turn(self, path: str) -> float:
        """Say something and hear the turn to its end: the seconds until that was read."""
        begin = time.perf_counter()
        await self._post(path, "text/event-stream")
        said = b""
        while b"event: turn.completed" not in said:
            size = int(await self._reader.readline(), 16)
            assert size, said
            said += await self._reader.readexactly(size + 2)
        seconds = time.perf_counter() - begin
        await self._reader.readuntil(b"0\r\n\r\n")
        return seconds

    async def ask(self, path: str) -> float:
        """Say something, and read the answer."""
        begin = time.perf_counter()
        head = await self._post(path, "application/json")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await self._reader.readexactly(int(length.split(b":")[1]))
        return time.perf_counter() - begin

    async def _post(self, path: str, accept: str) -> bytes:
        body = dumps({"type": "message", "content": text(MESSAGE_BYTES)})
        head = f"POST {path} HTTP/1.1\r\nhost: bench\r\naccept: {accept}\r\ncontent-type: application/json\r\n"
        self._writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 20"), answer
        return answer


@asynccontextmanager
async def _wire(address: tuple[str, int]) -> AsyncIterator[_Wire]:
    reader, writer = await asyncio.open_connection(*address, limit=2**22)
    try:
        yield _Wire(reader, writer)
    finally:
        writer.close()


@contextmanager
def _empty() -> Iterator[int]:
    """The empty server's port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.empty", str(port)])
    try:
        _until_open(port)
        yield port
    finally:
        process.kill()
        process.wait()


def _until_open(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _options(folder: Path, urls: Sequence[str]) -> tuple[str, ...]:
    hot = ("--hot", urls[1]) if len(urls) > 1 else ()
    return "--warm", urls[0], *hot, "--cold", f"file://{folder}/cold", "--max-turns", str(STREAMS + 100)


# ---------------------------------------------------------------------------- opening a session


def _openings(warm: Postgres, hot: Redis, folder: Path) -> list[Figure]:
    """With what the last replica left near, and without."""
    name, url = "open a session of {:,} events in a fresh process, PostgreSQL and Redis", warm.database()
    hot.flush()
    asyncio.run(opening.fill(folder, SHORT, SESSIONS, warm_url=url, hot_url=hot.url))
    near = opening.opened(url, hot.url)
    hot.flush()
    far = opening.opened(url, hot.url)
    long = warm.database()
    asyncio.run(opening.fill(folder, LONG, 1, warm_url=long, hot_url=hot.url))
    whole = opening.opened(long, hot.url, processes=2 * opening.PROCESSES)
    return [
        opening.figure(name.format(SHORT), near, HOT_BAR_MS),
        opening.figure(f"{name.format(SHORT)} that is empty", far, EMPTY_BAR_MS),
        opening.figure(name.format(LONG), whole, LONG_BAR_MS),
    ]


# ---------------------------------------------------------------------------- deltas


async def _deltas(warm: Postgres, hot: Redis, folder: Path) -> list[Figure]:
    """From the model's word until it is read from another replica's stream; each word says when it was said."""
    options = _options(folder, (warm.database(), hot.url))
    environment = {**os.environ, "BENCH_PIECES": str(PIECES)}
    served = Fleet(f"{AGENT}:ticker", folder=folder, replicas=2, options=options, environment=environment)
    async with served as fleet, Client(fleet.urls[0]) as client:
        sessions = [await client.sessions.create() for _ in range(STREAMS)]
        host, port = fleet.addresses[1]
        streams = [await open_stream(host, port, session.id, "?after=1") for session in sessions]
        readers = [asyncio.create_task(_listen(reader)) for reader, _ in streams]
        await asyncio.gather(*(_say(session, place) for place, session in enumerate(sessions)))
        late = sorted(seconds for heard in await asyncio.gather(*readers) for seconds in heard)
        for _, writer in streams:
            writer.close()
    assert len(late) > 0.9 * STREAMS * (PIECES - 10 * WARM_UP_SECONDS), f"{len(late)} words were heard"
    half, most = late[len(late) // 2] * 1000, late[int(len(late) * 0.99)] * 1000
    name = f"delta, from the model to a reader of another replica, Redis, {STREAMS} streams × 10 pieces/s"
    return [
        Figure(f"{name}, p50", half, "ms", DELTA_BAR_MS, 1.0, f"{DELTA_BAR_MS:g} ms"),
        Figure(f"{name}, p99", most, "ms", DELTA_LATE_BAR_MS, 1.0, f"{DELTA_LATE_BAR_MS:g} ms"),
    ]


async def _say(session: SessionHandle, place: int) -> None:
    """Begin in turn, so that they do not all speak in the same moment for ever."""
    await asyncio.sleep(place / STREAMS)
    await session.send("go")


async def _listen(reader: asyncio.StreamReader) -> list[float]:
    """How late each word was, those left out that were said while others were still beginning."""
    late: list[float] = []
    begin, rest = 0.0, b""
    while b"event: turn.completed" not in rest:
        rest += await reader.read(65536)
        now = time.time()
        whole, _, tail = rest.rpartition(b"\n\n")
        for found in WORD.finditer(whole):
            said = float(found[1])
            begin = begin or said
            if said - begin > WARM_UP_SECONDS:
                late.append(now - said)
        rest = tail if b"event: turn.completed" not in whole else whole
    return late
