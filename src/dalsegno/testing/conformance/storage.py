"""The port `Log`: what becomes of bytes, of damage, of other versions' sessions, of deleted ones, and listings."""

from datetime import timedelta

import msgspec
import pytest

from dalsegno.core.append import Fenced, Refusal, Write
from dalsegno.core.event import SessionCreated, SessionUpdated
from dalsegno.core.json import JsonObject
from dalsegno.core.session import Session
from dalsegno.errors import Unreadable
from dalsegno.ports import Log, Query
from dalsegno.testing.conformance.acts import (
    DONE,
    accept,
    admission,
    begin,
    change,
    delete,
    history,
    joined,
    leased,
    note,
    session,
    speak,
    waiting,
    work,
    written,
)
from dalsegno.testing.conformance.worlds import LogWorld

TEXTS = {
    "plain": "hello",
    "empty": "",
    "NUL": "a\0b",
    "controls": "".join(map(chr, range(32))) + "\x7f\x85",
    "line separators": "a\u2028b\u2029c\r\nd",
    "astral": "𝄋 🎼 \U0010ffff",
    "combining": "e\u0301 is not \u00e9",
    "quotes": "'; DROP TABLE event; -- \" \\ % _ $1 ? :x",
    "a million letters": "ä" * 512 * 1024,
}


