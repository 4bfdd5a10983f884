"""A program that keeps its job, or its calls, in a store: run as a process of its own, to be killed in the middle.

    python -m tests.runtime.job_child URL WHAT LEDGER STOP

It writes a line to the ledger for whatever it does to the world, says where it stops, and waits there for ever; or,
with `pause PLACE`, is stopped there by the system until somebody has it go on.
"""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from typing import Any

from dalsegno import open_store
from dalsegno.errors import Conflict, InDoubt
from dalsegno.runtime import presence

STEPS = 5


class World:
    """What the program does, on record outside of any store."""

    def __init__(self, path: str, stop: str) -> None:
        self._path = path
        self._stop = stop

    def do(self, what: str) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{what}\n".encode())
        os.close(descriptor)

    async def at(self, place: str) -> None:
        if place == self._stop:
            say(f"at {place}")
            await asyncio.Event().wait()
        if f"pause {place}" == self._stop:
            say(f"paused {place}")
            os.kill(os.getpid(), signal.SIGSTOP)


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def job(store: Any, world: World) -> None:
    """Five pages, one after another."""

    async def page(number: int) -> int:
        world.do(f"page {number}")
        await world.at(f"in {number}")
        return number * number

    async with store.job("import") as job:
        for number in range(STEPS):
            await job.step(f"page-{number}", page, number)
            await world.at(f"after {number}")
        say(f"done {sorted(job.results.values())}")


async def once(store: Any, world: World, effect: Any) -> None:
    """One booking."""

    @store.idempotent("book", effect=effect)
    async def book(seat: str, idempotency_key: str = "") -> str:
        await world.at("before")
        world.do(f"{seat} {idempotency_key}")
        await world.at("after")
        return f"booked {seat}"

    say(f"done {await book('A1')}")


async def main(url: str, what: str, ledger: str, stop: str) -> None:
    async with open_store(url) as store:
        try:
            await (job(store, World(ledger, stop)) if what == "job" else once(store, World(ledger, stop), what))
        except (Conflict, InDoubt) as error:
            say(f"{type(error).__name__} {error}")


if __name__ == "__main__":
    presence.TTL = timedelta(seconds=1)  # a paused owner counts as dead soon
    asyncio.run(main(*sys.argv[1:]))
