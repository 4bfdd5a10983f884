"""A tool's transaction in SQLite, where the shared suite cannot look: inside its commit."""

import asyncio
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from dalsegno.core.append import Draft, append
from dalsegno.ports import Member
from dalsegno.stores.sqlite import SqliteLog
from dalsegno.stores.sqlite.tool import SqliteTransaction
from dalsegno.testing.conformance.acts import begin, history, note, session
from tests.support import wait_until


async def test_who_is_cancelled_during_a_tools_commit_is_told_when_it_is_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Log 8: whoever looks next sees what became of it, and not a commit that is still on its way."""
    entered, go_on, commit = threading.Event(), threading.Event(), SqliteTransaction._commit

    def slow_commit(self: SqliteTransaction, decide):
        entered.set()
        go_on.wait()
        return commit(self, decide)

    monkeypatch.setattr(SqliteTransaction, "_commit", slow_commit)
    log = await SqliteLog.open(tmp_path / "log.db")
    await log.join(Member("here", "here"), ttl=timedelta(seconds=5))
    lease = await begin(log, session(1), owner="here")
    done = Draft(note("done"), lease.turn)
    before = len(await history(log, session(1)))

    async def tool() -> None:
        async with log.transaction(session(1), timeout=timedelta(seconds=5)) as transaction:
            await transaction.commit(lambda session, known, now: append(session, now, lease=lease, drafts=[done]))

    running = asyncio.create_task(tool())
    await wait_until(entered.is_set, description="the commit begins")
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0)
    told_before = running.done()
    go_on.set()
    assert not told_before, "told before it was decided"
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(await history(log, session(1))) == before + 1
    await log.close()
