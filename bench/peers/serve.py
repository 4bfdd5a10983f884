"""The driver's half of the protocol: JSON lines in, JSON lines out. Nothing but the standard library.

A driver implements `Peer` and calls `serve`. It is measured here, next to the work, so that no pipe is in the figures.
"""

import asyncio
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol, TextIO

from bench.content import ANSWER_BYTES, MESSAGE_BYTES, ORDER_BYTES, RESULT_BYTES, mark_of, marked

SPEAKING: ContextVar[str] = ContextVar("speaking", default="")
"""The mark of the turn that this task is in, for models that may be shown somebody else's message last."""


class Shop:
    """What the tool asks: it writes each order down, and kills its process there when it is told to."""

    def __init__(self, book: str = "", *, dies: str = "") -> None:
        self._book = book
        self._dies = dies

    def look_up(self, order: str, call: str) -> str:
        """The effect, and then the result of 2 KB; or, in between, the end of this process."""
        mark = mark_of(order)
        if self._book:
            with open(self._book, "a") as book:
                book.write(f"{mark} {call}\n")
        if self._dies == mark:
            os.kill(os.getpid(), signal.SIGKILL)
        return marked(mark, RESULT_BYTES)


def message(mark: str) -> str:
    """What the user of that turn says."""
    return marked(mark, MESSAGE_BYTES)


def order(mark: str) -> str:
    """What the tool is asked in that turn."""
    return marked(mark, ORDER_BYTES)


def answer(mark: str) -> str:
    """What the model says in the end."""
    return marked(mark, ANSWER_BYTES)


class Peer(Protocol):
    """One peer on one database. What is in its history: u message, c call, r result, a answer, each with its mark."""

    async def open(self, url: str, *, name: str, options: dict[str, str], shop: Shop) -> dict[str, str]:
        """Connect and make the tables; what runs here, in which version. `name` is this process's."""
        ...

    async def turn(self, session: str, mark: str) -> str:
        """One whole turn, from the message to the answer, as durable as the peer makes it."""
        ...

    async def burst(self, session: str, mark: str) -> str:
        """The same, for when others write to the session, too: with whatever the peer offers against that."""
        ...

    async def history(self, session: str) -> list[tuple[str, str]]:
        """What is stored, read from the database."""
        ...

    async def go_on(self, session: str, mark: str) -> str:
        """What the documentation says to do by hand about a turn that broke off; in words, what was done."""
        ...

    async def close(self) -> None:
        """Let go of what was opened."""
        ...


def serve(make: Callable[[], Peer]) -> None:
    """Do what is asked on standard input until it ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    asyncio.run(_serve(make(), answers))


async def _serve(peer: Peer, answers: TextIO) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        try:
            said = {"ok": await _do(peer, **asked)}
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {error}"[:2000]}
        print(json.dumps(said), file=answers, flush=True)
    await peer.close()


async def _do(peer: Peer, do: str, **given: Any) -> Any:
    match do:
        case "open":
            shop = Shop(given["book"], dies=given["dies"])
            versions = await peer.open(given["url"], name=given["name"], options=given["options"], shop=shop)
            # as `dalsegno serve` has it, for all alike
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000, 20, 20)
            return versions
        case "turns":
            return await _turns(peer, given["session"], given["first"], given["count"])
        case "many":
            return await _many(peer, given["sessions"], given["first"], given["count"])
        case "burst":
            return await asyncio.gather(*(_attempt(peer, given["session"], mark) for mark in given["marks"]))
        case "history":
            return await peer.history(given["session"])
        case "go_on":
            return await peer.go_on(given["session"], given["mark"])
        case _:
            raise ValueError(do)


async def _turns(peer: Peer, session: str, first: int, count: int) -> list[float]:
    """The seconds of each of so many turns, one after another."""
    seconds = []
    for number in range(first, first + count):
        mark = f"t{number}"
        SPEAKING.set(mark)
        begin = time.perf_counter()
        said = await peer.turn(session, mark)
        seconds.append(time.perf_counter() - begin)
        if mark_of(said) != mark:
            raise RuntimeError(f"{said[:80]!r} does not answer {mark}")
    return seconds


async def _many(peer: Peer, sessions: list[str], first: int, count: int) -> list[float]:
    """All of these sessions at once: the seconds that it took, then those of each session's first turn."""
    begin = time.perf_counter()
    found = await asyncio.gather(*(asyncio.create_task(_turns(peer, one, first, count)) for one in sessions))
    return [time.perf_counter() - begin, *(seconds[0] for seconds in found)]


async def _attempt(peer: Peer, session: str, mark: str) -> str:
    """Empty when the peer says that the turn was done; else its error."""
    SPEAKING.set(mark)
    try:
        await peer.burst(session, mark)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return ""
