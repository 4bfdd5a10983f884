"""Turns that were rolled back: the graph goes on from before them."""

from functools import partial

from dalsegno.agents.langgraph.record import Drop, Record
from dalsegno.agents.langgraph.saver import Checkpointer
from dalsegno.agents.langgraph.thread import Checkpoint, Thread
from dalsegno.agents.turn import Turn


async def roll_back(saver: Checkpointer, turn: Turn, *, key: str) -> None:
    """Remove the checkpoints of turns that are no part of the conversation any more."""
    hidden = set(turn.notes.hidden)
    newest = (await saver.book(turn.session).refresh()).find("")
    if not hidden or newest is None or _turn_of(saver, newest, key) not in hidden:
        return
    book = saver.book(turn.session)
    whole = await book.everything()
    gone = [kept.name for kept in whole.all() if _turn_of(saver, kept, key) in hidden]
    await book.write(lambda thread: Drop(tuple(gone)))
    left = Thread()
    for record in whole.repeat([kept.name for kept in whole.all()]):
        left.apply(record, at=0)
    left.apply(Drop(tuple(gone)), at=0)
    # what is left may be older than all that a reader of the newest pages sees
    unseen = [name for name in left.lasting() if book.thread.find(*name) is None]
    for record in left.repeat(unseen)[1:]:
        await book.write(partial(_again, record))


def _again(record: Record, thread: Thread) -> Record:
    return record


def _turn_of(saver: Checkpointer, kept: Checkpoint, key: str) -> object:
    return saver.metadata(kept).get(key)
