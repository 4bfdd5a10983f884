"""Take-over: `kill -9` of the replica that runs a turn, until the turn's next step is on record from another one."""

import asyncio
import tempfile
import time
from pathlib import Path

from bench.report import Figure
from dalsegno.client import Client, Event
from dalsegno.testing.fleet import Fleet

KILLS = 100
AGENT = Path(__file__).parent / "agents.py"


def measure() -> list[Figure]:
    """All figures of this file."""
    seconds = sorted(asyncio.run(_kills()))
    half, late = seconds[len(seconds) // 2], seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))]
    return [
        Figure(f"take-over after kill -9, {KILLS} kills, p50", half, "s", 0.3, 1.0, "0.3 s"),
        Figure(f"take-over after kill -9, {KILLS} kills, p99", late, "s", 1.0, 1.0, "1 s"),
    ]


async def _kills() -> list[float]:
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ("--warm", f"sqlite:////{folder}/bench.db", "--cold", f"file://{folder}/cold")
        async with Fleet(f"{AGENT}:stepper", folder=folder, options=options) as fleet, Client(fleet.urls) as client:
            while len(seconds) < KILLS:
                seconds += await _turn(fleet, client, min(2, KILLS - len(seconds)))
    return seconds


async def _turn(fleet: Fleet, client: Client, kills: int) -> list[float]:
    """Kill the owner of one turn so many times: twice, since a third death would be taken for the turn's fault."""
    session = await client.sessions.create()
    receipt = await session.send("go")
    found, killed_at, dead, steps = [], 0.0, 0, 0
    async for event in session.stream(after=str(receipt.seq - 1), turn=receipt.turn):
        pid = _pid(event)
        if pid is None:
            continue
        if killed_at and pid != dead:
            found.append(event.data["item"]["output"][1] - killed_at)
            killed_at, steps = 0.0, 0
            await asyncio.gather(*(one.start() for one in fleet.replicas if not one.alive))
            if len(found) == kills:
                break
        steps += 1
        if not killed_at and steps == 5:
            owner = next(one for one in fleet.replicas if one.pid == pid)
            dead, killed_at = pid, time.time()
            await owner.kill()
    await session.cancel()
    return found


def _pid(event: Event) -> int | None:
    item = event.data.get("item", {})
    return int(item["output"][0]) if event.type == "item.done" and item.get("type") == "dalsegno:step" else None
