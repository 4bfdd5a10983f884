"""The port `Transactions`: what a tool writes and what the log records are one."""

import asyncio
from datetime import timedelta
from functools import partial

import pytest

from dalsegno.core.append import Appended, Decide, Decision, Draft, Fenced, Known, Refusal, Write, append
from dalsegno.core.lease import Lease
from dalsegno.core.session import Session
from dalsegno.errors import DalsegnoError, Refused, TookTooLong
from dalsegno.ports import Member
from dalsegno.testing.conformance.acts import accept, always, begin, eventually, joined, leased, note, session, work
from dalsegno.testing.conformance.worlds import Shared, TransactionWorld

AMPLE = timedelta(seconds=30)
SHORT = timedelta(milliseconds=300)


class TransactionCases:
    """A subclass supplies the fixture `world`: a `TransactionWorld`."""

    async def test_both_become_durable_together(self, world: TransactionWorld) -> None:
        """Transactions 1: what the tool wrote and what `commit` decided become durable together."""
        log, lease = await _begin(world)
        async with log.transaction(session(), timeout=AMPLE) as transaction:
            await world.put(transaction, "paid", 7)
            assert await world.look("paid") is None, "others see what is not committed"
            assert await world.seqs(session()) == [1, 2, 3]
            decision = await transaction.commit(_record(lease))
            assert isinstance(decision, Write)
            assert (await world.look("paid"), await world.seqs(session())) == (7, [1, 2, 3, 4])
        assert (await world.look("paid"), await world.seqs(session())) == (7, [1, 2, 3, 4])
        assert await log.load(session()) == decision.result.session
        assert isinstance(await work(log, lease, note()), Write)

    async def test_leaving_without_commit_undoes_everything(self, world: TransactionWorld) -> None:
        """`transaction`: leaving the context without `commit` undoes everything, by an error too."""
        log, _ = await _begin(world)
        async with log.transaction(session(), timeout=AMPLE) as transaction:
            await world.put(transaction, "paid", 7)
        with pytest.raises(ZeroDivisionError):
            async with log.transaction(session(), timeout=AMPLE) as transaction:
                await world.put(transaction, "paid", 8)
                raise ZeroDivisionError
        await _nothing_happened(world, log)

    async def test_a_tool_that_is_cancelled_leaves_nothing(self, world: TransactionWorld) -> None:
        """`transaction`: leaving the context without `commit` undoes everything."""
        log, _ = await _begin(world)
        inside = asyncio.Event()

        async def tool() -> None:
            async with log.transaction(session(), timeout=AMPLE) as transaction:
                await world.put(transaction, "paid", 7)
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(tool())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _nothing_happened(world, log)

    async def test_a_refused_decision_undoes_what_the_tool_wrote(self, world: TransactionWorld) -> None:
        """Transactions 2: a refused or fenced decision undoes what the tool wrote."""
        log, lease = await _begin(world)
        other = await joined(world, "b")
        await world.kill(log)
        await other.bury()
        await leased(other, "b")
        log = await world.open()
        for decide, answer in (
            (_record(lease), Fenced()),
            (always(Refusal("unread", "there is more")), Refusal("unread", "there is more")),
        ):
            async with log.transaction(session(), timeout=AMPLE) as transaction:
                await world.put(transaction, "paid", 7)
                assert await transaction.commit(decide) == answer
            await _nothing_happened(world, log)

    async def test_a_decision_that_raises_undoes_what_the_tool_wrote(self, world: TransactionWorld) -> None:
        """Transactions 1: together or not at all."""
        log, _ = await _begin(world)

        def decide(found: Session | None, known: Known | None, now: int) -> Decision[Appended]:
            raise ZeroDivisionError

        async with log.transaction(session(), timeout=AMPLE) as transaction:
            await world.put(transaction, "paid", 7)
            with pytest.raises(ZeroDivisionError):
                await transaction.commit(decide)
        await _nothing_happened(world, log)

    async def test_time_runs_out(self, world: TransactionWorld) -> None:
        """Transactions 3: after `timeout` it is undone and the next call raises `TookTooLong`."""
        log, lease = await _begin(world)
        async with log.transaction(session(), timeout=SHORT) as transaction:
            await world.put(transaction, "paid", 7)
            errors: list[TookTooLong] = []

            async def late() -> bool:
                try:
                    await world.put(transaction, "paid", 8)
                except TookTooLong as error:
                    errors.append(error)
                return bool(errors)

            await eventually(late, description="the transaction is too old")
            assert errors[0].outcome == "not_applied"
            await _nothing_happened(world, log)
            with pytest.raises(TookTooLong):
                await transaction.commit(_record(lease))
        await _nothing_happened(world, log)

    async def test_a_transaction_that_is_too_old_holds_nobody_up(self, world: TransactionWorld) -> None:
        """Transactions 3: after `timeout` it is undone, although its tool has not come back."""
        log, lease = await _begin(world)
        other = await world.open()
        async with log.transaction(session(), timeout=SHORT) as forgotten:
            await world.put(forgotten, "paid", 7)
            await accept(other, session(), "next")
            async with other.transaction(session(), timeout=AMPLE) as transaction:
                await world.put(transaction, "paid", 9)
                assert isinstance(await transaction.commit(_record(lease)), Write)
        assert await world.look("paid") == 9

    async def test_nobody_ends_it_behind_our_back(self, world: TransactionWorld) -> None:
        """`execute`: statements that would end the transaction are refused."""
        log, _ = await _begin(world)
        for ending in world.endings:
            async with log.transaction(session(), timeout=AMPLE) as transaction:
                await world.put(transaction, "paid", 7)
                with pytest.raises(Refused):
                    await transaction.execute(ending)
            await _nothing_happened(world, log)

    async def test_nothing_follows_a_commit(self, world: TransactionWorld) -> None:
        """`Transaction.commit`: append in this same transaction and commit both. Nothing can follow."""
        log, lease = await _begin(world)
        async with log.transaction(session(), timeout=AMPLE) as transaction:
            await world.put(transaction, "paid", 7)
            await transaction.commit(_record(lease))
            with pytest.raises(DalsegnoError):
                await world.put(transaction, "paid", 8)
            with pytest.raises(DalsegnoError):
                await transaction.commit(_record(lease))
        assert (await world.look("paid"), await world.seqs(session())) == (7, [1, 2, 3, 4])


async def _begin(world: TransactionWorld) -> tuple[Shared, Lease]:
    log = await world.open()
    await log.join(Member("a", "replica-a"), ttl=world.ttl)
    return log, await begin(log, session(), owner="a")


async def _nothing_happened(world: TransactionWorld, log: Shared) -> None:
    """The tool wrote nothing, the log has nothing more, and whoever comes next is served."""
    assert await world.look("paid") is None
    assert await world.seqs(session()) == [1, 2, 3]
    async with log.transaction(session(), timeout=AMPLE) as transaction:
        await world.put(transaction, "paid", 1)


def _record(lease: Lease) -> Decide[Appended]:
    return partial(_append, lease=lease)


def _append(found: Session | None, known: Known | None, now: int, *, lease: Lease) -> Decision[Appended]:
    return append(found, now, lease=lease, drafts=[Draft(note("paid"), lease.turn)])
