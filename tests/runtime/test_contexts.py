"""Transcripts at hand: kept within a budget of bytes, the least recently used first to go."""

from dalsegno.core.context import Transcript
from dalsegno.core.session import Session
from dalsegno.ports import Ref
from dalsegno.runtime.contexts import Contexts
from dalsegno.runtime.near import Near
from dalsegno.stores.memory import MemoryDatabase, MemoryLog

WEIGHT = 300
ONE, OTHER = Ref("t", "one"), Ref("t", "other")


async def test_one_that_is_given_back_twice_is_weighed_once():
    """A task that parked and the one that goes on with its turn both give the session's transcript back."""
    contexts = Contexts(MemoryLog(MemoryDatabase()), Near(object()), budget_bytes=2 * WEIGHT)
    first = Transcript(OTHER.id, head=1, weight=WEIGHT)
    contexts.give_back(OTHER, first)
    for _ in range(3):
        contexts.give_back(ONE, Transcript(ONE.id, head=1, weight=WEIGHT))
    assert await contexts.take(OTHER, Session(id=OTHER.id, tenant=OTHER.tenant, head=1), before=1) is first