class StorageCases:
    """A subclass supplies the fixture `world`: a `LogWorld`."""

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    async def test_bytes_come_back_as_they_were_given(self, world: LogWorld, text: str) -> None:
        """Log 5: bytes come back as they were given. P12: code point for code point."""
        log = await joined(world, "a")
        lease = await begin(log, session(), owner="a")
        appended = written(await work(log, lease, note(text)))
        (read,) = await (await world.open()).read(session(), after=3)
        assert read == appended.events[0]
        assert read.data == msgspec.json.encode(note(text))

    async def test_a_session_comes_back_as_it_was_given(self, world: LogWorld) -> None:
        """Log 5, for what a listing is filtered by too."""
        log = await world.open()
        metadata: JsonObject = {
            text: [{"deep": text}, 1, 0.5, None, True] for text in TEXTS.values() if len(text) < 100
        }
        changed = await change(log, session(), SessionCreated("agent 𝄋", "user 'é'", metadata))
        assert await (await world.open()).load(session()) == changed
        assert (changed.agent, changed.user, changed.metadata) == ("agent 𝄋", "user 'é'", metadata)

    async def test_damaged_bytes_are_an_error(self, world: LogWorld) -> None:
        """Log 5: bytes that do not match their checksum raise `Unreadable`."""
        log = await joined(world, "a")
        await work(log, await begin(log, session(), owner="a"), note("1"), note("2"), note("3"))
        await world.damage(session(), seq=5)
        for handle in (log, await world.open()):
            for after, limit in ((0, 1000), (4, 1), (3, 2)):
                with pytest.raises(Unreadable):
                    await handle.read(session(), after=after, limit=limit)
            assert [event.seq for event in await handle.read(session(), after=5)] == [6]
            assert [event.seq for event in await handle.read(session(), after=0, limit=4)] == [1, 2, 3, 4]

    @pytest.mark.parametrize("seq", [1, 3, 6], ids=["first", "middle", "last"])
    async def test_a_missing_event_is_an_error(self, world: LogWorld, seq: int) -> None:
        """P9: state that cannot be verified is an error; never an empty or older history."""
        log = await joined(world, "a")
        await work(log, await begin(log, session(), owner="a"), note("1"), note("2"), note("3"))
        await world.lose(session(), seq=seq)
        with pytest.raises(Unreadable):
            await log.read(session(), after=0)
        with pytest.raises(Unreadable):
            await log.read(session(), after=seq - 1, limit=1)

    async def test_another_versions_session_is_folded_again(self, world: LogWorld) -> None:
        """`core.session`: `fold` rebuilds it from the log when its `version` is not today's."""
        log = await joined(world, "a")
        await begin(log, session(), owner="a")
        await accept(log, session(), "and this")
        before = await log.load(session())
        await world.outdate(session())
        for handle in (log, await world.open()):
            assert await handle.load(session()) == before
        assert (await log.list(session().tenant, Query())).sessions == (before,)
        assert written(await speak(log, admission(session(), "and that"))).receipt.seq == 5
        assert await world.seqs(session()) == [1, 2, 3, 4, 5]

    async def test_folding_again_keeps_what_the_log_does_not_hold(self, world: LogWorld) -> None:
        """`Session`: epoch and owner are not in the log, and neither is an attempt that has not started yet."""
        first, log = await joined(world, "a"), await joined(world, "b")
        await begin(first, session(), owner="a")
        await world.kill(first)
        await log.bury()
        lease = await leased(log, "b")
        before = await log.load(session())
        assert before is not None and (before.epoch, before.owner, before.open[0].attempt) == (2, "b", 2)
        await world.outdate(session())
        assert await log.load(session()) == before
        assert isinstance(await work(log, lease, note()), Write)

    async def test_a_session_that_cannot_be_folded_is_an_error(self, world: LogWorld) -> None:
        """P9: never an empty or older history; nothing is written on top of it."""
        log = await world.open()
        await accept(log, session())
        await world.outdate(session())
        await world.damage(session(), seq=2)
        log = await world.open()
        with pytest.raises(Unreadable):
            await log.load(session())
        with pytest.raises(Unreadable):
            await speak(log, admission(session(), "anybody there?"))
        assert await world.seqs(session()) == [1, 2]

    async def test_a_deleted_session_is_a_tombstone(self, world: LogWorld) -> None:
        """`load`: a tombstone (`deleted`) for a deleted one. `list`: deleted ones left out."""
        log = await joined(world, "a")
        lease = await begin(log, session(), owner="a")
        await delete(log, session())
        found = await log.load(session())
        assert found is not None and found.deleted and found.head == 4
        assert [event.type for event in await history(log, session())][-1] == "session.deleted"
        assert (await log.list(session().tenant, Query())).sessions == ()
        assert list(await log.claim("a", limit=10)) == []
        assert list(await log.holdings("a")) == []
        assert await work(log, lease, note()) == Fenced()
        assert isinstance(await speak(log, admission(session())), Refusal)

    async def test_a_listing_goes_by_pages_in_order_of_id(self, world: LogWorld) -> None:
        """`list`: a page of a tenant's sessions, in order of id, after a given one."""
        log = await world.open()
        for number in (5, 3, 9, 1, 7, 2, 8, 4, 6):
            await accept(log, session(number))
        await accept(log, session(4, tenant="other"))
        await delete(log, session(6))
        wanted = [session(number).id for number in (1, 2, 3, 4, 5, 7, 8, 9)]
        for limit in (1, 3, 8, 9, 100):
            assert [found.id for found in await _listed(log, Query(limit=limit))] == wanted
        assert [found.id for found in await _listed(log, Query(after=session(4).id))] == wanted[4:]
        assert await _listed(log, Query(after=session(9).id)) == []
        (found,) = await _listed(log, Query(after=session(8).id))
        assert found == await log.load(session(9))

    async def test_a_listing_is_filtered(self, world: LogWorld) -> None:
        """`list`: the sessions that match."""
        log = await joined(world, "a")
        for number, user in enumerate(["ann", "bob", None, "ann"], start=1):
            await change(log, session(number), SessionCreated("default", user, {"n": number, "even": number % 2 == 0}))
        await accept(log, session(2))
        await work(log, await begin(log, session(3), owner="a"), waiting(), then="release")
        await work(log, await begin(log, session(4), owner="a"), DONE, then="release")
        await change(log, session(4), SessionUpdated({"n": 4, "changed": "yes"}))

        async def numbers(query: Query) -> list[int]:
            return [int(found.id[-12:], 16) for found in await _listed(log, query)]

        assert await numbers(Query(status="idle")) == [1, 4]
        assert await numbers(Query(status="running", limit=1)) == [2]
        assert await numbers(Query(status="waiting")) == [3]
        assert await numbers(Query(user="ann", limit=1)) == [1, 4]
        assert await numbers(Query(user="an_")) == await numbers(Query(user="")) == []
        assert await numbers(Query(metadata={"even": True})) == [2]
        assert await numbers(Query(metadata={"even": False, "n": 1})) == [1]
        assert await numbers(Query(metadata={"changed": "yes"})) == [4]
        assert await numbers(Query(metadata={"even": 1})) == await numbers(Query(metadata={"missing": None})) == []
        assert await numbers(Query(user="ann", status="idle", metadata={"n": 4})) == [4]

    async def test_time_is_the_stores(self, world: LogWorld) -> None:
        """`commit`: the store's clock; it is the same for every handle and does not go back within a session."""
        log, other = await world.open(), await world.open()
        for _ in range(3):
            await accept(log, session())
            await world.pass_time(timedelta(milliseconds=20))
            log, other = other, log
        ats = [event.at for event in await history(log, session())]
        assert ats == sorted(ats) and ats[-1] - ats[0] >= 40


async def _listed(log: Log, query: Query) -> list[Session]:
    """Every page from here on: a page may hold fewer than `limit` and still have a `next`."""
    found: list[Session] = []
    after: str | None = query.after
    while after is not None:
        page = await log.list(session().tenant, msgspec.structs.replace(query, after=after))
        assert len(page.sessions) <= query.limit
        assert page.next is None or page.next > after, "a listing does not move on"
        found.extend(page.sessions)
        after = page.next
    return found
