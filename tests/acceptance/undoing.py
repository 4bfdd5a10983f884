"""The agent of `test_undo`: it does three things that can be undone, and then fails. What happens is in the ledger."""

import asyncio
import os

from dalsegno import Call, Turn, tool
from dalsegno.ports import Undo
from tests.acceptance import ledger
from tests.acceptance.agents import BOOKING, PARAMSTYLE

SECONDS = 0.05


async def refund(undo: Undo) -> None:
    """Undoes a payment, with some time on either side in which a replica can die."""
    ledger.write("begun", turn=undo.call.turn, label=undo.call.id)
    await asyncio.sleep(SECONDS)
    ledger.write("undo", turn=undo.call.turn, label=undo.call.id, key=undo.key, of=undo.call.key)
    await asyncio.sleep(SECONDS)


async def free(undo: Undo) -> None:
    """Takes the row away, in the transaction that the record shares."""
    assert undo.call.transaction is not None
    ledger.write("begun", turn=undo.call.turn, label=undo.call.id)
    await undo.call.transaction.execute(
        BOOKING[os.environ.get(PARAMSTYLE, "qmark")], (f"free {undo.call.turn}", undo.call.key)
    )
    await asyncio.sleep(SECONDS)


@tool("keyed", compensate=refund)
async def pay(label: str, call: Call) -> str:
    """Pay."""
    ledger.write("pay", turn=call.turn, label=call.id, key=call.key)
    return "paid"


@tool("transactional", compensate=free)
async def book(label: str, call: Call) -> str:
    """Take a row."""
    assert call.transaction is not None
    await call.transaction.execute(BOOKING[os.environ.get(PARAMSTYLE, "qmark")], (f"book {call.turn}", call.key))
    return "booked"


async def agent(turn: Turn) -> None:
    """Pay, book, pay, fail."""
    await turn.call(pay, label="first")
    await turn.call(book, label="second")
    await turn.call(pay, label="third")
    raise ValueError("it was all for nothing")
