"""A fleet's sessions move to another store while both serve: between two memory stores, in one process."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from dalsegno.core import codec, item
from dalsegno.core.append import Write
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import Event, ItemDone, SessionCreated
from dalsegno.core.idle import Policy
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Message, ToolResult
from dalsegno.core.move import Luggage, seal
from dalsegno.errors import Refused, Unavailable
from dalsegno.ports import Query, Ref
from dalsegno.runtime.archivist import Archivist
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.mover import Mover, Report, Route
from dalsegno.runtime.removal import Plan, Removal
from dalsegno.runtime.replica import Tuning
from dalsegno.runtime.shelf import with_shelf
from dalsegno.stores.memory import MemoryBlobs, MemoryDatabase, MemoryLog
from dalsegno.testing.conformance.acts import admission, session, speak, written
from tests.runtime.fleet import TENANT, Fleet, fleet, streamed
from tests.runtime.test_takeover import Telling, crashing
from tests.support import wait_until

QUICK = Tuning(bury_every=timedelta(milliseconds=10), sweep_every=timedelta(milliseconds=50))
SETTLING = Tuning(bury_every=timedelta(milliseconds=10), claim_every=timedelta(milliseconds=20), settling=True)


async def echo(turn: Turn) -> None:
    await turn.say(f"you said {turn.text}")


@asynccontextmanager
async def two(agent=echo, *, settling: Tuning = SETTLING) -> AsyncIterator[tuple[Fleet, Fleet]]:
    """A fleet, and another on an empty store, which share the cold tier."""
    async with fleet(agent, tuning=QUICK) as a, fleet(agent, count=0, tuning=settling) as b:
        b.objects = a.objects
        await b.start()
        yield a, b


def route(a: Fleet, b: Fleet, *, names: str = "AB") -> Route:
    return Route(MemoryLog(a.database), MemoryLog(b.database), names[0], names[1])


async def remove(along: Route, **plan: Any) -> list[Report]:
    told: list[Report] = []
    await asyncio.wait_for(Removal(along, Plan(**plan), told=told.append).run(), timeout=30)
    return told


def whats(told: list[Report]) -> list[str]:
    return sorted(report.what for report in told)


def stored(database: MemoryDatabase, ref: Ref) -> tuple[list[Event], dict]:
    row = database.rows[ref]
    return list(database.events(ref, row, after=0, limit=100_000)), database.keys(ref)


def same(a: Fleet, b: Fleet, ref: Ref) -> None:
    """The destination holds what the source holds, byte for byte, and then that it settled."""
    source, keys = stored(a.database, ref)
    target, there = stored(b.database, ref)
    assert target[: len(source)] == source and source[-1].type == "session.moved"
    assert target[len(source)].type == "session.settled"
    assert keys.items() <= there.items()


async def test_a_session_goes_on_in_the_other_store():
    """Its history, its keys and its number of events are as they were; the conversation goes on."""
    async with two() as (a, b):
        ref = await a.session()
        receipt = await a.say(ref, "hello", key="k1")
        await a.end_of(ref, receipt)
        (report,) = await remove(route(a, b))
        assert (report.what, report.ref) == ("moved", ref)
        same(a, b, ref)
        again = await b.say(ref, "hello", key="k1")
        assert (again.seq, again.turn, again.replayed) == (receipt.seq, receipt.turn, True)
        with pytest.raises(Refused, match="key_reused"):
            await b.say(ref, "something else", key="k1")
        assert (await b.ask(ref, "and now?")).output[0]["content"][0]["text"] == "you said and now?"
        assert (report.events, report.bytes) == (
            len(stored(a.database, ref)[0]),
            sum(len(event.data) for event in stored(a.database, ref)[0]),
        )


async def test_where_it_was_it_is_not_found_but_elsewhere():
    """Whatever is asked about it there: 503 and not applied, never an older history. It is listed where it lives."""
    async with two() as (a, b):
        ref = await a.session()
        turn = turn_id(ref.id, (await a.say(ref, "hello")).turn)
        await a.any.turn(ref, turn, wait=timedelta(seconds=10))
        assert len((await a.any.list(TENANT, Query())).sessions) == 1
        await remove(route(a, b))
        service, before = a.any, stored(a.database, ref)
        asked: list[Callable[[], Any]] = [
            lambda: service.get(ref),
            lambda: service.items(ref, after=0, limit=10),
            lambda: service.events(ref, after=0, limit=10),
            lambda: service.follow(ref, after=None),
            lambda: service.turn(ref, turn),
            lambda: service.update(ref, {}, head=None),
            lambda: service.fork(ref, at=None),
            lambda: service.delete(ref),
            lambda: service.admit(ref, Message("hello"), key="k9"),
            lambda: service.admit(ref, Message("hello"), opening=SessionCreated()),
        ]
        for ask in asked:
            with pytest.raises(Unavailable) as caught:
                await ask()
            assert (caught.value.outcome, caught.value.code) == ("not_applied", "store_unavailable")
        assert stored(a.database, ref) == before
        assert (await service.list(TENANT, Query())).sessions == ()
        assert [one.id for one in (await b.any.list(TENANT, Query())).sessions] == [ref.id]


async def test_what_is_not_here_yet_is_on_its_way():
    """A store that is being filled answers 503 about what it does not know, and begins nothing."""
    async with two() as (a, b):
        ref = await a.session()
        service = b.any
        asked: list[Callable[[], Any]] = [
            lambda: service.get(ref),
            lambda: service.update(ref, {}, head=None),
            lambda: service.delete(ref),
            lambda: service.admit(ref, Message("hello")),
            lambda: service.admit(ref, Message("hello"), opening=SessionCreated()),
            lambda: service.create(TENANT, id=None, opening=SessionCreated()),
            lambda: service.create(TENANT, id=ref.id, opening=SessionCreated()),
            lambda: service.restore(TENANT, []),
        ]
        for ask in asked:
            with pytest.raises(Unavailable) as caught:
                await ask()
            assert caught.value.outcome == "not_applied"
        await remove(route(a, b))
        assert (await service.get(ref)).id == ref.id
        with pytest.raises(Unavailable):
            await service.fork(ref, at=None)
        with pytest.raises(Refused, match="not_found"):
            await service.turn(ref, turn_id(ref.id, 999))


async def test_a_running_turn_is_waited_for():
    """An idle session is moved at once, one whose turn runs when it has ended, if that is within the patience."""
    go = asyncio.Event()

    async def agent(turn: Turn) -> None:
        if turn.text == "wait":
            await go.wait()

    async with two(agent) as (a, b):
        busy, idle = await a.session(), await a.session()
        receipt = await a.say(busy, "wait")
        await wait_until(lambda: a.ones[0].replica.turns == 1, description="the turn to run")
        told: list[Report] = []
        removal = Removal(route(a, b), Plan(patience=timedelta(seconds=60)), told=told.append)
        running = asyncio.create_task(removal.run())
        await wait_until(
            lambda: removal._busy_since and told, description="the running turn to be met, the other moved"
        )
        assert [(report.what, report.ref) for report in told] == [("moved", idle)]
        go.set()
        await asyncio.wait_for(running, timeout=30)
        assert [(report.what, report.ref) for report in told] == [("moved", idle), ("moved", busy)]
        turn = await b.end_of(busy, receipt)
        assert (turn.status, turn.attempt) == ("completed", 1)


@pytest.mark.parametrize(("effect", "runs"), [("once", 1), ("keyed", 2)])
async def test_a_turn_that_is_cut_off_goes_on_there(effect: str, runs: int):
    """After the patience a running turn is fenced off. It goes on from its last recorded step, and an effect without a
    record is treated as after a death: P7.
    """
    agent, effects, hang = crashing(effect)
    async with two(agent) as (a, b):
        ref = await a.session()
        receipt = await a.say(ref, "go")
        await hang.wait()
        task = a.ones[0].replica.running(ref)
        assert task is not None
        (report,) = await remove(route(a, b), patience=timedelta())
        assert report.what == "moved"
        turn = await b.end_of(ref, receipt)
        assert (turn.status, turn.attempt) == ("completed", 2)
        assert len(effects) == runs and len(set(effects)) == 1
        assert ("unknown" in turn.output[-1]["content"][0]["text"]) == (effect == "once")
        await wait_until(task.done, description="the replica that was fenced off to let go")
        same(a, b, ref)


async def test_a_session_of_a_dead_replica_need_not_be_waited_for():
    """Nobody lives in the source: its open turns are moved at once."""
    agent, effects, hang = crashing("once")
    async with two(agent) as (a, b):
        ref = await a.session()
        receipt = await a.say(ref, "go")
        await hang.wait()
        await a.kill()
        (report,) = await remove(route(a, b), patience=timedelta(hours=1), until="alone")
        assert report.what == "moved"
        turn = await b.end_of(ref, receipt)
        assert (turn.status, len(effects)) == ("completed", 1)


async def test_a_replica_that_came_meanwhile_is_waited_for():
    """A turn of a replica that joined since the round began runs on, as everybody's does."""
    go = asyncio.Event()

    async def agent(turn: Turn) -> None:
        await go.wait()

    async with two(agent) as (a, b):
        ref = await a.session()
        receipt = await a.say(ref, "go")
        await wait_until(lambda: a.ones[0].replica.turns == 1, description="the turn to run")
        along = route(a, b)
        removal = Removal(along, Plan(patience=timedelta(seconds=60)), told=lambda report: None)
        members, seen = along.source.members, list[int]()

        async def nobody_yet() -> Any:
            seen.append(1)
            return () if len(seen) == 1 else await members()

        along.source.members = nobody_yet  # type: ignore[method-assign]
        running = asyncio.create_task(removal.run())
        await wait_until(lambda: removal._busy_since or running.done(), description="the running turn to be met")
        go.set()
        await asyncio.wait_for(running, timeout=30)
        turn = await b.end_of(ref, receipt)
        assert (turn.status, turn.attempt) == ("completed", 1)


