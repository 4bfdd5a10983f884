"""The hub: what another replica says is heard, and costs no more than it has to."""

import asyncio
from datetime import timedelta

from dalsegno.core.cursor import Cursor
from dalsegno.core.event import Event
from dalsegno.core.ids import turn_id
from dalsegno.core.stream import Piece
from dalsegno.errors import Unavailable
from dalsegno.ports import Member, Ref
from dalsegno.runtime.feed import Feed
from dalsegno.runtime.hub import Hub
from dalsegno.runtime.replica import Tuning
from dalsegno.stores.memory import MemoryDatabase, MemoryHot, MemoryLog
from dalsegno.testing.conformance.acts import accept, begin, session, waiting, work
from tests.runtime.commits import rounds
from tests.runtime.fleet import fleet
from tests.support import wait_until

WORDS = 20
RARELY = Tuning(sweep_every=timedelta(minutes=5), drain_within=timedelta(seconds=5))
"""What is noticed here is noticed by hints, and not by the poll behind them."""


async def test_the_words_of_an_open_step_are_asked_of_the_hot_tier_alone(monkeypatch):
    """A reader's replica reads the log when the log has grown: not with each piece that another replica publishes."""
    words: asyncio.Queue[str] = asyncio.Queue()
    looks: list[str] = []

    async def model(context):
        for _ in range(WORDS):
            yield await words.get()

    async def agent(turn):
        await turn.generate(model)

    async with fleet(agent, count=2, tuning=RARELY) as world:
        ref = await world.session()
        far = world.ones[1]
        receipt = await world.say(ref, "go")
        stream = await far.service.follow(ref, after=Cursor(0), turn=turn_id(ref.id, receipt.turn))
        heard = 0
        for number in range(WORDS - 1):
            words.put_nowait(f"w{number} ")
            async with asyncio.timeout(10):
                while True:
                    frame = await anext(stream)
                    if isinstance(frame.what, Piece) and frame.what.item is None:
                        heard += 1
                        break
            if number == 0:
                for name in ("read", "load"):
                    _count(monkeypatch, far.warm, name, looks)
        assert heard == WORDS - 1
        # A look that was under way, or asked for, when the first word came.
        assert len(looks) <= 4, looks
        seen = len(looks)
        words.put_nowait("and out")
        async with asyncio.timeout(10):
            rest = [frame async for frame in stream]
        last = rest[-1].what
        assert isinstance(last, Event) and last.type == "turn.completed"
        assert len(looks) > seen, "the step's end is in the log"
        await stream.aclose()


def _count(monkeypatch, warm, name, looks):
    plain = getattr(warm, name)

    async def counted(*given, **named):
        looks.append(name)
        return await plain(*given, **named)

    monkeypatch.setattr(warm, name, counted)


class Asked(MemoryLog):
    """A log that knows what it was asked for, and may be away, or slow to tell heads."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.looks: list[str] = []
        self.away = False
        self.telling = asyncio.Event()
        self.telling.set()

    async def heads(self, refs):
        self.looks.append(f"heads of {len(refs)}")
        if self.away:
            raise Unavailable("the log is away")
        await self.telling.wait()
        return await super().heads(refs)

    async def read(self, ref, *, after, limit=1000):
        self.looks.append("read")
        return await super().read(ref, after=after, limit=limit)


async def test_the_poll_asks_the_log_once_for_all_that_are_followed():
    """What it costs to have missed nothing does not grow with the readers: who is behind looks, and nobody else."""
    database = MemoryDatabase()
    log, elsewhere = Asked(database), MemoryLog(database)
    hub, feeds = Hub(log, MemoryHot()), list[Feed]()
    for number in range(5):
        await accept(elsewhere, session(number))
        known = await log.load(session(number))
        assert known is not None
        feeds.append(hub.attach(session(number), known))
    await wait_until(lambda: log.looks.count("read") >= 5, description="each has looked as it began")
    missed = (await accept(elsewhere, session(3), "a hint of this was lost")).events[-1].seq
    log.looks.clear()
    await hub.sweep()
    await wait_until(lambda: len(log.looks) == 3, description="who was behind has looked")
    assert log.looks == ["heads of 5", "read", "read"], "a look ends where nothing more is found"
    assert feeds[3].head == missed
    for feed in feeds:
        hub.detach(feed)


class Read(MemoryHot):
    """A hot tier that knows whose open step it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Ref] = []

    async def read(self, ref, *, base=0, after=0):
        self.asked.append(ref)
        return await super().read(ref, base=base, after=after)


