"""What the SQLite store does when the file, the disk or the machine fails: an error that says what was applied."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from dalsegno.core.append import Write
from dalsegno.core.stream import Piece
from dalsegno.errors import ConfigError, LeaseLost, Unavailable, Unreadable
from dalsegno.ports import Hint, Hot, Member
from dalsegno.stores.sqlite import SqliteHot, SqliteLog
from dalsegno.stores.sqlite.file import Gate, beside, connect, prepare
from dalsegno.stores.sqlite.steps import Steps
from dalsegno.testing.conformance.acts import accept, begin, history, note, publish, session, work
from tests.support import wait_until

ROOT = Path(__file__).resolve().parents[2]
PIECE = Piece(3, 0, 2, "msg_1", field="text", delta="hello")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def log(path: Path) -> AsyncIterator[SqliteLog]:
    log = await SqliteLog.open(path)
    yield log
    await log.close()


async def test_what_is_no_database_is_not_opened(path: Path):
    """P9: an error, and the file stays as it is for an operator to look at."""
    path.write_bytes(b"something else entirely" * 1000)
    with pytest.raises(Unreadable):
        await SqliteLog.open(path)
    assert path.read_bytes() == b"something else entirely" * 1000


async def test_a_place_that_is_none_is_a_configuration_error(path: Path):
    """The message says where."""
    path.write_text("a file")
    with pytest.raises(ConfigError, match=r"log\.db"):
        await SqliteLog.open(path / "folder" / "log.db")


async def test_a_newer_schema_is_refused(path: Path, log: SqliteLog):
    """A replica of an older version does not touch what it does not understand."""
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("DROP VIEW dalsegno_schema")
        raw.execute("CREATE VIEW dalsegno_schema AS SELECT 99 AS version, 99 AS readable_by")
    with pytest.raises(ConfigError, match="99"):
        await SqliteLog.open(path)


async def test_a_damaged_page_is_an_error_and_never_a_shorter_log(path: Path):
    """P9: a stretch of zeroes in the middle of the file."""
    log = await SqliteLog.open(path)
    await log.join(Member("a", "a"), ttl=timedelta(seconds=60))
    lease = await begin(log, session(), owner="a")
    for _ in range(200):
        await work(log, lease, note("x" * 1000))
    await log.close()
    content = path.read_bytes()
    middle = len(content) // 2 // 4096 * 4096
    path.write_bytes(content[:middle] + bytes(4096 * 4) + content[middle + 4096 * 4 :])
    log = await SqliteLog.open(path)
    with pytest.raises(Unreadable):
        await history(log, session())
    await log.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("a small disk can only be mounted by root on Linux")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_a_full_disk_takes_nothing_and_all_goes_on_when_there_is_room(small_disk: Path):
    """Nothing that was acknowledged is lost, nothing else is there, and the error says `not_applied`."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(512 * 1024))
    log = await SqliteLog.open(small_disk / "log.db")
    await log.join(Member("a", "a"), ttl=timedelta(seconds=60))
    lease = await begin(log, session(), owner="a")
    acknowledged = 3
    failures = 0
    while failures < 5:
        try:
            assert isinstance(await work(log, lease, note("x" * 20_000)), Write)
            acknowledged += 1
        except Unavailable as error:
            assert error.outcome == "not_applied"
            failures += 1
    found = await log.load(session())
    assert found is not None and found.head == acknowledged
    ballast.unlink()
    for _ in range(3):
        assert isinstance(await work(log, lease, note("there is room")), Write)
    assert len(await history(log, session())) == acknowledged + 3
    await log.close()


async def test_the_file_may_grow_no_more(path: Path, log: SqliteLog):
    """The same wherever no disk can be mounted: SQLite's own bound on the file's pages."""
    await log.join(Member("a", "a"), ttl=timedelta(seconds=60))
    lease = await begin(log, session(), owner="a")
    connection = log._writer._committer._connection
    ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
    connection.execute(f"PRAGMA max_page_count = {pages + 5}").fetchall()
    acknowledged = 3
    with pytest.raises(Unavailable) as caught:
        while True:
            await work(log, lease, note("x" * 5000))
            acknowledged += 1
    assert caught.value.outcome == "not_applied"
    connection.execute("PRAGMA max_page_count = 1000000").fetchall()
    assert isinstance(await work(log, lease, note()), Write)
    assert len(await history(log, session())) == acknowledged + 1