async def test_what_is_said_before_the_seal_comes_along_with_its_key():
    """P2: a message between the copier's look and its seal is moved, and so is what is known under its key."""
    database = MemoryDatabase()
    source, target, ref = MemoryLog(database), MemoryLog(MemoryDatabase()), session()
    written(await speak(source, admission(ref, "hello", key="k1")))
    commit = source.commit

    async def late(*given: Any, **named: Any) -> Any:
        written(await speak(MemoryLog(database), admission(ref, "and more", key="k2")))
        return await commit(*given, **named)

    source.commit = late  # type: ignore[method-assign]
    report = await Mover(Route(source, target, "A", "B")).move(ref, when="idle")
    assert report.what == "moved"
    assert len(await source.keys(ref)) == 2
    assert await target.keys(ref) == await source.keys(ref)


async def test_p8_a_stream_is_cut_and_goes_on_there():
    """A reader is cut off, never told of an end. With its cursor it gets everything that follows, once and in order."""
    model = Telling("one two three four five six")
    model.stop_after = 3

    async def agent(turn: Turn) -> None:
        await turn.generate(model)

    async with two(agent) as (a, b):
        ref = await a.session()
        receipt = await a.say(ref, "go")
        stream = await a.any.follow(ref, after=Cursor(receipt.seq - 1))
        frames: list[Any] = []

        async def read() -> None:
            async for frame in stream:
                frames.append(frame)

        task = asyncio.create_task(read())
        await wait_until(lambda: "three" in "".join(streamed(frames).values()), description="some words")
        model.stop_after = 10_000
        await remove(route(a, b), patience=timedelta())
        with pytest.raises(Unavailable):
            await asyncio.wait_for(task, timeout=10)
        await stream.aclose()
        rest = await b.frames(ref, receipt, after=frames[-1].cursor)
        seqs = [frame.what.seq for frame in [*frames, *rest] if isinstance(frame.what, Event)]
        log = [event.seq for event in await b.log(ref) if event.turn == receipt.turn or event.seq in seqs]
        assert seqs == sorted(set(seqs)) and set(log) - set(seqs) <= {1}
        assert rest[-1].what.type == "turn.completed"
        (said,) = [codec.decode(frame.what) for frame in rest if getattr(frame.what, "type", "") == "item.done"]
        assert isinstance(said, ItemDone) and item.text_of(said.item) == "one two three four five six "