async def test_the_hot_tier_is_not_asked_what_a_waiting_turn_says():
    """It says nothing until somebody has answered it, and the log tells that."""
    log, hot = MemoryLog(MemoryDatabase()), Read()
    await log.join(Member("a", "a"), ttl=timedelta(minutes=1))
    hub, refs = Hub(log, hot), [session(1), session(2)]
    await work(log, await begin(log, refs[0], owner="a"), waiting(), then="release")
    await begin(log, refs[1], owner="a")
    for ref in refs:
        known = await log.load(ref)
        assert known is not None
        hub.attach(ref, known)
    for _ in range(5):
        await hub.sweep()
    await wait_until(lambda: len(hot.asked) >= 2, description="what the running turn says is asked for")
    assert set(hot.asked) == {refs[1]}


async def test_when_the_log_does_not_tell_heads_everybody_looks():
    """Whoever finds that the log is away tells its readers so: the poll does not keep that from them."""
    log, ref, heard = Asked(MemoryDatabase()), session(), list[int | None]()
    head = (await accept(log, ref)).events[-1].seq
    hub = Hub(log, MemoryHot())
    hub.watch(ref, heard.append)
    await hub.sweep()
    log.away = True
    await hub.sweep()
    assert heard == [head, None]
    await _attached(hub, log, ref)
    await hub.sweep()
    await wait_until(lambda: "read" in log.looks, description="its readers' feed looks")


async def test_a_feed_that_failed_looks_again_though_nothing_was_missed():
    """Readers that are cut off come back: they must not find the failure of long ago."""
    log, ref = Asked(MemoryDatabase()), session()
    await accept(log, ref)
    hub = Hub(log, MemoryHot())
    feed = await _attached(hub, log, ref)
    feed.failure = Unavailable("the log was away")
    await hub.sweep()
    await wait_until(lambda: feed.failure is None, description="it has looked")


async def test_who_has_gone_while_heads_were_asked_for_is_left_alone():
    """A feed without readers would look for nobody, and a turn that is over has nothing to hear."""
    log, ref, heard = Asked(MemoryDatabase()), session(), list[int | None]()
    await accept(log, ref)
    hub = Hub(log, MemoryHot())
    feed = await _attached(hub, log, ref)
    hub.watch(ref, heard.append)
    await accept(log, ref, "a hint of this was lost")
    log.telling.clear()
    sweeping = asyncio.create_task(hub.sweep())
    await wait_until(lambda: log.looks == ["heads of 1"], description="heads are asked for")
    hub.detach(feed)
    hub.unwatch(ref, heard.append)
    log.telling.set()
    await sweeping
    await rounds(50)
    assert (log.looks, heard) == (["heads of 1"], [])


async def test_who_waits_for_a_turn_hears_of_an_end_that_came_while_it_looked(monkeypatch):
    """What happened between a look at the session and the wait for more is not waited for again."""
    finish, looking, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def agent(turn):
        await finish.wait()

    async with fleet(agent, tuning=RARELY) as world:
        ref = await world.session()
        receipt = await world.say(ref, "go")
        one = world.ones[0]
        plain = one.warm.load

        async def load(ref):
            session = await plain(ref)
            if not looking.is_set():
                looking.set()
                await go_on.wait()
            return session

        waiting = asyncio.create_task(one.service.turn(ref, turn_id(ref.id, receipt.turn), wait=timedelta(minutes=1)))
        feeds = one.replica.hub._feeds
        await wait_until(lambda: ref in feeds and feeds[ref]._waiters, description="it waits")
        monkeypatch.setattr(one.warm, "load", load)
        await one.service.update(ref, {"seen": "yes"}, head=None)
        await looking.wait()
        finish.set()
        await world.end_of(ref, receipt)
        go_on.set()
        async with asyncio.timeout(10):
            assert (await waiting).status == "completed"


async def _attached(hub: Hub, log: Asked, ref: Ref) -> Feed:
    """A feed with one reader, once it has looked as it began; what was asked until then is forgotten."""
    known = await log.load(ref)
    assert known is not None
    log.looks.clear()
    feed = hub.attach(ref, known)
    await wait_until(lambda: feed._looking is not None and feed._looking.done(), description="it has looked")
    log.looks.clear()
    return feed