async def test_a_file_that_may_not_be_written_says_so(path: Path):
    """Reading goes on; a commit is `Unavailable(not_applied)`."""
    log = await SqliteLog.open(path)
    await accept(log, session())
    await log.close()
    code = (
        "import asyncio, os, sys, pathlib; sys.path[:0] = sys.argv[2:]\n"
        "from dalsegno.errors import DalsegnoError\n"
        "from dalsegno.stores.sqlite import SqliteLog\n"
        "from dalsegno.testing.conformance.acts import accept, session\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "async def main():\n"
        "    log = await SqliteLog.open(pathlib.Path(sys.argv[1]))\n"
        "    await accept(log, session())\n"
        "try: asyncio.run(main())\n"
        "except DalsegnoError as error: print(type(error).__name__, getattr(error, 'outcome', ''))\n"
    )
    for file in path.parent.iterdir():
        file.chmod(0o444)
    for folder in (path.parent, *path.parents[1:3]):
        folder.chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), str(ROOT / "src"), str(ROOT)],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        path.parent.chmod(0o755)
        for folder in path.parents[1:3]:
            folder.chmod(0o700)
    if "PermissionError" in done.stderr and "site-packages" in done.stderr:
        pytest.skip("nobody may not read this installation")
    assert done.stdout.split() in (["Unavailable", "not_applied"], ["ConfigError"]), done.stderr


async def test_a_lost_fleet_folder_is_no_death(path: Path, log: SqliteLog):
    """Locks tell of deaths, they do not make them: without its file a member lives by its record."""
    other = await SqliteLog.open(path)
    await other.join(Member("b", "b"), ttl=timedelta(seconds=60))
    shutil.rmtree(beside(path, "-replicas"))
    assert list(await log.bury()) == []
    assert [member.incarnation for member in await log.members()] == ["b"]
    await other.close()


async def test_records_of_before_a_restart_of_the_machine_are_of_the_dead(path: Path, log: SqliteLog):
    """The monotonic clock begins anew: a record that expires in the far future is not alive."""
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("INSERT INTO dalsegno_replica VALUES ('old', 'old', 1, '', ?, 5000)", (2**50,))
    assert list(await log.members()) == []
    await accept(log, session(), taker="old")
    await log.join(Member("a", "a"), ttl=timedelta(seconds=60))
    assert len(await log.claim("a", limit=1)) == 1
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT incarnation FROM dalsegno_replica").fetchall() == [("a",)]


async def test_a_damaged_hot_tier_is_replaced(path: Path):
    """P10: the hot tier is expendable: it begins anew, for every process, and nothing else is the matter."""
    one, other = await SqliteHot.open(path), await SqliteHot.open(path)
    await publish(one, session(), 1, [PIECE])
    hot = beside(path, "-hot")
    for ending in ("", "-wal"):
        file = beside(hot, ending)
        with file.open("r+b") as open_file:
            open_file.write(b"\xff" * file.stat().st_size)
    for handle in (one, other):
        await wait_until(partial(_works, handle), description="the hot tier works again", timeout=15)
    await wait_until(lambda: _agree(one, other), description="both have the same one", timeout=15)
    third = await SqliteHot.open(path)
    assert await third.read(session(7)) is not None
    for opened in (one, other, third):
        await opened.close()


async def _works(hot: Hot) -> bool:
    try:
        await publish(hot, session(), 1, [PIECE])
        return await hot.read(session()) is not None
    except Unavailable:
        return False


async def _agree(one: Hot, other: Hot) -> bool:
    try:
        await publish(other, session(8), 1, [PIECE])
        await publish(one, session(7), 1, [PIECE])
        return await other.read(session(7)) is not None
    except Unavailable:
        return False


async def test_a_hot_tier_that_is_garbage_at_the_start_is_replaced(path: Path):
    """P10: never an error that stops a replica from starting."""
    beside(path, "-hot").write_bytes(b"garbage" * 5000)
    hot = await SqliteHot.open(path)
    await publish(hot, session(), 1, [PIECE])
    assert await hot.read(session()) is not None
    await hot.close()