async def test_a_long_poll_is_told_to_come_again():
    """Who waits for a turn of a session that moves away is told so, and asks the other store."""
    agent, _, hang = crashing("keyed")
    async with two(agent) as (a, b):
        ref = await a.session()
        receipt = await a.say(ref, "go")
        await hang.wait()
        waiting = asyncio.create_task(a.end_of(ref, receipt))
        await asyncio.sleep(0)
        await remove(route(a, b), patience=timedelta())
        with pytest.raises(Unavailable):
            await waiting
        assert (await b.end_of(ref, receipt)).status == "completed"


async def test_queued_and_waiting_turns_move_as_they_are():
    """What waits for a human waits there; what is queued runs there."""

    async def agent(turn: Turn) -> None:
        await turn.say("the answer is " + await turn.ask("which?"))

    async with two(agent) as (a, b):
        ref = await a.session()
        first, second = await a.say(ref, "one"), await a.say(ref, "two")
        waits = await a.end_of(ref, first)
        assert waits.status == "waiting"
        await remove(route(a, b), patience=timedelta())
        (action,) = (await b.end_of(ref, first)).actions
        assert action == waits.actions[0]
        await b.say(ref, ToolResult(action.call_id, output="42"))
        await wait_until(lambda: _status(b, ref, first, "completed"), description="the first turn to end there")
        await wait_until(lambda: _status(b, ref, second, "waiting"), description="the second turn to run there")


