"""Streams: 500 readers of sessions whose agents say ten pieces a second, in one replica process; and idle ones."""

import asyncio
import tempfile
import time
from pathlib import Path

from bench.report import Figure
from bench.start import cpu_seconds, resident_bytes
from bench.takeover import AGENT
from dalsegno.client import Client
from dalsegno.testing.fleet import Fleet

STREAMS = 500
PIECES = 100
IDLE = 1000


def measure() -> list[Figure]:
    """All figures of this file."""
    return asyncio.run(_streams())


async def _streams() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ("--warm", f"sqlite:////{folder}/bench.db", "--cold", f"file://{folder}/cold")
        options += ("--max-turns", "600")
        async with Fleet(f"{AGENT}:ticker", folder=folder, replicas=1, options=options) as fleet:
            pid, (url,) = fleet.replicas[0].pid, fleet.urls
            idle = await _idle(url, pid)
            _, shared = await _busy(url, pid, sessions=1)
            delivered, cpu = await _busy(url, pid, sessions=STREAMS)
    return [
        Figure(
            f"SSE, {STREAMS} streams × 10 pieces/s: delivered in time",
            delivered,
            "of 1",
            1.0,
            0.95,
            "all",
            at_least=True,
        ),
        Figure("SSE: CPU per event, 500 readers of one session", shared * 1e6, "µs", 60, 1.0, "60 µs"),
        Figure("SSE: CPU per event, 500 sessions, generating them included", cpu * 1e6, "µs", 60, 1.0, "60 µs"),
        Figure("SSE: memory per idle stream", idle / 1e3, "KB", 20, 1.0, "20 KB"),
    ]


async def _idle(url: str, pid: int) -> float:
    """Bytes for each stream of a quiet session."""
    host, port = url.removeprefix("http://").split(":")
    async with Client([url]) as client:
        sessions = [(await client.sessions.create()).id for _ in range(IDLE)]
    before = resident_bytes(pid)
    open_streams = [await open_stream(host, int(port), session, "") for session in sessions]
    after = resident_bytes(pid)
    for _, writer in open_streams:
        writer.close()
    return (after - before) / IDLE


async def _busy(url: str, pid: int, *, sessions: int) -> tuple[float, float]:
    """The part of the pieces that arrived before the clock said so, and the server's CPU seconds for each."""
    host, port = url.removeprefix("http://").split(":")
    async with Client([url]) as client:
        made = [await client.sessions.create() for _ in range(sessions)]
        streams = [await open_stream(host, int(port), made[n % sessions].id, "?after=1") for n in range(STREAMS)]
        readers = [asyncio.create_task(_count(reader)) for reader, _ in streams]
        await asyncio.gather(*(session.send("go") for session in made))
        begin, cpu = time.perf_counter(), cpu_seconds(pid)
        await asyncio.sleep(PIECES * 0.1 * 0.8)
        seconds, used = time.perf_counter() - begin, cpu_seconds(pid) - cpu
        for task in readers:
            task.cancel()
        counts = [count for count in await asyncio.gather(*readers)]
        for _, writer in streams:
            writer.close()
    wanted = STREAMS * seconds / 0.1
    return min(1.0, sum(counts) / wanted), used / max(1, sum(counts))


async def open_stream(
    host: str, port: int, session: str, query: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A reader of the session, past the response's head."""
    reader, writer = await asyncio.open_connection(host, port)
    request = f"GET /v1/sessions/{session}/events{query} HTTP/1.1\r\nhost: bench\r\naccept: text/event-stream\r\n\r\n"
    writer.write(request.encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def _count(reader: asyncio.StreamReader) -> int:
    found = 0
    try:
        while data := await reader.read(65536):
            found += data.count(b"event: item.delta")
    except asyncio.CancelledError:
        pass
    return found
