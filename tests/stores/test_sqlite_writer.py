"""The writer of a SQLite file: what waits is committed together, on the loop or with a thread that waits for it."""

import asyncio
import gc
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dalsegno.errors import Unavailable
from dalsegno.stores.sqlite.committer import QUICK_SECONDS, Pace
from dalsegno.stores.sqlite.file import Gate, beside
from dalsegno.stores.sqlite.writer import Writer
from tests.support import wait_until


class Watched(sqlite3.Cursor):
    """A cursor that counts commits, and does to them what a disk would."""

    commits = 0
    before_commit: Callable[[], None] = staticmethod(lambda: None)

    def execute(self, statement: str, *parameters: Any) -> "Watched":
        if statement == "COMMIT":
            self.commits += 1
            type(self).before_commit()
        return super().execute(statement, *parameters)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "some.db"
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("CREATE TABLE said (word PRIMARY KEY)")
    raw.close()
    return path


@pytest.fixture
def cursor(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    monkeypatch.setattr(Watched, "before_commit", staticmethod(lambda: None))
    return Watched


@pytest.fixture
async def writer(path: Path, cursor: type[Watched]) -> AsyncIterator[Writer]:
    writer = Writer(path, patience_seconds=0.5)
    committer = writer._committer
    committer._cursor = cursor(committer._connection)
    yield writer
    await writer.close()


@pytest.fixture
def answers(writer: Writer, cursor: type[Watched]) -> Iterator[threading.Event]:
    """A slow disk: it takes what is committed once this is set."""
    answers = threading.Event()

    def wait() -> None:
        answers.wait()

    writer.pace.note_here(1.0)
    cursor.before_commit = staticmethod(wait)
    yield answers
    answers.set()


def say(word: str) -> Callable[[sqlite3.Cursor, int], str]:
    def work(cursor: sqlite3.Cursor, now: int) -> str:
        cursor.execute("INSERT INTO said VALUES (?)", (word,))
        return word

    return work


def said(path: Path) -> set[str]:
    raw = sqlite3.connect(path)
    words = {word for (word,) in raw.execute("SELECT word FROM said")}
    raw.close()
    return words


def commits(writer: Writer) -> int:
    cursor = writer._committer._cursor
    assert isinstance(cursor, Watched)
    return cursor.commits


async def test_on_a_quick_disk_the_loop_commits_by_itself(writer: Writer, path: Path):
    """No thread is even started; one task's commit does not wait for the loop to come round."""
    writer.pace._quick_below = 1.0
    turning = asyncio.create_task(asyncio.sleep(0))
    assert await writer.do(say("first")) == "first"
    assert not turning.done(), "the first commit took a round of the loop"
    for number in range(50):
        await writer.do(say(f"{number}"))
    assert turning.done(), "a task that does nothing but commit must let the others run"
    assert writer._helper._thread is None
    assert len(said(path)) == 51


async def test_what_is_brought_at_once_is_committed_at_once(writer: Writer, path: Path):
    """Forty tasks cost two commits: the first task's own, and everybody else's."""
    writer.pace._quick_below = 1.0
    await asyncio.gather(*(writer.do(say(f"{number}")) for number in range(40)))
    assert commits(writer) == 2
    assert len(said(path)) == 40


@pytest.mark.parametrize(("seconds", "halves"), [(0.0008, 2), (0.02, 1)])
async def test_two_halves_take_turns_while_the_loop_has_more_to_do_than_the_disk(
    writer: Writer, path: Path, seconds: float, halves: int
):
    """Sessions that share a commit also think at the same time. Where the disk takes longer, all share one."""
    for _ in range(20):
        writer.pace.note_here(seconds)
    await asyncio.gather(*(writer.do(say(f"{number}")) for number in range(40)))
    assert commits(writer) == halves
    assert len(said(path)) == 40


async def test_behind_another_process_all_that_waits_goes_at_once(writer: Writer, path: Path):
    """The other one thinks meanwhile; a half that stayed behind would wait for it once more, and so would everybody."""
    other = Gate(beside(path, "-gate"))
    assert other.try_enter()
    for _ in range(20):
        writer.pace.note_here(0.0008)
    writing = asyncio.gather(*(writer.do(say(f"{number}")) for number in range(40)))
    await wait_until(lambda: writer._away, description="the writer stands in line")
    other.leave()
    await writing
    other.close()
    assert commits(writer) == 1
    assert len(said(path)) == 40


async def test_a_slow_disk_does_not_block_the_loop(writer: Writer, cursor: type[Watched], path: Path):
    """After the first slow commit the thread waits for the disk, the loop turns, and the next batch gathers."""
    cursor.before_commit = staticmethod(lambda: time.sleep(0.02))
    await writer.do(say("it turns out to be slow"))
    rounds, before = 0, commits(writer)
    writing = asyncio.gather(*(_say_ten(writer, task) for task in range(8)))
    while not writing.done():
        await asyncio.sleep(0)
        rounds += 1
    await writing
    assert rounds > 500, "the loop waited for the disk"
    assert commits(writer) - before <= 20, "eighty commits of eight tasks were not done together"
    assert len(said(path)) == 81


async def _say_ten(writer: Writer, task: int) -> None:
    for number in range(10):
        await writer.do(say(f"{task}.{number}"))


async def test_when_the_disk_is_quick_again_the_loop_commits_again(writer: Writer, cursor: type[Watched]):
    """A disk that was slow once is not held to it."""
    cursor.before_commit = staticmethod(lambda: time.sleep(0.01))
    await writer.do(say("slow"))
    assert not writer.pace.quick
    cursor.before_commit = staticmethod(lambda: None)
    for number in range(200):
        await writer.do(say(f"{number}"))
        if writer.pace.quick:
            return
    pytest.fail("two hundred quick commits later the disk is still taken for slow")


def test_one_hiccup_costs_a_few_hops():
    """`Pace`: one long wait sends the next ones to a thread; a few short ones there bring them back."""
    pace = Pace()
    pace.note_here(QUICK_SECONDS / 5)
    assert pace.quick
    pace.note_here(10.0)
    assert not pace.quick
    pace.note_elsewhere(10.0)
    for _ in range(4):
        pace.note_elsewhere(QUICK_SECONDS / 5)
    assert pace.quick


async def test_who_is_inside_the_gate_is_waited_for(writer: Writer, path: Path):
    """Another process writes: the loop turns, and then it is our turn."""
    other = Gate(beside(path, "-gate"))
    assert other.try_enter()
    writing = asyncio.create_task(writer.do(say("after you")))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not writing.done() and said(path) == set()
    other.leave()
    assert await writing == "after you"
    other.close()


async def test_a_gate_that_stays_shut_is_an_error_and_nothing_is_applied(writer: Writer, path: Path):
    """A process that is stopped inside its transaction: whoever waits is told in time, and is not written later."""
    other = Gate(beside(path, "-gate"))
    assert other.try_enter()
    with pytest.raises(Unavailable) as caught:
        await writer.do(say("too late"))
    assert caught.value.outcome == "not_applied"
    other.leave()
    other.close()
    assert await writer.do(say("in time")) == "in time"
    assert said(path) == {"in time"}


async def test_who_is_cancelled_in_line_is_told_at_once_and_never_written(writer: Writer, path: Path):
    """Log 8: another process is inside the gate, and what only waits is decided by leaving the line."""
    other = Gate(beside(path, "-gate"))
    assert other.try_enter()
    writing, following = (asyncio.create_task(writer.do(say(word))) for word in ("never", "after you"))
    await wait_until(lambda: writer._away, description="the gate is waited for")
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    other.leave()
    other.close()
    assert await following == "after you"
    assert said(path) == {"after you"}


async def test_who_is_cancelled_while_the_disk_writes_is_told_when_it_has(
    writer: Writer, answers: threading.Event, path: Path
):
    """Log 8: however often it is cancelled. It ends as cancelled, others of the batch as ever, and nothing is left."""
    before = asyncio.all_tasks()
    writing, other = (asyncio.create_task(writer.do(say(word))) for word in ("under way", "beside it"))
    await wait_until(lambda: len(writer._committing) == 2, description="the disk is waited for")
    for _ in range(3):
        writing.cancel()
        await _rounds(5)
        assert not writing.done(), "it was told before the disk has answered"
    answers.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert said(path) == {"under way", "beside it"}
    assert await other == "beside it"
    assert asyncio.all_tasks() == before


async def test_what_a_cancelled_commit_came_to_is_nobodys_error(
    writer: Writer, cursor: type[Watched], answers: threading.Event
):
    """A disk that fails after the caller has been cancelled: it ends as cancelled, and nothing is reported as lost."""
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, report: reports.append(report))

    def fail() -> None:
        answers.wait()
        raise sqlite3.OperationalError("the disk says no")

    cursor.before_commit = staticmethod(fail)
    writing = asyncio.create_task(writer.do(say("lost")))
    await wait_until(lambda: writer._committing, description="the disk is waited for")
    writing.cancel()
    await _rounds(5)
    answers.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    cursor.before_commit = staticmethod(lambda: None)
    assert await writer.do(say("again")) == "again"
    del writing
    gc.collect()
    assert reports == []