async def test_there_and_back_again():
    """What comes back is what was written since; each time the one store's log is a prefix of the other's."""
    async with two(settling=QUICK) as (a, b):
        refs = [await a.session() for _ in range(3)]
        for ref in refs:
            await a.ask(ref, "in A")
        assert whats(await remove(route(a, b))) == ["moved"] * 3
        assert whats(await remove(route(a, b))) == ["there"] * 3
        await b.ask(refs[0], "in B")
        new = await b.session()
        assert whats(await remove(route(b, a, names="BA"))) == ["moved"] * 4
        for ref in (*refs, new):
            same(b, a, ref)
            assert (await a.ask(ref, "in A again")).status == "completed"
            with pytest.raises(Unavailable):
                await b.any.get(ref)
        told = await remove(route(a, b))
        assert whats(told) == ["moved"] * 4
        for ref in (*refs, new):
            same(a, b, ref)
        assert (await b.types(refs[0])).count("session.moved") == 3


async def test_what_is_deleted_stays_deleted():
    """A tombstone is a tombstone there, its name is taken, and what was erased does not come back."""
    async with two() as (a, b):
        erased, copied = await a.session(), await a.session()
        await a.ask(erased, "a secret")
        await a.any.delete(erased)
        assert whats(await remove(route(a, b))) == ["buried", "moved"]
        assert whats(await remove(route(a, b))) == ["buried", "there"]
        with pytest.raises(Refused, match="not_found"):
            await b.any.get(erased)
        assert len(await b.log(erased)) <= 2
        with pytest.raises(Refused, match="not_found"):
            await b.say(erased, "hello")
        await b.any.delete(copied)
        assert whats(await remove(route(a, b))) == ["buried", "there"]
        assert whats(await remove(route(b, a, names="BA"))) == ["buried", "buried"]
        with pytest.raises(Refused, match="not_found"):
            await a.any.get(copied)


