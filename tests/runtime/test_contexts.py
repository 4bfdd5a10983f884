"""Transcripts at hand: kept within a budget of bytes, the least recently used first to go; nothing is read that says
nothing.
"""

import pytest

from dalsegno.core.context import Transcript
from dalsegno.core.session import Session
from dalsegno.errors import Unreadable
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


async def test_a_new_session_s_first_turn_reads_nothing():
    """Its log says that it was created, and no more; and if it was created with its first message, not even that."""
    contexts = Contexts(MemoryLog(MemoryDatabase()), Near(object()))
    transcript = await contexts.take(ONE, Session(id=ONE.id, tenant=ONE.tenant, head=1), before=1)
    assert (transcript.head, list(transcript.context().items)) == (1, [])
    created_with_it = await contexts.take(ONE, Session(id=ONE.id, tenant=ONE.tenant, head=3), before=0)
    assert created_with_it.head == 0
    with pytest.raises(Unreadable, match="has no event 2"):
        await contexts.take(ONE, Session(id=ONE.id, tenant=ONE.tenant, head=2), before=2)


async def test_what_a_summary_stands_for_is_not_read():
    """The context begins where the session says; of what is before that nothing is asked."""
    contexts = Contexts(MemoryLog(MemoryDatabase()), Near(object()))
    summarized = Session(id=ONE.id, tenant=ONE.tenant, head=9, through=9)
    assert (await contexts.take(ONE, summarized, before=9)).head == 9
