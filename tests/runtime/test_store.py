"""The store: sessions of agents that run outside, on every warm tier, and the same ones that replicas serve."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from dalsegno.agents.plain import FunctionAgent
from dalsegno.core import codec
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import Event, ItemDone, SessionCreated
from dalsegno.core.idle import Policy
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Message
from dalsegno.core.item import text_of
from dalsegno.core.part import ToolCall
from dalsegno.errors import Conflict, Refused, Unavailable
from dalsegno.ops.ids import RandomIds
from dalsegno.ops.tiers import Places, Tiers, opened
from dalsegno.ports import Member, Ref
from dalsegno.runtime.archivist import Archivist
from dalsegno.runtime.eraser import Eraser
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.mover import Mover, Route
from dalsegno.runtime.near import Near
from dalsegno.runtime.replica import Replica, Tuning
from dalsegno.runtime.service import Service
from dalsegno.runtime.shelf import with_shelf
from dalsegno.runtime.store import Loaded, Shelves, Store
from dalsegno.stores.memory import MemoryDatabase, MemoryLog
from dalsegno.testing.servers import redis as servers
from dalsegno.testing.world.provider import refused_by_providers
from dalsegno.wire.native import event_bytes
from dalsegno.wire.transfer import Import, export_line

LONG = "".join(f"{number} 𝄋 ä\u0000\n" for number in range(5000))
AT_ONCE = Policy(archive_after=timedelta(0), sweep_after=timedelta(0))
TUNING = Tuning(bury_every=timedelta(milliseconds=10), drain_within=timedelta(seconds=5))


@pytest.fixture
async def store(tiers: Tiers) -> AsyncIterator[Store]:
    store = outside(tiers)
    yield store
    await store.close()


def outside(tiers: Tiers, *, tenant: str = "default") -> Store:
    return Store(Shelves(tiers.warm, tiers.hot, tiers.cold, tenant, "default"))


@asynccontextmanager
async def served(tiers: Tiers, agent: Any) -> AsyncIterator[Service]:
    """A replica of `agent` on the same tiers."""
    member = Member(RandomIds().incarnation(), "r1")
    agents = {"default": FunctionAgent(agent)}
    replica = Replica(member, agents, warm=tiers.warm, hot=tiers.hot, blobs=tiers.cold, tuning=TUNING)
    await replica.start()
    try:
        yield Service(replica, warm=tiers.warm, blobs=tiers.cold, ids=RandomIds())
    finally:
        await replica.drain()
        await replica.stop()


async def ask(service: Service, ref: Ref, text: str) -> Any:
    receipt = await service.admit(ref, Message(text))
    return await service.turn(ref, turn_id(ref.id, receipt.turn), wait=timedelta(seconds=10))


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


def told(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def call(call_id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "tool", "arguments": "{}"}


def output(call_id: str, text: str = "done") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def given(loaded: Loaded) -> list[Any]:
    """The items without the ids that they were given."""
    return [{name: value for name, value in item.items() if name != "id"} for item in loaded.items]


class Agent:
    """Answers with a call and a result, and notes what its model was shown."""

    def __init__(self) -> None:
        self.shown: list[list[Any]] = []

    async def __call__(self, turn: Turn) -> None:
        async def model(context: Any) -> AsyncIterator[Any]:
            self.shown.append(list(context.items))
            yield f"answer {len(self.shown)}"

        await turn.generate(model)


class StoreCases:
    """What a store does, whatever it is kept in."""

    async def test_what_is_appended_is_loaded(self, store: Store):
        """P12: every field comes back as it was given, also of large texts and of kinds that we do not know."""
        picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
        parts = [picture, {"type": "input_text", "text": LONG}]
        items: list[Any] = [
            {"type": "message", "role": "user", "content": parts, "mood": "fine"},
            {"type": "reasoning", "summary": [], "encrypted_content": "x"},
            call("c1"),
            output("c1", LONG),
            {"type": "web_search_call", "status": "completed", "action": {"query": "segno"}},
            told("yes"),
        ]
        assert await store.load("anna") == Loaded([], 0)
        version = await store.append("anna", items, expect=0)
        loaded = await store.load("anna")
        assert (given(loaded), loaded.version) == (items, version)
        assert await store.head("anna") == version
        assert len({item["id"] for item in loaded.items}) == len(items)

    async def test_large_texts_go_to_the_cold_tier(self, store: Store, tiers: Tiers):
        """The log holds their beginnings; readers are given all of it."""
        await store.append("anna", [user(LONG), told(LONG)])
        events = await tiers.warm.read(Ref("default", store.id_of("anna")), after=0)
        assert max(len(event.data) for event in events) < 10_000
        assert [text_of(item) for item in (await store.load("anna")).items] == [LONG, LONG]

    async def test_somebody_was_faster(self, store: Store):
        """An append that expects what is not so changes nothing."""
        version = await store.append("anna", [user("one")], expect=0)
        for stale in (0, version - 1, version + 1):
            with pytest.raises(Conflict, match="version_mismatch"):
                await store.append("anna", [user("two")], expect=stale)
        assert (await store.load("anna")).version == version
        assert await store.append("anna", [user("two")], expect=version) == version + 1

    async def test_updates_side_by_side_all_count(self, store: Store):
        """Each is made on what the others left."""

        async def one_more(loaded: Loaded) -> list[Any]:
            return [user(str(len(loaded.items)))]

        await asyncio.gather(*(store.update("anna", one_more, attempts=50) for _ in range(8)))
        assert [text_of(item) for item in (await store.load("anna")).items] == [str(number) for number in range(8)]

    async def test_an_update_is_bounded(self, store: Store):
        """Who never wins is told so."""

        async def meddle(loaded: Loaded) -> list[Any]:
            await store.append("anna", [user("meddled")])
            return [user("mine")]

        with pytest.raises(Conflict):
            await store.update("anna", meddle, attempts=3)
        assert await store.head("anna") == 4

    async def test_a_key_is_one_append(self, store: Store):
        """P2: a repeat is told the first answer, whatever came since; the same key for something else is refused."""
        first = await store.append("anna", [user("one")], expect=0, key="k")
        await store.append("anna", [user("two")])
        assert await store.append("anna", [user("one")], expect=0, key="k") == first
        with pytest.raises(Refused, match="key_reused"):
            await store.append("anna", [user("other")], key="k")
        assert len((await store.load("anna")).items) == 2

    async def test_calls_may_wait_for_their_results(self, store: Store):
        """Whatever is loaded can be shown to a model; a result that answers nothing is refused."""
        await store.append("anna", [user("go"), call("c1"), call("c2")])
        items = (await store.load("anna")).items
        assert [item.get("output") for item in items][-2:] == ["No result yet."] * 2
        assert refused_by_providers(items) is None
        await store.append("anna", [user("hurry")])
        await store.append("anna", [output("c2"), output("c1")])
        items = (await store.load("anna")).items
        assert refused_by_providers(items) is None
        assert [item.get("output") or item.get("content") for item in items if "name" not in item] == [
            *("go", "done", "done", "hurry")
        ]
        for orphan in ([output("c1")], [output("c3")], [call("c4"), output("c5")], [call("c6"), call("c6")]):
            with pytest.raises(Refused, match=r"invalid_request: items\[\d\] (answers|repeats)"):
                await store.append("anna", orphan)
        assert (await store.load("anna")).items == items

    async def test_records_are_kept_and_shown_to_no_model(self, store: Store):
        """Whatever else a program keeps in the session's log, in order, and page by page."""
        record: Any = {"type": "dalsegno:step", "name": "checkpoint", "output": {"a": [1, LONG]}}
        await store.append("anna", [user("one"), record])
        await store.append("anna", [told("two")])
        assert given(await store.load("anna")) == [user("one"), told("two")]
        page = await store.read("anna", after=1, limit=2)
        assert [(one.seq, one.item["type"]) for one in page.records] == [(2, "message"), (3, "dalsegno:step")]
        assert page.records[1].item["output"] == record["output"]
        rest = await store.read("anna", after=page.last)
        assert [one.seq for one in rest.records] == [4]
        assert (await store.read("anna", after=rest.last)).last == rest.last

    async def test_the_last_item_can_be_taken_back(self, store: Store):
        """As if it had never been; the log grows all the same, so whoever loaded before is told."""
        version = await store.append("anna", [user("one"), told("two"), user("three"), call("c1"), output("c1")])
        for left in range(4, -1, -1):
            assert (await store.pop("anna")) is not None
            items = (await store.load("anna")).items
            assert refused_by_providers(items) is None
            assert sum(item.get("status") != "incomplete" for item in items) == left
        assert await store.pop("anna") is None
        assert await store.pop("nobody") is None
        with pytest.raises(Conflict):
            await store.append("anna", [user("x")], expect=version)
        await store.append("anna", [user("again")])
        assert given(await store.load("anna")) == [user("again")]

    async def test_a_result_taken_back_can_be_given_again(self, store: Store):
        """The call does not wait any more; the answer to it is refused until the call is made again."""
        await store.append("anna", [user("one"), call("c1"), output("c1", "wrong")])
        await store.pop("anna")
        with pytest.raises(Refused, match="answers no call"):
            await store.append("anna", [output("c1", "right")])
        await store.pop("anna")
        await store.append("anna", [call("c1"), output("c1", "right")])
        assert given(await store.load("anna")) == [user("one"), call("c1"), output("c1", "right")]

    async def test_a_session_can_be_cleared(self, store: Store):
        """Nothing of what it had is shown; the name goes on."""
        await store.append("anna", [user("one"), told("two")])
        version = await store.clear("anna")
        assert await store.load("anna") == Loaded([], version)
        assert (await store.read("anna")).records == []
        await store.append("anna", [user("three")], expect=version)
        assert given(await store.load("anna")) == [user("three")]
        assert await store.clear("nobody") == 0

    async def test_a_session_can_be_deleted(self, store: Store):
        """For good: nobody begins it again by mistake."""
        await store.append("anna", [user(LONG)])
        await store.delete("anna")
        for use in (store.load("anna"), store.append("anna", [user("x")]), store.delete("anna"), store.head("anna")):
            with pytest.raises(Refused, match="not_found"):
                await use

    async def test_tenants_do_not_meet(self, store: Store, tiers: Tiers):
        """P11: the same name is another session."""
        other = outside(tiers, tenant="other")
        await store.append("anna", [user("secret")])
        assert await other.load("anna") == Loaded([], 0)
        assert [session.metadata async for session in other.sessions({"name": "anna"})] == []
        assert [session.metadata async for session in store.sessions({"name": "anna"})] == [{"name": "anna"}]
        await other.close()

    async def test_a_server_goes_on_with_what_a_store_began(self, store: Store, tiers: Tiers):
        """The point of the migration: the same session, the same order, and back again."""
        await store.append("anna", [user("one"), call("c1"), output("c1"), told("two"), call("c2")])
        agent, ref = Agent(), Ref("default", store.id_of("anna"))
        async with served(tiers, agent) as service:
            assert (await ask(service, ref, "three")).status == "completed"
            assert [text_of(item) or item.get("output") for item in agent.shown[0]] == [
                *("one", "{}", "done", "two", "{}", "The turn ended before this call had a result.", "three")
            ]
            assert refused_by_providers(agent.shown[0]) is None
            items, _ = await service.items(ref, after=0, limit=100)
            assert [text_of(item) or item.get("output") for item in items] == [
                *("one", "{}", "done", "two", "{}", "three", "answer 1")
            ]
            await store.append("anna", [user("four"), told("five")])
            await ask(service, ref, "six")
            assert [text_of(item) for item in agent.shown[1]][-5:] == ["three", "answer 1", "four", "five", "six"]
            await store.pop("anna")
            await store.pop("anna")
            await ask(service, ref, "seven")
            assert [text_of(item) for item in agent.shown[2]][-3:] == ["four", "five", "seven"]
            await store.clear("anna")
            await ask(service, ref, "eight")
            assert [text_of(item) for item in agent.shown[3]] == ["eight"]
            items, _ = await service.items(ref, after=0, limit=100)
            assert [text_of(item) for item in items] == ["eight", "answer 4"]

    async def test_who_follows_a_session_sees_what_is_brought_in(self, store: Store, tiers: Tiers):
        """Live, and of no turn; and that something was removed."""
        version = await store.append("anna", [user("one")])
        ref = Ref("default", store.id_of("anna"))
        async with served(tiers, Agent()) as service:
            stream = await service.follow(ref, after=Cursor(version))
            await store.append("anna", [user("two")])
            await store.pop("anna")
            frames = [(await anext(stream)).what for _ in range(2)]
            await stream.aclose()
        shown = [json.loads(event_bytes(ref.id, event)) for event in frames if isinstance(event, Event)]
        assert [(event["type"], event["turn"]) for event in shown] == [("item.done", None), ("items.removed", None)]
        assert shown[0]["data"]["item"]["content"] == "two" and shown[1]["data"] == {"after": version}

    async def test_a_store_goes_on_with_what_a_server_began(self, store: Store, tiers: Tiers):
        """A conversation that was served is loaded, appended to, and taken back item by item."""
        async with served(tiers, Agent()) as service:
            session = await service.create("default", id=None, opening=SessionCreated())
            ref = Ref("default", session.id)
            await ask(service, ref, "one")
            loaded = await store.load(session.id)
            assert [text_of(item) for item in loaded.items] == ["one", "answer 1"]
            await store.append(session.id, [user("two")], expect=loaded.version)
            assert [text_of(item) for item in (await store.load(session.id)).items] == ["one", "answer 1", "two"]
            popped = [await store.pop(session.id) for _ in range(4)]
            assert [None if item is None else text_of(item) for item in popped] == ["two", "answer 1", "one", None]

    async def test_nobody_speaks_into_an_open_turn(self, store: Store, tiers: Tiers):
        """`session_busy`, and nothing is written; `update` waits for the turn's end."""
        go = asyncio.Event()

        async def slow(turn: Turn) -> None:
            async def model(context: Any) -> AsyncIterator[Any]:
                yield ToolCall("nothing", {})

            await turn.generate(model)
            await go.wait()
            await turn.say("done")

        await store.append("anna", [user("one")])
        ref = Ref("default", store.id_of("anna"))
        async with served(tiers, slow) as service:
            receipt = await service.admit(ref, Message("two"))
            for write in (store.append("anna", [user("x")]), store.clear("anna"), store.pop("anna")):
                with pytest.raises(Conflict, match="session_busy"):
                    await write

            async def answer(loaded: Loaded) -> list[Any]:
                go.set()
                return [user("three")]

            await store.update("anna", answer)
            await service.turn(ref, turn_id(ref.id, receipt.turn), wait=timedelta(seconds=10))
            items = (await store.load("anna")).items
            assert refused_by_providers(items) is None
            assert [text_of(item) for item in items if item["type"] == "message"] == ["one", "two", "done", "three"]

    async def test_what_was_brought_in_is_carried(self, store: Store, tiers: Tiers):
        """A fork and an export take it along, with large texts, removals, and calls that wait."""
        await store.append("anna", [user(LONG), told("two"), user("three")])
        await store.pop("anna")
        await store.append("anna", [user("four"), call("c1")])
        before = given(await store.load("anna"))
        async with served(tiers, Agent()) as service:
            ref = Ref("default", store.id_of("anna"))
            fork = await service.fork(ref, at=None)
            reading = Import()
            events = await service.events(ref, after=0, limit=1000)
            for event in events:
                reading.line(export_line(ref.id, event, head=len(events)))
            again = await service.restore("default", reading.done())
            await store.delete("anna")
            for copy in (fork, again):
                assert given(await store.load(copy.id)) == before
                await store.append(copy.id, [output("c1")])
                assert given(await store.load(copy.id))[-1] == output("c1")
                assert (await ask(service, Ref("default", copy.id), "five")).status == "completed"

    async def test_what_was_brought_in_is_archived_and_moved(self, store: Store, tiers: Tiers):
        """Shelved and swept it comes back whole, and so it does from another store that it went to."""
        await store.append("anna", [user(LONG), told("two"), user("three")])
        await store.pop("anna")
        before, ref = await store.load("anna"), Ref("default", store.id_of("anna"))
        async with served(tiers, Agent()) as service:
            await ask(service, ref, "four")
        eraser = Eraser(tiers.warm, tiers.cold, Near(None), tiers.hot)
        archivist = Archivist(tiers.warm, tiers.cold, eraser=eraser, policy=AT_ONCE)
        for _ in range(2):
            while not await archivist.go_on():
                pass
        assert archivist.tally.failed == 0
        assert (await store.load("anna")).items[:2] == before.items
        other = MemoryLog(MemoryDatabase())
        report = await Mover(Route(tiers.warm, with_shelf(other, tiers.cold), "here", "there")).move(ref, when="idle")
        assert (report.what, report.detail) == ("moved", "")
        with pytest.raises(Unavailable):
            await store.load("anna")
        there = Store(Shelves(other, tiers.hot, tiers.cold, "default", "default"))
        assert (await there.load("anna")).items[:2] == before.items
        await there.append("anna", [user("five")])

    async def test_a_field_that_looks_like_a_pointer_is_the_owners(self, store: Store):
        """Nobody reads another session's text through an item of their own."""
        await store.append("secret", [user(LONG)])
        events = await store._log.read(Ref("default", store.id_of("secret")), after=0)
        data = codec.decode(events[1])
        assert isinstance(data, ItemDone) and data.artifact is not None
        for item in (told("mine"), {**output("c1"), "output": "mine"}):
            forged: dict[str, Any] = {**item, "artifact": data.artifact, "status": "completed"}
            calls = [call("c1")] if "call_id" in forged else []
            await store.clear("anna")
            await store.append("anna", [*calls, forged])
            assert given(await store.load("anna")) == [*calls, forged]

    async def test_a_cold_tier_that_is_away_keeps_nobody_from_writing(self, store: Store, tiers: Tiers):
        """The text stays in the log then."""

        async def nothing(*_: Any) -> None:
            raise Unavailable("the cold tier does not answer", outcome="not_applied")

        blobs: Any = tiers.cold
        blobs.put = nothing
        await store.append("anna", [user(LONG)])
        assert given(await store.load("anna")) == [user(LONG)]

    @pytest.mark.parametrize("lost", ["before", "after"])
    async def test_a_lost_answer_is_no_second_append(self, store: Store, tiers: Tiers, lost: str):
        """P2: `update` asks again under its key, whether the commit had happened or not."""
        warm: Any = tiers.warm
        commit, losses = warm.commit, [True]

        async def lossy(ref: Ref, decide: Any, *, digest: bytes | None = None) -> Any:
            if losses and losses.pop():
                if lost == "after":
                    await commit(ref, decide, digest=digest)
                raise Unavailable("the connection broke")
            return await commit(ref, decide, digest=digest)

        warm.commit = lossy

        async def answer(loaded: Loaded) -> list[Any]:
            return [user("one")]

        await store.update("anna", answer)
        assert given(await store.load("anna")) == [user("one")]