async def test_what_cannot_be_read_is_named_and_left_alone():
    """P9: a damaged session is an error with its name; nothing is written anywhere, and the others are moved."""
    async with two() as (a, b):
        damaged, outdated, fine = await a.session(), await a.session(), await a.session()
        for ref in (damaged, outdated, fine):
            await a.ask(ref, "hello")
        a.database.rows[damaged].events[2].data = b"{}"
        row = a.database.rows[outdated]
        row.version, row.events[2].data = 0, b"{}"
        heads = {ref: a.database.rows[ref].head for ref in (damaged, outdated)}
        told = await remove(route(a, b))
        assert {report.ref: report.what for report in told} == {damaged: "failed", outdated: "failed", fine: "moved"}
        assert all("checksum" in report.detail for report in told if report.what == "failed")
        assert {ref: a.database.rows[ref].head for ref in heads} == heads
        assert set(b.database.rows) == {fine}


async def test_archived_sessions_come_along():
    """P9: what is archived is brought back and moved whole; whoever cannot bring it back says so and moves nothing."""
    async with two() as (a, b):
        ref = await a.session()
        await a.ask(ref, "hello")
        one = a.ones[0]
        policy = Policy(archive_after=timedelta(), sweep_after=None)
        archivist = Archivist(one.shelf, one.blobs, eraser=one.replica.eraser, policy=policy)
        while not await archivist.go_on():
            pass
        assert archivist.tally.archived == 1
        (report,) = await remove(route(a, b))
        assert report.what == "failed" and "archived" in report.detail and not b.database.rows
        cold = MemoryBlobs(a.objects)
        source, target = with_shelf(MemoryLog(a.database), cold), with_shelf(MemoryLog(b.database), cold)
        (report,) = await remove(Route(source, target, "A", "B"))
        assert report.what == "moved"
        same(a, b, ref)
        assert (await b.ask(ref, "and now?")).status == "completed"


async def test_two_sessions_of_one_name_are_named_and_left_alone():
    """Nothing is written over, nor behind, what is not the same session."""
    async with two(settling=QUICK) as (a, b):
        ref = await a.session()
        await a.ask(ref, "hello")
        await b.any.create(TENANT, id=ref.id, opening=SessionCreated(user="somebody else"))
        before = stored(a.database, ref), stored(b.database, ref)
        (report,) = await remove(route(a, b))
        assert report.what == "failed" and "different sessions" in report.detail
        assert (stored(a.database, ref), stored(b.database, ref)) == before
        assert (await a.ask(ref, "still here?")).status == "completed"


async def test_what_came_differently_is_an_error():
    """A destination that changes a byte, loses a key, or says so is found out: the source still has everything."""

    class Loses(MemoryLog):
        async def commit(self, ref, decide, *, digest=None):
            decision = await super().commit(ref, decide, digest=digest)
            if isinstance(decision, Write):
                self.database.rows[ref].known.clear()
            return decision

    async with two() as (a, b):
        ref = await a.session()
        await a.end_of(ref, await a.say(ref, "hello", key="k1"))
        along = Route(MemoryLog(a.database), Loses(b.database), "A", "B")
        (report,) = await remove(along)
        assert report.what == "failed" and "keys are not the same" in report.detail
        assert len(stored(a.database, ref)[1]) == 1


async def test_a_look_writes_nothing():
    """`look`: everything is read, nothing is written."""
    async with two() as (a, b):
        refs = [await a.session() for _ in range(3)]
        for ref in refs:
            await a.ask(ref, "hello")
        a.database.rows[refs[1]].events[2].data = b"{}"
        before = {ref: row.head for ref, row in a.database.rows.items()}
        assert whats(await remove(route(a, b), until="look")) == ["failed", "movable", "movable"]
        assert {ref: row.head for ref, row in a.database.rows.items()} == before and not b.database.rows