async def test_a_disk_that_never_answers_keeps_no_cancelled_caller(writer: Writer, answers: threading.Event):
    """Nothing waits without a bound: whoever would be told that the outcome is unknown ends as cancelled then."""
    writer._patience = 0.01
    writing = asyncio.create_task(writer.do(say("perhaps")))
    await wait_until(lambda: writer._committing, description="the disk is waited for")
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(writing, 20)
    assert not answers.is_set()


async def _rounds(count: int) -> None:
    """The event loop comes round so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_does_not_know_the_gate_is_waited_for(writer: Writer, path: Path):
    """The `sqlite3` program, for instance: SQLite's own lock still keeps writers apart."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(writer.do(say("after you")))
    await asyncio.sleep(0.05)
    assert not writing.done()
    other.execute("ROLLBACK")
    other.close()
    assert await writing == "after you"


async def test_a_job_that_fails_fails_alone(writer: Writer, path: Path):
    """Also when it had written already: then the others are run again, and theirs is what is committed."""

    def half(cursor: sqlite3.Cursor, now: int) -> None:
        cursor.execute("INSERT INTO said VALUES ('half')")
        raise ZeroDivisionError

    def nothing(cursor: sqlite3.Cursor, now: int) -> None:
        raise KeyError("decided by nobody")

    outcomes = await asyncio.gather(
        *(writer.do(work) for work in (say("a"), half, say("b"), nothing, half, say("c"))), return_exceptions=True
    )
    assert [str(outcome) for outcome in outcomes] == ["a", "", "b", "'decided by nobody'", "", "c"]
    assert [type(outcome) for outcome in outcomes[1::3]] == [ZeroDivisionError, ZeroDivisionError]
    assert said(path) == {"a", "b", "c"}


