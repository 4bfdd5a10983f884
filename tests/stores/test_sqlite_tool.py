"""A tool's transaction in SQLite, where the shared suite cannot look: inside its commit."""

import asyncio
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from dalsegno.agents.plain import FunctionAgent
from dalsegno.agents.tool import tool
from dalsegno.core.append import Draft, append
from dalsegno.core.event import SessionCreated
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Message
from dalsegno.core.part import ToolCall
from dalsegno.ports import Call, Member, Ref
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.replica import Replica
from dalsegno.runtime.service import Service
from dalsegno.stores.memory import MemoryBlobs, MemoryHot
from dalsegno.stores.sqlite import SqliteLog
from dalsegno.stores.sqlite.tool import SqliteTransaction
from dalsegno.testing.conformance.acts import begin, history, note, session
from tests.runtime.fleet import RandomIds
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

    async def work() -> None:
        async with log.transaction(session(1), timeout=timedelta(seconds=5)) as transaction:
            await transaction.commit(lambda session, known, now: append(session, now, lease=lease, drafts=[done]))

    running = asyncio.create_task(work())
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


async def test_a_call_beside_a_tools_transaction_does_not_keep_it_from_its_end(tmp_path: Path):
    """The transaction has the file's one writer until it is recorded: what is recorded beside it waits, and lets it."""
    begun, looked = asyncio.Event(), asyncio.Event()

    @tool("transactional", timeout=timedelta(seconds=5))
    async def pay(call: Call) -> str:
        assert call.transaction is not None
        await call.transaction.execute("CREATE TABLE paid (n)")
        begun.set()
        await looked.wait()
        for _ in range(100):
            await asyncio.sleep(0)  # whatever the other call has to record, it is about to by now
        return "paid"

    @tool("read")
    async def look() -> str:
        await begun.wait()
        looked.set()
        return "seen"

    async def model(context):
        if context.items[-1]["type"] == "function_call_output":
            yield "done"
        else:
            yield ToolCall("pay")
            yield ToolCall("look")

    async def agent(turn: Turn) -> None:
        while (reply := await turn.generate(model, tools=[pay, look])).calls:
            await turn.perform(reply)

    log, blobs = await SqliteLog.open(tmp_path / "log.db"), MemoryBlobs({})
    replica = Replica(Member("r", "r"), {"default": FunctionAgent(agent)}, warm=log, hot=MemoryHot(), blobs=blobs)
    service = Service(replica, warm=log, blobs=blobs, ids=RandomIds())
    await replica.start()
    ref = Ref("t", (await service.create("t", id=None, opening=SessionCreated())).id)
    receipt = await service.admit(ref, Message("go"))
    turn = await service.turn(ref, turn_id(ref.id, receipt.turn), wait=timedelta(seconds=30))
    outputs = [item["output"] for item in turn.output if item["type"] == "function_call_output"]
    assert (turn.status, sorted(map(str, outputs))) == ("completed", ["paid", "seen"])
    await replica.drain()
    await replica.stop()
    await log.close()