async def test_one_tenant_may_move_alone():
    """`tenant`: the others stay where they are."""
    async with two() as (a, b):
        mine = await a.session()
        other = await a.any.create("other", id=None, opening=SessionCreated())
        (report,) = await remove(route(a, b), tenant="other")
        assert report.ref == Ref("other", other.id)
        assert (await a.any.get(mine)).id == mine.id


async def test_new_sessions_are_moved_until_nobody_serves_the_source():
    """`alone`: goes on while somebody serves the source, and ends when a walk after that finds nothing to move."""
    async with two() as (a, b):
        told: list[Report] = []
        first = await a.session()
        removal = Removal(route(a, b), Plan(until="alone"), told=told.append)
        running = asyncio.create_task(removal.run())
        await wait_until(lambda: len(told) == 1, description="the first session to move")
        second = await a.session()
        await a.ask(second, "hello")
        await wait_until(lambda: len(told) == 2, description="a session that began meanwhile to move")
        assert not running.done()
        one = a.ones.pop()
        await one.replica.drain()
        await one.replica.stop()
        await asyncio.wait_for(running, timeout=10)
        assert [report.ref for report in told] == [first, second]


# ---------------------------------------------------------------------------- interruptions


class Interrupted(BaseException):
    """The process ends here."""


class Deadly(MemoryLog):
    """Dies at the n-th call of both handles together: before it arrives, or after it was carried out."""

    def __init__(self, database: MemoryDatabase, clock: list[int]) -> None:
        super().__init__(database)
        self._clock = clock

    async def _arrive(self):
        self._tick()
        await super()._arrive()

    async def commit(self, ref, decide, *, digest=None):
        decision = await super().commit(ref, decide, digest=digest)
        self._tick()
        return decision

    def _tick(self) -> None:
        self._clock[0] -= 1
        if self._clock[0] == 0:
            raise Interrupted


async def _prepared() -> tuple[MemoryDatabase, MemoryDatabase]:
    """A source with a session in every state, and a destination that has an older copy of one of them."""
    ids = iter(f"00000000-0000-7000-8000-{number:012x}" for number in range(1, 100))

    async def agent(turn: Turn) -> None:
        if turn.text == "wait":
            await turn.ask("which?")
        await turn.say("done")

    async with two(agent, settling=QUICK) as (a, b):

        async def begun() -> Ref:
            made = await a.any.create(TENANT, id=next(ids), opening=SessionCreated())
            return Ref(TENANT, made.id)

        came, idle, waits, gone = await begun(), await begun(), await begun(), await begun()
        await a.ask(came, "first in A")
        await a.any.delete(gone)
        await remove(route(a, b))
        await b.ask(came, "then in B")
        await remove(route(b, a, names="BA"))
        for ref in (came, idle):
            await a.end_of(ref, await a.say(ref, "hello", key="k1"))
        await a.end_of(waits, await a.say(waits, "wait", key="k2"))
        deleted = await begun()
        await a.any.delete(deleted)
        return a.database, b.database


async def _moved(a: MemoryDatabase, b: MemoryDatabase, calls: int) -> bool:
    """One run of the copier that dies at that call; whether it got to its end."""
    clock = [calls]
    along = Route(Deadly(a, clock), Deadly(b, clock), "A", "B")
    try:
        await Removal(along, Plan(concurrency=1), told=lambda report: None).run()
    except BaseExceptionGroup as error:
        assert error.subgroup(Interrupted), error
        return False
    except Interrupted:
        return False
    return True


