"""A replica process for tests of the SQLite store: `python -m tests.stores.sqlite_child WHAT PATH [NAME] [COUNT]`."""

import asyncio
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from dalsegno.core.event import SessionUpdated
from dalsegno.ports import Member
from dalsegno.stores.sqlite import SqliteHot, SqliteLog
from dalsegno.testing.conformance.acts import begin, change, note, session, work

TTL = timedelta(seconds=1)


def tell(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def write(path: Path, name: str, count: int) -> None:
    """Append to a session of our own and tell each number once it is acknowledged; wait for `go` first."""
    log = await SqliteLog.open(path)
    await log.join(Member(name, name, os.getpid()), ttl=TTL)
    number = int(name.removeprefix("r"))
    lease = await begin(log, session(number), owner=name)
    tell("ready")
    await asyncio.to_thread(sys.stdin.readline)
    for _ in range(count):
        started = time.perf_counter()
        decision = await work(log, lease, note("x" * 500))
        tell(decision.result.events[-1].seq, round((time.perf_counter() - started) * 1e6))  # type: ignore[union-attr]
    await log.close()


async def shout(path: Path, name: str, count: int) -> None:
    """Change session 1 from several tasks at once."""
    log = await SqliteLog.open(path)
    tell("ready")
    await asyncio.to_thread(sys.stdin.readline)

    async def speak() -> None:
        for _ in range(count):
            tell((await change(log, session(1), SessionUpdated({"by": name}))).head)

    await asyncio.gather(*(speak() for _ in range(4)))
    await log.close()


async def hold(path: Path, name: str, count: int) -> None:
    """Own a session and live on. With a count: leave a child behind, forked without exec."""
    log = await SqliteLog.open(path)
    await log.join(Member(name, name, os.getpid()), ttl=TTL)
    await begin(log, session(1), owner=name)
    if count:
        _fork_a_child()
    tell("ready")
    await asyncio.sleep(60)


def _fork_a_child() -> None:
    """One that outlives us, until nobody can speak to it. It speaks once `fork` has returned in it, that is, once its
    hooks have run.
    """
    hears, speaks = os.pipe()
    if os.fork() == 0:
        os.write(speaks, b"!")
        os.read(sys.stdin.fileno(), 1)
        os._exit(0)
    os.read(hears, 1)


async def listen(path: Path, name: str, count: int) -> None:
    """Tell every hint."""
    hot = await SqliteHot.open(path)
    async with hot.listen(lambda hint: tell(hint.session, hint.head)):
        tell("ready")
        await asyncio.sleep(60)


async def main() -> None:
    what, path, *rest = sys.argv[1:]
    name, count = rest[0] if rest else "r1", rest[1] if len(rest) > 1 else "0"
    await {"write": write, "shout": shout, "hold": hold, "listen": listen}[what](Path(path), name, int(count))


if __name__ == "__main__":
    asyncio.run(main())