async def test_a_hot_tier_that_is_locked_is_given_up_in_time(path: Path):
    """Hot 5: no call takes longer than 250 ms (and some for a busy machine); this gate is not left by itself."""
    hot = await SqliteHot.open(path)
    gate = Gate(beside(beside(path, "-hot"), "-gate"))
    assert gate.try_enter()
    started = time.monotonic()
    with pytest.raises(Unavailable):
        await publish(hot, session(), 1, [PIECE])
    assert time.monotonic() - started < 1
    assert await hot.read(session()) is None
    gate.leave()
    gate.close()
    await publish(hot, session(), 1, [PIECE])
    await hot.close()


async def test_a_zombie_hears_of_the_fence_with_its_first_piece(path: Path):
    """Hot 1, between handles: what `fence` has returned from holds for every process."""
    zombie, heir = await SqliteHot.open(path), await SqliteHot.open(path)
    await publish(zombie, session(), 1, [PIECE])
    await heir.fence(session(), 2)
    with pytest.raises(LeaseLost):
        await publish(zombie, session(), 1, [PIECE])
    await zombie.close()
    await heir.close()


def test_a_step_goes_on_only_from_where_it_was_left(path: Path):
    """What a process remembers of a step is checked where it is used: its transaction may have been undone, a newer
    epoch may have come, its row may be another session's by now.
    """
    prepare(path, product="sqlite_hot")
    steps, later = Steps(timedelta(minutes=1)), Piece(3, 5, 2, "msg_1", field="text", offset=5, delta=" world")
    last = Piece(3, 11, 2, "msg_1", field="text", offset=11, delta="!")
    with closing(connect(path)) as raw:
        cursor = raw.cursor()
        assert steps.publish(cursor, session(), 1, [PIECE])
        raw.execute("BEGIN")
        assert steps.publish(cursor, session(), 1, [later])
        raw.execute("ROLLBACK")
        assert steps.publish(cursor, session(), 1, [last])
        assert _shown(steps, cursor) == [PIECE], "no gap"
        assert steps.publish(cursor, session(), 1, [later])
        assert _shown(steps, cursor) == [PIECE, later]

        raw.execute("UPDATE dalsegno_step SET id = ?", (session(8).id,))
        assert steps.publish(cursor, session(), 1, [last])
        assert _shown(steps, cursor, 8) == [PIECE, later] and _shown(steps, cursor) == []

        assert steps.publish(cursor, session(9), 1, [PIECE])
        assert Steps(timedelta(minutes=1)).fence(cursor, session(9), 2) != "stale"
        assert not steps.publish(cursor, session(9), 1, [later])


def _shown(steps: Steps, cursor: sqlite3.Cursor, number: int = 1) -> list[Piece]:
    found = steps.read(cursor, session(number), 0, 0)
    return [] if found is None else list(found.pieces)


async def test_a_long_path_has_its_sockets_elsewhere(tmp_path: Path):
    """The system takes 108 bytes for a socket's path."""
    deep = tmp_path / ("deep" * 20) / ("deeper" * 20) / "log.db"
    one, other = await SqliteHot.open(deep), await SqliteHot.open(deep)
    heard: list[Hint] = []
    async with other.listen(heard.append):
        await one.tell([Hint("acme", "s1", 17)])
        await wait_until(lambda: heard == [Hint("acme", "s1", 17)], description="the hint is heard")
    await one.close()
    await other.close()
    assert not os.path.exists(deep.parent / "log.db-wake")


async def test_a_flood_of_hints_stops_nobody(path: Path):
    """A listener that does not listen has a full queue; hints are dropped, the sender goes on."""
    one, other = await SqliteHot.open(path), await SqliteHot.open(path)
    heard: list[Hint] = []
    async with other.listen(heard.append):
        started = time.monotonic()
        for number in range(5000):
            await one.tell([Hint("acme", "s1", number)])
        assert time.monotonic() - started < 2
        await wait_until(lambda: heard, description="some are heard")
    await one.close()
    await other.close()
