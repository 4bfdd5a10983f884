"""A feed looks at the log where the open step's pieces alone do not tell what happened."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from dalsegno.core.event import SessionUpdated, TurnStarted
from dalsegno.core.lease import Lease
from dalsegno.core.stream import Piece
from dalsegno.errors import Unavailable
from dalsegno.ports import Hint, Member, OpenStep, Ref
from dalsegno.runtime.feed import Feed
from dalsegno.runtime.hub import Hub
from dalsegno.stores.memory import MemoryDatabase, MemoryHot, MemoryLog
from dalsegno.testing.conformance.acts import (
    accept,
    begin,
    change,
    delete,
    leased,
    note,
    publish,
    session,
    work,
    written,
)
from tests.support import wait_until


async def test_of_another_attempt_the_log_is_asked_first():
    """P8: what the dead attempt showed beyond what is carried on does not go on with the next attempt's words, also
    where the hint of its start was lost.
    """
    database, hot, ref = MemoryDatabase(), MemoryHot(), session()
    dying, log = MemoryLog(database), MemoryLog(database)
    await dying.join(Member("a", "a"), ttl=timedelta(minutes=1))
    await log.join(Member("b", "b"), ttl=timedelta(minutes=1))
    lease = await begin(dying, ref, owner="a")
    base = lease.turn + 1
    opened = Piece(base, 0, lease.turn, "msg_1", {"type": "message", "id": "msg_1"})
    words = [Piece(base, 1, lease.turn, "msg_1", delta="one "), Piece(base, 5, lease.turn, "msg_1", delta="two ")]
    await publish(hot, ref, lease.epoch, [opened, *words])
    known = await log.load(ref)
    assert known is not None
    feed = Feed(ref, known, log, hot)
    feed.refresh()
    await wait_until(lambda: len(feed.pieces(0)) == 3, description="all of it is shown")

    hot.cache.clear()
    await publish(hot, ref, lease.epoch, [opened, words[0]])
    database.kill("a")
    later = await leased(log, "b")
    await hot.fence(ref, later.epoch)
    written(await work(log, later, TurnStarted(attempt=2, epoch=later.epoch, carried=5)))
    new = [Piece(base, 5, lease.turn, "msg_1", delta="zwei"), Piece(base, 9, lease.turn, "msg_1", delta=" drei")]
    await publish(hot, ref, later.epoch, new)
    feed.hear(Hint(ref.tenant, ref.id, base, new[-1].end))
    await wait_until(lambda: feed.pieces(0)[-1].delta == " drei", description="the new attempt is shown")
    assert "".join(piece.delta for piece in feed.pieces(0)) == "one zwei drei"
    feed.close()


async def test_a_log_that_answers_again_is_asked_again():
    """A feed that could not read the log does not keep on failing its readers while there is a word of an open step."""
    log, hot, ref = MemoryLog(MemoryDatabase()), MemoryHot(), session()
    await log.join(Member("a", "a"), ttl=timedelta(minutes=1))
    lease = await begin(log, ref, owner="a")
    known = await log.load(ref)
    assert known is not None
    feed = Feed(ref, known, log, hot)
    feed.failure = Unavailable("the log was away")
    opened = Piece(known.head, 0, lease.turn, "msg_1", {"type": "message", "id": "msg_1"})
    await publish(hot, ref, lease.epoch, [opened])
    feed.hear(Hint(ref.tenant, ref.id, known.head, 1))
    await wait_until(lambda: feed.pieces(0), description="the word is shown")
    assert feed.failure is None
    feed.close()


async def test_a_reader_whose_place_was_erased_reads_on_in_the_log():
    """A deleted session's end is heard of behind a gap: whoever stands in the gap is not told that nothing came."""
    database, hot, ref = MemoryDatabase(), MemoryHot(), session()
    log = MemoryLog(database)
    for words in "one", "two":
        await accept(log, ref, words)
    known = await log.load(ref)
    assert known is not None
    feed = Feed(ref, known, log, hot)
    await accept(log, ref, "three")
    feed.refresh()
    await wait_until(lambda: feed.head == known.head + 1, description="the feed has an event at hand")
    assert feed._looking is not None
    await feed._looking  # it looks at the log no more
    for _ in range(3):
        await accept(log, ref, "more")
    epoch = await delete(log, ref)
    await log.erase(ref, epoch)
    feed.refresh()
    await wait_until(lambda: feed.head == known.head + 5, description="the feed has heard of the end")
    found = {seq: feed.since(seq) for seq in range(known.head, feed.head)}
    told = {seq: [event.type for event in events] for seq, events in found.items() if events is not None}
    assert told == {feed.head - 1: ["session.deleted"]}
    feed.close()


async def test_what_the_hot_tier_has_of_an_erased_session_is_not_shown():
    """P8: the log, which said that the step was over, is gone."""
    log, hot, ref = MemoryLog(MemoryDatabase()), MemoryHot(), session()
    await log.join(Member("a", "a"), ttl=timedelta(minutes=1))
    lease = await begin(log, ref, owner="a")
    opened = Piece(lease.turn + 1, 0, lease.turn, "msg_1", {"type": "message", "id": "msg_1"})
    await publish(hot, ref, lease.epoch, [opened])
    await work(log, lease, note("one"))
    known = await log.load(ref)
    assert known is not None and known.head > opened.base
    feed = Feed(ref, known, log, hot)
    await log.erase(ref, await delete(log, ref))
    feed.refresh("step")
    assert feed._looking is not None
    await feed._looking
    assert feed.pieces(0) == ()
    feed.close()


