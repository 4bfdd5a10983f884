"""The SQLite store between real processes: starting at once, dying in the middle, stopped, forked, taking turns."""

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dalsegno.core.append import Fenced
from dalsegno.core.lease import Lease
from dalsegno.ports import Hint, Member
from dalsegno.stores.sqlite import SqliteHot, SqliteLog
from dalsegno.testing.conformance.acts import history, leased, note, session, work
from tests.support import wait_until

ROOT = Path(__file__).resolve().parents[2]
TTL = timedelta(seconds=1)

Child = subprocess.Popen[str]


@pytest.fixture
def children() -> Iterator[list[Child]]:
    children: list[Child] = []
    yield children
    for child in children:
        child.send_signal(signal.SIGCONT)
        child.kill()
        child.communicate()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    log = await SqliteLog.open(tmp_path / "log.db")
    await log.join(Member("here", "here"), ttl=TTL)
    yield log
    await log.close()


@pytest.fixture
def start(tmp_path: Path, children: list[Child]):
    def start(*words: object) -> Child:
        what, *rest = map(str, words)
        command = [sys.executable, "-m", "tests.stores.sqlite_child", what, str(tmp_path / "log.db"), *rest]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
        children.append(child)
        return child

    return start


def heard(child: Child) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def go(*children: Child) -> None:
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()


def rest(child: Child) -> list[list[int]]:
    """What it told until its end; a line that its death cut short is not counted."""
    assert child.stdout is not None
    lines = child.stdout.read().splitlines(keepends=True)
    return [[int(word) for word in line.split()] for line in lines if line.endswith("\n")]


async def test_a_fleet_starts_at_once_on_a_file_that_is_not_there(start, tmp_path: Path):
    """Six processes make the schema together, and what they write to one session has one order."""
    children = [start("shout", f"r{number}", 25) for number in range(6)]
    assert [heard(child) for child in children] == ["ready"] * 6
    go(*children)
    told = sorted(seq for child in children for (seq,) in rest(child))
    assert [child.wait() for child in children] == [0] * 6
    assert told == list(range(1, 601))
    log = await SqliteLog.open(tmp_path / "log.db")
    assert [event.seq for event in await history(log, session(1))] == list(range(1, 601))
    await log.close()


async def test_kill_9_while_writing_loses_nothing_that_was_acknowledged(start, log: SqliteLog):
    """P1: also when it is killed in the middle of a commit, six times over. The next one goes on at once."""
    for round_ in range(1, 7):
        child = start("write", f"r{round_}", 100_000)
        assert heard(child) == "ready"
        go(child)
        first = int(heard(child).split()[0])
        time.sleep(0.023 * round_)
        child.kill()
        told = [first, *(seq for seq, _ in rest(child))]
        events = await history(log, session(round_))
        assert told == list(range(4, told[-1] + 1))
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert len(events) in (told[-1], told[-1] + 1), "more than the one commit that was not acknowledged"
        found = await log.load(session(round_))
        assert found is not None and found.head == len(events)


async def test_death_is_noticed_without_waiting_for_the_time_to_live(start, log: SqliteLog):
    """P5: after a replica's process dies its turns go on within 1 s."""
    child = start("hold", "r1")
    assert heard(child) == "ready"
    assert [member.incarnation for member in await log.members()] == ["here", "r1"]
    assert list(await log.claim("here", limit=1)) == []
    child.kill()
    child.wait()
    died = time.monotonic()
    assert list(await log.bury()) == ["r1"]
    lease = await leased(log, "here")
    assert time.monotonic() - died < TTL.total_seconds()
    assert (lease.epoch, lease.orphaned) == (2, True)


async def test_a_forked_child_does_not_keep_the_dead_alive(start, log: SqliteLog):
    """`multiprocessing` forks without exec: the child lets go of the lock, so that its parent's death is seen."""
    child = start("hold", "r1", 1)
    assert heard(child) == "ready"
    assert list(await log.bury()) == []
    child.kill()
    child.wait()
    assert list(await log.bury()) == ["r1"]


async def test_a_stopped_process_is_dead_to_claims_until_it_goes_on(start, log: SqliteLog):
    """P4: stopped past its time to live it loses its sessions; continued it beats again, and its epoch is stale."""
    child = start("hold", "r1")
    assert heard(child) == "ready"
    child.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    await wait_until(lambda: _claimed(log), description="the session of the stopped process is claimed")
    assert 0.3 < time.monotonic() - stopped < TTL.total_seconds() + 1
    assert list(await log.bury()) == ["r1"]
    assert list(await log.bury()) == [], "named again"
    old = Lease("acme", session(1).id, 1, "r1", 2, 1)
    assert await work(log, old, note("from the grave")) == Fenced()
    child.send_signal(signal.SIGCONT)
    await wait_until(lambda: _lives(log, "r1"), description="it beats again")


async def _claimed(log: SqliteLog) -> bool:
    return bool(await log.claim("here", limit=1))


async def _lives(log: SqliteLog, name: str) -> bool:
    return name in [member.incarnation for member in await log.members()]


async def test_processes_that_write_all_the_time_take_turns(start):
    """The gate is fair: of three busy processes none gets less than a third of another's share (half of it on a machine
    that is fair itself), and nobody starves.
    """
    children = [start("write", f"r{number}", 100_000) for number in (1, 2, 3)]
    assert [heard(child) for child in children] == ["ready"] * 3
    go(*children)
    time.sleep(2)
    for child in children:
        child.kill()
    waits = [[micros for _, micros in rest(child)] for child in children]
    counts = [len(found) for found in waits]
    assert min(counts) > max(counts) / 3, counts
    slowest = [statistics.quantiles(found, n=100)[98] for found in waits]
    assert max(slowest) < 500_000, slowest


async def test_hints_reach_another_process(start, tmp_path: Path):
    """A datagram is there in milliseconds, and a dead listener's socket is swept away."""
    child = start("listen")
    assert heard(child) == "ready"
    hot = await SqliteHot.open(tmp_path / "log.db")
    await hot.tell([Hint("acme", "s1", 17)])
    assert await asyncio.to_thread(heard, child) == "s1 17"
    child.kill()
    child.wait()
    folder = hot._wake._folder
    assert folder is not None and len(list(folder.iterdir())) == 1
    await hot.tell([Hint("acme", "s1", 18)])
    assert list(folder.iterdir()) == []
    await hot.close()
    folder.rmdir()