class TestMemory(StoreCases):
    @pytest.fixture
    async def tiers(self) -> AsyncIterator[Tiers]:
        async with opened(Places("memory:", "memory:", "memory:")) as tiers:
            yield tiers


class TestSqlite(StoreCases):
    @pytest.fixture
    async def tiers(self, tmp_path: Path) -> AsyncIterator[Tiers]:
        async with opened(Places(f"sqlite:///{tmp_path}/warm.db", "memory:", f"file://{tmp_path}/cold")) as tiers:
            yield tiers


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    with servers.running(None, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server.url


class TestValkey(StoreCases):
    @pytest.fixture
    async def tiers(self, valkey: str, tmp_path: Path) -> AsyncIterator[Tiers]:
        warm = f"{valkey}?namespace={token_hex(4)}"
        async with opened(Places(warm, "memory:", f"file://{tmp_path}/cold")) as tiers:
            yield tiers


class TestPostgres(StoreCases):
    @pytest.fixture
    async def tiers(self, database: str, tmp_path: Path) -> AsyncIterator[Tiers]:
        async with opened(Places(database, "memory:", f"file://{tmp_path}/cold")) as tiers:
            yield tiers


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([{"role": "assistant"}], "invalid_request"),
        ([{"role": "user", "content": "\ud800"}], "invalid_unicode"),
        ([{"role": "user", "content": "x", "n": float("nan")}], "invalid_json"),
        ([{"role": "user", "content": "x", "n": 2**70 + 1}], "invalid_json"),
        ([{"role": "user", "content": "x", "n": object()}], "invalid_json"),
        ([{"type": "dalsegno:other", "name": "x"}], "invalid_request"),
        ([{"type": "dalsegno:step"}], "invalid_request"),
        (["x"], "invalid_request"),
        ([user("x")] * 1001, "too_large"),
        ([user("x" * 17_000_000)], "too_large"),
    ],
)
async def test_what_a_log_cannot_hold_is_refused(items: Any, code: str):
    """Before anything is written."""
    async with opened(Places("memory:", "memory:", "memory:")) as tiers:
        store = outside(tiers)
        with pytest.raises(Refused) as refused:
            await store.append("anna", items)
        assert (refused.value.code, await store.head("anna")) == (code, 0)
        await store.close()