async def test_words_of_a_step_that_began_later_are_looked_for_in_the_log_first():
    """A hint of words tells of the log, too, where it names an event that is not known here."""
    log, hot, ref = MemoryLog(MemoryDatabase()), MemoryHot(), session()
    await log.join(Member("a", "a"), ttl=timedelta(minutes=1))
    lease = await begin(log, ref, owner="a")
    known = await log.load(ref)
    assert known is not None
    feed = Feed(ref, known, log, hot)
    head = (await change(log, ref, SessionUpdated({"step": 2}))).head
    await publish(hot, ref, lease.epoch, [Piece(head, 0, lease.turn, "msg_2", {"type": "message", "id": "msg_2"})])
    feed.hear(Hint(ref.tenant, ref.id, head, 1))
    await wait_until(lambda: feed.pieces(0), description="the step's first word is shown")
    assert feed.head == head
    feed.close()


async def test_who_asked_for_the_log_gets_the_log():
    """That words came meanwhile does not make less of it."""
    log, hot, ref = MemoryLog(MemoryDatabase()), MemoryHot(), session()
    await accept(log, ref, "one")
    known = await log.load(ref)
    assert known is not None
    feed = Feed(ref, known, log, hot)
    await accept(log, ref, "two")
    feed.refresh("log")
    feed.refresh("step")
    await wait_until(lambda: feed.head == known.head + 1, description="the log is read")
    feed.close()


class Unasked(MemoryHot):
    """Counts how often the open step is read."""

    reads = 0

    async def read(self, ref: Ref, *, base: int = 0, after: int = 0) -> OpenStep | None:
        self.reads += 1
        return await super().read(ref, base=base, after=after)


async def _followed() -> tuple[Feed, Unasked, Lease, int]:
    """A feed of a session at work, that has looked once; its hot tier, the lease, and the base of its open step."""
    log, hot, ref = MemoryLog(MemoryDatabase()), Unasked(), session()
    await log.join(Member("a", "a"), ttl=timedelta(minutes=1))
    lease = await begin(log, ref, owner="a")
    known = await log.load(ref)
    assert known is not None
    feed = Feed(ref, known, log, hot)
    feed.refresh()
    await wait_until(lambda: hot.reads == 1, description="the first look")
    return feed, hot, lease, known.head


async def test_words_that_a_hint_carries_are_shown_without_asking_for_them():
    """One message from the model's replica to its readers elsewhere; what it does not carry is asked for as ever."""
    feed, hot, lease, base = await _followed()
    opened = Piece(base, 0, lease.turn, "msg_1", {"type": "message", "id": "msg_1"})
    one, two, three = (
        Piece(base, at, lease.turn, "msg_1", delta=word) for at, word in ((1, "one "), (5, "two "), (9, "3"))
    )
    hint = Hint(feed.ref.tenant, feed.ref.id, base, one.end, epoch=lease.epoch, pieces=(opened, one))
    await publish(hot, feed.ref, lease.epoch, [opened, one])
    feed.hear(hint)
    assert list(feed.pieces(0)) == [opened, one]
    version = feed.version
    feed.hear(hint)
    assert list(feed.pieces(0)) == [opened, one]
    assert feed.version == version, "no reader is woken for what it has"
    assert hot.reads == 1
    await publish(hot, feed.ref, lease.epoch, [two, three])
    feed.hear(Hint(feed.ref.tenant, feed.ref.id, base, three.end, epoch=lease.epoch, pieces=(three,)))
    await wait_until(lambda: list(feed.pieces(0)) == [opened, one, two, three], description="the lost one is asked for")
    assert hot.reads == 2
    feed.close()


async def test_a_zombies_late_hint_shows_nothing():
    """P4: words under another epoch than the log's are looked up, where the fence is."""
    feed, hot, lease, base = await _followed()
    opened = Piece(base, 0, lease.turn, "msg_1", {"type": "message", "id": "msg_1"})
    feed.hear(Hint(feed.ref.tenant, feed.ref.id, base, opened.end, epoch=lease.epoch - 1, pieces=(opened,)))
    assert list(feed.pieces(0)) == []
    await wait_until(lambda: hot.reads == 2, description="the step is looked up")
    assert list(feed.pieces(0)) == []
    feed.close()


async def test_hints_of_one_step_become_one_as_long_as_they_are_short():
    """What waits in the outbox is joined; a long stretch of text is left to those who ask for it."""
    said: list[Hint] = []

    class Told(MemoryHot):
        async def tell(self, hints: Sequence[Hint]) -> None:
            said.extend(hints)

    ref = session()
    hub = Hub(MemoryLog(MemoryDatabase()), Told())
    pieces = [Piece(7, at, 3, "msg_1", delta="x" * 10) for at in range(0, 600, 10)]
    running = asyncio.create_task(hub.run())
    for first in (0, 1):
        hub.published(ref, pieces[first : first + 1], epoch=2)
    await wait_until(lambda: said, description="the first hint")
    assert said == [Hint(ref.tenant, ref.id, 7, 20, epoch=2, pieces=tuple(pieces[:2]))]
    said.clear()
    hub.published(ref, pieces, epoch=2)
    await wait_until(lambda: said, description="the second hint")
    assert said == [Hint(ref.tenant, ref.id, 7, 600, epoch=2)]
    running.cancel()
