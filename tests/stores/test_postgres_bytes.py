"""What a turn costs in the database: at most half as much again as what was said, indexes and everything included."""

import asyncio
import random
import string
from datetime import timedelta

import psycopg
import pytest

from dalsegno.core import item
from dalsegno.core.admit import Admission, admit
from dalsegno.core.event import ItemDone, SessionCreated, ToolIntent, TurnCompleted
from dalsegno.core.input import Message, key_for
from dalsegno.ports import Member, Ref
from dalsegno.stores.postgres import PostgresLog
from dalsegno.testing.conformance.acts import session, work, written

SAID, ASKED, FOUND, ANSWERED = 200, 60, 2048, 600
TABLES = (
    "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname LIKE 'dalsegno\\_%' AND relkind IN ('r', 'p')"
)


@pytest.mark.parametrize(("turns", "sessions"), [(100, 16), (500, 8)])
async def test_a_turn_costs_at_most_half_as_much_again_as_its_content(database: str, turns: int, sessions: int):
    """2.9 KB in seven events: a message, a call, its intent, its output, an answer, the turn's start and end.

    Of several sessions at once: what a session by itself leaves empty on its pages depends on the turn's exact size.
    """
    log = await PostgresLog.open(database)
    await log.join(Member("a", "a"), ttl=timedelta(minutes=5))

    async def talk(ref: Ref) -> None:
        for number in range(turns):
            await _turn(log, ref, f"{number}")

    refs = [session(number) for number in range(sessions)]
    await asyncio.gather(*(_turn(log, ref, "first") for ref in refs))
    before = _size(database)
    await asyncio.gather(*map(talk, refs))
    grown = _size(database) - before
    await log.close()
    content = SAID + ASKED + FOUND + ANSWERED
    assert grown / turns / sessions <= 1.5 * content, f"{grown / turns / sessions:.0f} bytes a turn, of {content}"


async def _turn(log: PostgresLog, ref: Ref, key: str) -> None:
    said = Message(_noise(SAID))
    keyed = key_for(key, said)
    wanted = Admission(ref.tenant, ref.id, said, keyed, "a", SessionCreated())
    admitted = written(
        await log.commit(ref, lambda found, known, now: admit(found, known, now, admission=wanted), digest=keyed.digest)
    )
    lease = admitted.lease
    assert lease is not None
    call = item.call("call_1", "look_up", _noise(ASKED), item_id="fc_0198f0c27_1.1")
    intent = ToolIntent("call_1", "look_up", "keyed", "k" * 22)
    await work(log, lease, ItemDone(call, "model#1"), intent)
    await work(log, lease, ItemDone(item.output("call_1", _noise(FOUND), item_id="fco_0198f0c27_1.2")))
    answer = item.message(_noise(ANSWERED), item_id="msg_0198f0c27_1.3")
    await work(log, lease, ItemDone(answer, "model#2"), TurnCompleted(None), then="release")


def _noise(size: int) -> str:
    """Text that does not compress."""
    return "".join(random.choices(string.ascii_letters + string.digits, k=size))


def _size(database: str) -> int:
    with psycopg.connect(database) as raw:
        row = raw.execute(TABLES).fetchone()
        assert row is not None
        return int(row[0])
