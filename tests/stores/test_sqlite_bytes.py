"""What a turn costs in the file: at most half as much again as what was said, everything included."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from dalsegno.core import item
from dalsegno.core.admit import Admission, admit
from dalsegno.core.event import ItemDone, SessionCreated, ToolIntent, TurnCompleted
from dalsegno.core.input import Message, key_for
from dalsegno.ports import Member, Ref
from dalsegno.stores.sqlite import SqliteLog
from dalsegno.testing.conformance.acts import session, work, written

SAID, ASKED, FOUND, ANSWERED = 220, 150, 1800, 730
TURNS = 200


async def test_a_turn_costs_at_most_half_as_much_again_as_its_content(tmp_path: Path):
    """2.9 KB in seven events: a message, a call, its intent, its output, an answer, the turn's start and end."""
    path = tmp_path / "log.db"
    log = await SqliteLog.open(path)
    await log.join(Member("a", "a"), ttl=timedelta(minutes=5))
    await _turn(log, session(), "0")
    before = _size(path)
    for number in range(1, TURNS + 1):
        await _turn(log, session(), f"{number}")
    grown = _size(path) - before
    await log.close()
    content = SAID + ASKED + FOUND + ANSWERED
    assert grown / TURNS <= 1.5 * content, f"{grown / TURNS:.0f} bytes a turn"


async def _turn(log: SqliteLog, ref: Ref, key: str) -> None:
    said = Message("s" * SAID)
    keyed = key_for(key, said)
    wanted = Admission(ref.tenant, ref.id, said, keyed, "a", SessionCreated())
    admitted = written(
        await log.commit(ref, lambda found, known, now: admit(found, known, now, admission=wanted), digest=keyed.digest)
    )
    lease = admitted.lease
    assert lease is not None
    call = item.call("call_1", "look_up", "a" * ASKED, item_id="fc_0198f0c27_1.1")
    intent = ToolIntent("call_1", "look_up", "keyed", "k" * 22)
    await work(log, lease, ItemDone(call, "model#1"), intent)
    await work(log, lease, ItemDone(item.output("call_1", "f" * FOUND, item_id="fco_0198f0c27_1.2")))
    answer = item.message("w" * ANSWERED, item_id="msg_0198f0c27_1.3")
    await work(log, lease, ItemDone(answer, "model#2"), TurnCompleted(None), then="release")


def _size(path: Path) -> int:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size
