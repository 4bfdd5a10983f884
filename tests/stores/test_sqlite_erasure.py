"""What a deleted session leaves in the file: a row that can be read whatever becomes of its snapshot; nothing else."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from dalsegno.core.event import SessionCreated
from dalsegno.ports import Member
from dalsegno.stores.sqlite import SqliteLog, rows
from dalsegno.testing.conformance.acts import accept, admission, change, delete, session, speak, written

DELETED, ERASED = 3, 4
SECRET = "a secret of 25 letters ok"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def log(path: Path) -> AsyncIterator[SqliteLog]:
    log = await SqliteLog.open(path)
    await log.join(Member("a", "a"), ttl=timedelta(minutes=5))
    yield log
    await log.close()


def _status(path: Path) -> int:
    with closing(sqlite3.connect(path)) as raw:
        ((status,),) = raw.execute("SELECT status FROM dalsegno_session").fetchall()
    return int(status)


def _damage_snapshot(path: Path, state: bytes | None) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE dalsegno_session SET state = ?", (state,))


@pytest.mark.parametrize("state", [None, b"from long ago"], ids=["no snapshot", "another version's"])
@pytest.mark.parametrize("pieces", [0, 1, 2], ids=lambda pieces: f"{pieces} pieces erased")
async def test_a_tombstone_is_rebuilt_at_every_stage_of_its_erasure(
    path: Path, log: SqliteLog, monkeypatch: pytest.MonkeyPatch, pieces: int, state: bytes | None
):
    """From the whole log, from what is left of it, and from its last event: it is the same tombstone."""
    monkeypatch.setattr(rows, "ERASED_AT_ONCE", 2)
    for text in ("one", "two", "three", "four"):
        written(await speak(log, admission(session(), text, key=text)))
    epoch = await delete(log, session())
    tombstone = await log.load(session())
    for _ in range(pieces):
        assert await log._writer.do(lambda cursor, now: log._rows.erase_some(cursor, session(), epoch))
    _damage_snapshot(path, state)
    other = await SqliteLog.open(path)
    assert await other.load(session()) == tombstone
    assert [event.type for event in await other.read(session(), after=0)][-1] == "session.deleted"
    assert (_status(path), await other.unerased(limit=1)) == (DELETED, {session(): epoch})
    await other.erase(session(), epoch)
    _damage_snapshot(path, state)
    for handle in (log, other):
        assert await handle.load(session()) == tombstone
        assert [event.type for event in await handle.read(session(), after=0)] == ["session.deleted"]
    assert (_status(path), await other.unerased(limit=1)) == (ERASED, {})
    await other.close()


async def test_what_was_said_is_not_in_the_file_any_more(path: Path, log: SqliteLog):
    """Neither in events nor in the session's row, once the write-ahead log was copied back."""
    await change(log, session(1), SessionCreated("default", SECRET, {"who": SECRET}))
    for _ in range(50):
        await accept(log, session(1), SECRET)
    await accept(log, session(2), "hello")
    assert SECRET.encode() in _bytes(path)
    await log.erase(session(1), await delete(log, session(1)))
    assert SECRET.encode() not in _bytes(path)
    assert b"hello" in _bytes(path)


def _bytes(path: Path) -> bytes:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()