def _shape(database: MemoryDatabase) -> dict[Ref, Any]:
    """All that is in it, without the clock."""
    found: dict[Ref, Any] = {}
    for ref, row in database.rows.items():
        session = database.session(ref, row)
        if session.deleted:
            found[ref] = "deleted"
            continue
        events, keys = stored(database, ref)
        found[ref] = ([(event.seq, event.type, event.data) for event in events], keys, session.moved, session.open)
    return found


async def test_a_copier_may_die_anywhere():
    """Killed before or after any of its calls, and run again: the same result, in both stores, as without that."""
    a, b = await _prepared()
    count = 1
    while not await _moved(*_cloned(a, b), count):
        count += 1
    straight = _cloned(a, b)
    assert await _moved(*straight, 0)
    wanted = [_timeless(_shape(database)) for database in straight]
    assert count > 30
    for deadly in range(1, count):
        pair = _cloned(a, b)
        assert not await _moved(*pair, deadly)
        assert await _moved(*pair, 0), f"not done after a death at call {deadly}"
        assert [_timeless(_shape(database)) for database in pair] == wanted, f"another end after a death at {deadly}"
        for ref, row in pair[1].rows.items():
            if not pair[1].session(ref, row).deleted:
                source, target = stored(pair[0], ref)[0], stored(pair[1], ref)[0]
                assert target[: len(source)] == source


async def test_two_copiers_at_once_do_no_harm():
    """Both move all; every session settles once."""
    async with two() as (a, b):
        refs = [await a.session() for _ in range(12)]
        for ref in refs:
            await a.say(ref, "hello")
        told = await asyncio.gather(*(remove(route(a, b)) for _ in range(3)))
        assert not [report for reports in told for report in reports if report.what == "failed"]
        for ref in refs:
            same(a, b, ref)
            assert [event.type for event in stored(b.database, ref)[0]].count("session.settled") == 1


async def test_who_sees_that_another_was_faster_calls_nobody():
    """What another copier moves between this one's two looks has not failed, whichever store is looked at first."""

    class Slow(MemoryLog):
        async def load(self, ref):
            found = await super().load(ref)
            other, faster[:] = list(faster), []
            for mover in other:
                assert (await mover.move(ref, when="idle")).what == "moved"
            return found

    for slow in "source", "target":
        async with two() as (a, b):
            ref, along = await a.session(), route(a, b)
            faster = [Mover(along)]
            logs = {"source": along.source, "target": along.target}
            logs[slow] = Slow((a if slow == "source" else b).database)
            mover = Mover(Route(**logs, origin="A", to="B"))
            first = await mover.move(ref, when="idle")
            assert not faster and first.what in ("there", "unavailable"), first
            assert (await mover.move(ref, when="idle")).what == "there"
            same(a, b, ref)


async def test_a_store_that_does_not_answer_is_asked_again():
    """An answer that was lost is looked up; nothing is written twice."""

    class Forgetful(MemoryLog):
        lost = 0

        async def commit(self, ref, decide, *, digest=None):
            decision = await super().commit(ref, decide, digest=digest)
            if self.lost < 4:
                self.lost += 1
                raise Unavailable("the answer was lost")
            return decision

    async with two() as (a, b):
        refs = [await a.session() for _ in range(3)]
        told = await remove(Route(Forgetful(a.database), Forgetful(b.database), "A", "B"))
        assert {report.what for report in told} <= {"moved", "there"} and len(told) == 3
        for ref in refs:
            same(a, b, ref)


async def test_a_mover_leaves_a_running_turn_alone_if_told_to():
    """`idle`: `busy`, and nothing was written."""
    agent, _, hang = crashing("keyed")
    async with two(agent) as (a, b):
        ref = await a.session()
        await a.say(ref, "go")
        await hang.wait()
        head = a.database.rows[ref].head
        report = await Mover(route(a, b)).move(ref, when="idle")
        assert (report.what, a.database.rows[ref].head, b.database.rows) == ("busy", head, {})
        await remove(route(a, b), patience=timedelta())


