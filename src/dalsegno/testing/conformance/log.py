"""The port `Log`: commits, numbers, keys, reads and tenants. Each test quotes the promise that it checks."""

import asyncio
import itertools
from collections.abc import Sequence

import msgspec
import pytest

from dalsegno.core.admit import Admitted, admit
from dalsegno.core.append import Decision, Draft, Fenced, Keep, Known, Refusal, Write, append, record
from dalsegno.core.event import Event, SessionCreated, TurnCreated
from dalsegno.core.input import Message
from dalsegno.core.lease import Lease
from dalsegno.core.session import Session, fold, replace
from dalsegno.errors import DalsegnoError, Unreadable
from dalsegno.ports import Log, Query, Ref
from dalsegno.testing.conformance.acts import (
    accept,
    admission,
    always,
    begin,
    change,
    delete,
    history,
    interrupted,
    joined,
    note,
    session,
    speak,
    work,
    written,
)
from dalsegno.testing.conformance.worlds import LogWorld


class LogCases:
    """A subclass supplies the fixture `world`: a `LogWorld`."""

    async def test_what_one_handle_writes_every_other_reads(self, world: LogWorld) -> None:
        """Log 1: what `commit` returned as written is read by everyone from then on."""
        one, other = await world.open(), await world.open()
        for count in range(1, 11):
            admitted = await accept(one, session(), f"message {count}")
            assert await other.load(session()) == admitted.session == await one.load(session())
            assert (await history(other, session()))[-1] == admitted.events[-1]
            one, other = other, one

    async def test_what_is_written_survives_its_writer(self, world: LogWorld) -> None:
        """Log 1: what `commit` returned as written is on stable storage."""
        log = await world.open()
        admitted = await accept(log, session())
        await log.close()
        log = await world.open()
        assert await log.load(session()) == admitted.session
        assert await history(log, session()) == list(admitted.events)

    async def test_what_was_never_created_is_not_there(self, world: LogWorld) -> None:
        """Log 1: a session is what was written to it; none, nothing."""
        log = await world.open()
        assert await log.load(session()) is None
        assert list(await log.read(session(), after=0)) == []

    async def test_decisions_about_a_session_happen_one_after_another(self, world: LogWorld) -> None:
        """Log 2: each is given the session as the one before it left it."""
        logs = [await world.open(), await world.open()]
        await change(logs[0], session(), SessionCreated())

        def decide(found: Session | None, known: Known | None, now: int) -> Decision[int]:
            assert found is not None
            fresh, events = record(found, [Draft(TurnCreated(Message(content="hi")), 0)], now)
            return Write(fresh, events, found.head)

        decisions = await asyncio.gather(*(log.commit(session(), decide) for log in logs * 20))
        assert sorted(map(written, decisions)) == list(range(1, 41)), "two decisions saw the same session"
        assert await world.seqs(session()) == list(range(1, 42))

    async def test_a_decision_is_shown_what_is_stored(self, world: LogWorld) -> None:
        """Log 2: each is given the session as the one before it left it; `commit`: what is known under `digest`."""
        log = await world.open()
        first = admission(session(), key="k1")
        assert first.key is not None
        admitted = written(await speak(log, first))

        def look(found: Session | None, known: Known | None, now: int) -> Decision[tuple[Session | None, Known | None]]:
            assert abs(now - admitted.events[-1].at) < 60_000, "the clock is not the store's, in Unix milliseconds"
            return Keep((found, known))

        known = Known(first.key.fingerprint, 2, 2, "queued")
        assert await log.commit(session(), look) == Keep((admitted.session, None))
        assert await log.commit(session(), look, digest=first.key.digest) == Keep((admitted.session, known))
        assert await log.commit(session(), look, digest=bytes(16)) == Keep((admitted.session, None))
        assert await log.commit(session(2), look, digest=first.key.digest) == Keep((None, None))

    async def test_events_session_and_key_are_written_together_or_not_at_all(self, world: LogWorld) -> None:
        """Log 2: its events, session and key are written together or not at all."""
        log = await world.open()
        admitted = written(await speak(log, admission(session(), key="k1")))
        assert (await world.seqs(session()), await world.keys(session())) == ([1, 2], 1)

        def decide(found: Session | None, known: Known | None, now: int) -> Decision[None]:
            assert found is not None
            fresh, events = record(found, [Draft(TurnCreated(Message(content="hi")), 0)], now)
            unknown = Event(fresh.head + 1, "turn.dreamt", None, now, b"{}")
            keys = ((b"2" * 16, Known(b"", 3, 3, "queued")),)
            return Write(replace(fresh, head=unknown.seq), (*events, unknown), None, keys)

        with pytest.raises(Unreadable):
            await log.commit(session(), decide)
        assert (await world.seqs(session()), await world.keys(session())) == ([1, 2], 1)
        assert await log.load(session()) == admitted.session

    async def test_a_decision_that_raises_leaves_nothing_behind(self, world: LogWorld) -> None:
        """Log 2: written together or not at all; the error is the caller's, and the store goes on."""
        log = await world.open()
        admitted = await accept(log, session())

        def decide(found: Session | None, known: Known | None, now: int) -> Decision[None]:
            raise ZeroDivisionError("decided by nobody")

        for ref in (session(), session(2)):
            with pytest.raises(ZeroDivisionError, match="decided by nobody"):
                await log.commit(ref, decide)
        assert await log.load(session()) == admitted.session
        assert await log.load(session(2)) is None
        assert written(await speak(log, admission(session()))).receipt.seq == 3

    async def test_what_writes_nothing_comes_back_as_it_is(self, world: LogWorld) -> None:
        """Log 2: only a `Write` writes."""
        log = await world.open()
        admitted = await accept(log, session())
        for decision in (Keep("kept"), Refusal("session_busy", "later"), Fenced()):
            assert await log.commit(session(), always(decision)) == decision
            assert await log.commit(session(2), always(decision)) == decision
        assert await log.load(session()) == admitted.session
        assert await log.load(session(2)) is None

    async def test_numbers_have_no_gaps_however_many_speak(self, world: LogWorld) -> None:
        """Log 3: event numbers are 1, 2, 3 … without gaps."""
        logs = [await world.open(), await world.open(), await world.open()]
        said = await asyncio.gather(*(accept(log, session(), f"{n}") for n, log in enumerate(logs * 10)))
        assert sorted(admitted.receipt.seq for admitted in said) == list(range(2, 32))
        assert await world.seqs(session()) == list(range(1, 32))
        events = await history(logs[0], session())
        assert fold(session().id, session().tenant, events) == await logs[1].load(session())

    async def test_a_number_is_never_used_again(self, world: LogWorld) -> None:
        """Log 3 and 4: a write decided on a head that is no longer the session's is refused by the store itself."""
        log = await world.open()
        stale = (await accept(log, session())).session
        before = await accept(log, session(), "in between")
        await _refused(log, admit(stale, None, 0, admission=admission(session(), "late")))
        assert await world.seqs(session()) == [1, 2, 3]
        assert await log.load(session()) == before.session
        assert (await history(log, session()))[-1] == before.events[-1]

    async def test_a_write_that_leaves_a_gap_is_refused(self, world: LogWorld) -> None:
        """Log 3: event numbers are 1, 2, 3 … without gaps."""
        log = await world.open()
        found = (await accept(log, session())).session
        assert found is not None
        await _refused(log, admit(replace(found, head=7), None, 0, admission=admission(session())))
        assert await log.load(session()) == found

    async def test_a_write_under_a_stale_epoch_is_refused(self, world: LogWorld) -> None:
        """Log 4: a write decided on an epoch that is no longer the session's is refused by the store itself."""
        log = await joined(world, "a")
        old = await begin(log, session(), owner="a")
        zombie = await log.load(session())
        assert zombie is not None
        await work(log, old, then="release")
        await log.claim("a", limit=1)
        now = await log.load(session())
        assert now is not None and now.epoch == old.epoch + 1
        zombie = replace(zombie, head=now.head)
        await _refused(log, append(zombie, 0, lease=old, drafts=[Draft(note(), old.turn)]))
        await _refused(log, Write(zombie, (), None))
        assert await log.load(session()) == now

    async def test_who_is_cancelled_is_told_when_it_is_decided(self, world: LogWorld) -> None:
        """Log 8: a caller that is cancelled while it waits for its commit is told so once that has been decided."""
        log, refs = await world.open(), map(session, itertools.count())
        rounds = 1
        found: dict[Ref, Sequence[int]] = {}
        while told := await interrupted(world, log, list(itertools.islice(refs, 4)), rounds=rounds):
            found |= told
            rounds += 1 + rounds // 8
        for ref, seqs in found.items():
            later = await accept(log, ref, "and this?")
            assert later.receipt.seq == max(seqs, default=1) + 1, "it was written after its caller had been told"

    async def test_a_key_says_it_once(self, world: LogWorld) -> None:
        """P2: for one key at most one message is appended; repeats return the first receipt."""
        logs = [await world.open(), await world.open()]
        same = admission(session(), "once", key="k1")
        decisions = await asyncio.gather(*(speak(log, same) for log in logs * 25))
        receipts = [decision.result.receipt for decision in decisions if isinstance(decision, Write | Keep)]
        assert sorted(receipt.replayed for receipt in receipts) == [False] + [True] * 49
        assert len({msgspec.structs.replace(receipt, replayed=False) for receipt in receipts}) == 1
        assert (await world.seqs(session()), await world.keys(session())) == ([1, 2], 1)

    async def test_a_key_is_not_lent_to_another_body(self, world: LogWorld) -> None:
        """P2: the same key with another body is refused and changes nothing."""
        log = await world.open()
        first = written(await speak(log, admission(session(), "once", key="k1")))
        refusal = await speak(log, admission(session(), "twice", key="k1"))
        assert isinstance(refusal, Refusal) and refusal.code == "key_reused"
        assert await log.load(session()) == first.session

    async def test_the_first_of_a_digest_stays(self, world: LogWorld) -> None:
        """`Write`: remember the keys; the first of a digest stays."""
        log = await world.open()
        found = await change(log, session(), SessionCreated())
        digest, first, second = b"\0" * 16, Known(b"\0f", 1, 1, "queued"), Known(b"", 2, 2, "done")
        written(await log.commit(session(), always(Write(found, (), None, ((digest, first),)))))
        written(await log.commit(session(), always(Write(found, (), None, ((digest, second), (b"other", second))))))
        assert await _known(log, digest) == first
        assert await _known(log, b"other") == second

    async def test_a_key_is_its_sessions_own(self, world: LogWorld) -> None:
        """P2: for one (tenant, session, key)."""
        log = await world.open()
        refs = (session(1), session(2), session(1, tenant="other"))
        for ref in refs:
            await accept(log, ref)
        for ref in refs:
            assert isinstance(await speak(log, admission(ref, ref.tenant + ref.id, key="k1")), Write)

    async def test_a_read_is_a_prefix_while_others_write(self, world: LogWorld) -> None:
        """`read`: one consistent prefix of the log. P3: each read is a prefix."""
        writer, reader = await joined(world, "a"), await world.open()
        lease = await begin(writer, session(), owner="a")
        writing = asyncio.create_task(_write_in_threes(writer, lease, rounds=20))
        have = 3
        while not writing.done():
            found = await reader.load(session())
            seqs = [event.seq for event in await reader.read(session(), after=0)]
            assert found is not None and found.head >= have and len(seqs) >= found.head, "a read went back"
            assert seqs == list(range(1, len(seqs) + 1)), "a read has a gap"
            assert len(seqs) % 3 == 0, "a read saw a part of a write"
            have = len(seqs)
            await asyncio.sleep(0)
        await writing
        assert await world.seqs(session()) == list(range(1, 64))

    async def test_reads_go_by_pages(self, world: LogWorld) -> None:
        """`read`: up to `limit` events after number `after`, in order."""
        log = await joined(world, "a")
        lease = await begin(log, session(), owner="a")
        await work(log, lease, *(note(f"{n}") for n in range(7)))
        for after, limit in itertools.product(range(12), (1, 2, 3, 10, 100)):
            page = await log.read(session(), after=after, limit=limit)
            assert [event.seq for event in page] == list(range(after + 1, min(10, after + limit) + 1))

    async def test_nothing_of_one_tenant_is_found_under_another(self, world: LogWorld) -> None:
        """Log 7: nothing of one tenant is found under another."""
        log = await world.open()
        mine, yours = session(tenant="acme"), session(tenant="acme2")
        first = written(await speak(log, admission(mine, "secret", key="k1")))
        assert await log.load(yours) is None
        assert list(await log.read(yours, after=0)) == []
        assert (await log.list("acme2", Query())).sessions == ()
        await accept(log, yours, "other")
        epoch = await delete(log, yours)
        await log.erase(yours, epoch)
        assert await log.load(mine) == first.session
        assert await history(log, mine) == list(first.events)
        assert await world.keys(mine) == 1
        await _refused(log, _somebody_elses(yours), ref=mine)
        assert await log.load(mine) == first.session


def _somebody_elses(ref: Ref) -> Decision[Admitted]:
    """A write that is another session's."""
    return admit(None, None, 0, admission=admission(ref))


async def _refused(log: Log, decision: Decision[object], *, ref: Ref | None = None) -> None:
    """The store does not write it. How it says so is its own affair."""
    assert isinstance(decision, Write)
    try:
        carried_out = await log.commit(ref or session(), always(decision))
    except DalsegnoError:
        return
    assert not isinstance(carried_out, Write), "the store wrote it"


async def _known(log: Log, digest: bytes) -> Known | None:
    decision = await log.commit(session(), lambda found, known, now: Keep(known), digest=digest)
    assert isinstance(decision, Keep)
    return decision.result


async def _write_in_threes(log: Log, lease: Lease, *, rounds: int) -> None:
    for _ in range(rounds):
        written(await work(log, lease, *(note(f"{n}") for n in range(3))))
