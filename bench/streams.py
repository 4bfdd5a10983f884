"""Streams: 500 readers of sessions whose agents say ten pieces a second, in one replica process; and idle ones."""

import asyncio
import os
import tempfile
import time
from pathlib import Path

from bench.report import Figure
from bench.start import cpu_seconds, resident_bytes
from bench.takeover import AGENT
from dalsegno.client import Client
from dalsegno.testing.fleet import Fleet

STREAMS = 500
SECONDS = 8
PIECES = 300
"""Of a turn: none ends while it is measured, however long it takes to begin them all."""
IDLE = 1000


def measure() -> list[Figure]:
    """All figures of this file."""
    return asyncio.run(_streams())


async def _streams() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ("--warm", f"sqlite:////{folder}/bench.db", "--cold", f"file://{folder}/cold")
        options += ("--max-turns", "600")
        environment = {**os.environ, "BENCH_PIECES": str(PIECES)}
        served = Fleet(f"{AGENT}:ticker", folder=folder, replicas=1, options=options, environment=environment)
        async with served as fleet:
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
        counts = [0] * STREAMS
        readers = [asyncio.create_task(_count(reader, counts, n)) for n, (reader, _) in enumerate(streams)]
        await asyncio.gather(*(session.send("go") for session in made))
        begin, cpu, before = time.perf_counter(), cpu_seconds(pid), sum(counts)
        await asyncio.sleep(SECONDS)
        seconds, used, heard = time.perf_counter() - begin, cpu_seconds(pid) - cpu, sum(counts) - before
        for task in readers:
            task.cancel()
        for _, writer in streams:
            writer.close()
        await asyncio.gather(*(session.cancel() for session in made))
    return min(1.0, heard / (STREAMS * seconds / 0.1)), used / max(1, heard)


async def open_stream(
    host: str, port: int, session: str, query: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A reader of the session, past the response's head."""
    reader, writer = await asyncio.open_connection(host, port)
    request = f"GET /v1/sessions/{session}/events{query} HTTP/1.1\r\nhost: bench\r\naccept: text/event-stream\r\n\r\n"
    writer.write(request.encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def _count(reader: asyncio.StreamReader, counts: list[int], place: int) -> None:
    """Count what comes, at a place of the list."""
    while data := await reader.read(65536):
        counts[place] += data.count(b"event: item.delta")