def _cloned(a: MemoryDatabase, b: MemoryDatabase) -> tuple[MemoryDatabase, MemoryDatabase]:
    made = MemoryDatabase(), MemoryDatabase()
    made[0].rows, made[1].rows = copy.deepcopy(a.rows), copy.deepcopy(b.rows)
    return made


def _timeless(shape: dict[Ref, Any]) -> str:
    return repr(sorted(shape.items(), key=lambda item: item[0].id))


async def _status(world: Fleet, ref: Ref, receipt: Any, status: str) -> bool:
    return (await world.any.turn(ref, turn_id(ref.id, receipt.turn))).status == status


# ---------------------------------------------------------------------------- mutants


async def _talked_through(a: Fleet, b: Fleet) -> list[str]:
    """People talk to whichever store answers, under keys, while all sessions move; what is wrong afterwards."""
    refs = [await a.session() for _ in range(4)]
    over = asyncio.Event()

    async def talk(number: int, ref: Ref) -> list[str]:
        said: list[str] = []
        last = False
        while not last:
            last = over.is_set()
            said.append(f"message {len(said)} of {number}")
            place, world = len(said) % 2, None
            while world is None:
                world = (a, b)[place % 2]
                try:
                    await world.say(ref, said[-1], key=said[-1])
                except Unavailable:
                    place, world = place + 1, None
                    await asyncio.sleep(0.001)
                except Refused as refusal:  # turns are slower than those who ask for them, where the machine is busy
                    if refusal.code != "queue_full":
                        raise
                    world = None
                    await asyncio.sleep(0.001)
        return said

    async def move() -> None:
        await asyncio.sleep(0)
        await remove(route(a, b), patience=timedelta())
        over.set()

    talks = [asyncio.create_task(talk(number, ref)) for number, ref in enumerate(refs)]
    moving = asyncio.create_task(move())
    done = await asyncio.wait_for(asyncio.gather(*talks, moving), timeout=30)
    wrong = []
    for ref, said in zip(refs, done[:-1], strict=True):
        heard = [data.input.content for data in await b.data(ref, "turn.created")]
        wrong += [f"{text} is there {heard.count(text)} times" for text in said or () if heard.count(text) != 1]
    return wrong


async def test_p1_p2_nothing_said_meanwhile_is_lost_or_doubled():
    """Whichever store is asked, and whenever: what was acknowledged is in the log, once."""
    async with two() as (a, b):
        assert await _talked_through(a, b) == []


async def test_without_the_seal_messages_are_lost(monkeypatch: pytest.MonkeyPatch):
    """A mutant: what the destination is told was sealed was never sealed in the source, which goes on accepting."""

    async def never(self: Mover, ref: Ref, luggage: Luggage, when: Any) -> Luggage:
        decision = seal(luggage.session, None, 0, to=self._route.to, when="now")
        assert isinstance(decision, Write) and decision.result is not None
        return Luggage(decision.result, [*luggage.events, *decision.events], luggage.keys)

    monkeypatch.setattr(Mover, "_seal", never)
    async with two() as (a, b):
        assert await _talked_through(a, b) != []


async def test_without_the_keys_messages_are_doubled(monkeypatch: pytest.MonkeyPatch):
    """A mutant: a client whose answer was lost says it again in the other store, which does not know the key."""
    async with two() as (a, b):
        ref = await a.session()
        await a.say(ref, "once", key="k")
        monkeypatch.setattr(MemoryLog, "keys", _no_keys)
        await remove(route(a, b))
        await b.say(ref, "once", key="k")
        assert len(await b.data(ref, "turn.created")) == 2


async def _no_keys(self: MemoryLog, ref: Ref) -> dict[bytes, Any]:
    return {}


async def test_without_settling_a_session_is_not_found():
    """A mutant: a store that is being filled says that there is no such session, and its client gives up."""
    async with two(settling=QUICK) as (a, b):
        with pytest.raises(Refused, match="not_found"):
            await _talked_through(a, b)