@pytest.mark.parametrize(("code", "outcome"), [(sqlite3.SQLITE_FULL, "not_applied"), (sqlite3.SQLITE_IOERR, "unknown")])
@pytest.mark.parametrize("disk", ["quick", "slow"])
async def test_a_commit_that_fails_says_what_is_known(
    writer: Writer, cursor: type[Watched], path: Path, *, code: int, outcome: str, disk: str
):
    """A full disk has taken nothing; of an error of input and output nobody knows. Then all goes on."""
    if disk == "slow":
        writer.pace.note_here(1.0)

    def fail() -> None:
        error = sqlite3.OperationalError("the disk says no")
        error.sqlite_errorcode = code
        raise error

    cursor.before_commit = staticmethod(fail)
    caught = await asyncio.gather(*(writer.do(say(f"{number}")) for number in range(3)), return_exceptions=True)
    assert [getattr(error, "outcome", error) for error in caught] == [outcome] * 3
    cursor.before_commit = staticmethod(lambda: None)
    assert await writer.do(say("again")) == "again"
    assert said(path) == {"again"}


async def test_a_loop_that_is_never_idle_lets_the_thread_go_on(writer: Writer, cursor: type[Watched]):
    """A saturated loop takes the interpreter's lock back before a thread can wake up; the writer's nudge helps it."""
    cursor.before_commit = staticmethod(lambda: time.sleep(0.001))
    writer.pace.note_here(1.0)
    stop = False

    async def burn() -> None:
        while not stop:
            until = time.perf_counter() + 0.0005
            while time.perf_counter() < until:
                pass
            await asyncio.sleep(0)

    burning = asyncio.create_task(burn())
    started = time.perf_counter()
    for number in range(20):
        await writer.do(say(f"{number}"))
    stop = True
    await burning
    assert time.perf_counter() - started < 5


async def test_close_finishes_what_waits(writer: Writer, path: Path):
    """What was brought before is committed; what is brought after is refused."""
    writing = [asyncio.create_task(writer.do(say(f"{number}"))) for number in range(100)]
    await asyncio.sleep(0)
    await writer.close()
    assert len(await asyncio.gather(*writing)) == 100
    with pytest.raises(Unavailable):
        await writer.do(say("after"))
    assert len(said(path)) == 100


async def test_the_log_of_writes_does_not_grow_for_ever(writer: Writer, path: Path):
    """The keeper copies it back, and it is begun anew."""
    wal = beside(path, "-wal")
    largest = early = 0
    for number in range(3000):
        await writer.do(say(f"{number:>500}"))
        largest = max(largest, wal.stat().st_size if number % 100 == 0 else 0)
        if number == 1000:
            await wait_until(lambda: not writer._committer.keeper._wanted.is_set(), description="the keeper is idle")
            early = wal.stat().st_size
    assert largest < 2.5 * early + 8 * 1024 * 1024
