"""What is counted is what was committed, and counting changes nothing."""

import json
import logging
from datetime import timedelta
from functools import partial

from prometheus_client import CollectorRegistry

from dalsegno.core import codec
from dalsegno.core.admit import Admission, admit
from dalsegno.core.append import Decision, Draft, Keep, Known, append
from dalsegno.core.event import Event, SessionCreated, ToolUndone, TurnCompleted
from dalsegno.core.input import Message
from dalsegno.core.session import Session
from dalsegno.ops.logs import JsonLines, NamedAgent
from dalsegno.ops.telemetry import Figures, counted
from dalsegno.ports import Member, Ref, Transactions
from dalsegno.stores.memory import MemoryDatabase, MemoryLog

REF = Ref("default", "0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b")


async def test_turns_claims_and_takeovers_are_counted():
    """A turn is admitted and claimed; its replica dies; another one takes over and ends it."""
    registry, database = CollectorRegistry(), MemoryDatabase()
    figures = Figures(registry)
    first, second = (counted(MemoryLog(database), figures) for _ in range(2))
    for warm, name in ((first, "one"), (second, "two")):
        await warm.join(Member(name, name), ttl=timedelta(seconds=5))
    said = Admission(REF.tenant, REF.id, Message("hi"), opening=SessionCreated())
    await first.commit(REF, partial(_admit, admission=said))
    (claimed,) = await first.claim("one", limit=8)
    assert claimed.lease is not None
    await first.leave()
    (again,) = await second.claim("two", limit=8)
    assert again.lease is not None
    done = partial(append, lease=again.lease, drafts=[Draft(TurnCompleted(None), again.lease.turn)])
    await second.commit(REF, lambda session, known, now: done(session, now))
    undone = [ToolUndone("c1", "pay", "k"), ToolUndone("c2", "pay", "k", "incomplete"), ToolUndone("c3", "pay", "k")]
    figures.note(Event(9, "tool.undone", 2, 0, codec.encode(one)) for one in undone)
    value = registry.get_sample_value
    assert value("dalsegno_turns_created_total") == 1
    assert value("dalsegno_turns_started_total", {"kind": "first"}) == 1
    assert value("dalsegno_turns_ended_total", {"status": "completed"}) == 1
    assert value("dalsegno_calls_undone_total", {"status": "done"}) == 2
    assert value("dalsegno_calls_undone_total", {"status": "given_up"}) == 1
    assert (value("dalsegno_claims_total"), value("dalsegno_takeovers_total")) == (2, 1)
    assert value("dalsegno_commit_seconds_count", {"outcome": "write"}) == 2


async def test_a_counted_store_keeps_what_it_offers():
    """Transactions are offered if and only if the store offers them; what is kept is counted as kept."""
    registry, inner = CollectorRegistry(), MemoryLog(MemoryDatabase())
    warm = counted(inner, Figures(registry))
    assert isinstance(warm, Transactions) == isinstance(inner, Transactions)
    await warm.commit(REF, _keep)
    assert registry.get_sample_value("dalsegno_commit_seconds_count", {"outcome": "keep"}) == 1
    assert await warm.load(REF) is None
    await warm.close()


async def test_a_line_about_a_turn_says_which():
    """Also lines that are logged after the agent has raised; JSON stays JSON whatever is logged."""

    class Turn:
        session, id, attempt, epoch = "s", "t", 2, 5

    class Agent:
        name = "default"

        async def run(self, turn: object) -> None:
            record = logging.LogRecord("x", logging.INFO, "", 1, "said %r", ("line\nbreak",), None)
            record.extra = object()
            line = json.loads(JsonLines("r1").format(record))
            assert [line[name] for name in ("replica", "session", "turn", "attempt", "epoch")] == ["r1", "s", "t", 2, 5]
            assert line["message"] == "said 'line\\nbreak'"

    await NamedAgent(Agent()).run(Turn())


def _admit(session: Session | None, known: Known | None, now: int, *, admission: Admission) -> Decision:
    return admit(session, known, now, admission=admission)


def _keep(session: Session | None, known: Known | None, now: int) -> Decision:
    return Keep(None)
