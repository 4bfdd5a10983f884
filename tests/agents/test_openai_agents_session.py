"""`DalsegnoSession`: the SDK's `Session` protocol over our log, side by side with the SDK's own `SQLiteSession`."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, Runner, SQLiteSession, function_tool
from agents.memory import SessionSettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dalsegno import open_store
from dalsegno.agents.openai_agents import DalsegnoSession, OpenAIAgent
from dalsegno.agents.openai_agents.items import kept_as, shown_as, to_input
from dalsegno.errors import Conflict
from dalsegno.ports import Ref
from dalsegno.runtime.store import Shelves, Store
from dalsegno.testing.model import ModelServer, Thought, ToolCall, by_round
from tests.agents.oai import SILENT, model_of, said
from tests.runtime.fleet import TENANT, fleet

ROOT = Path(__file__).parents[2]
TEXTS = st.text(min_size=1, max_size=20).filter(lambda text: not any(0xD800 <= ord(char) < 0xE000 for char in text))
CALL_IDS = st.uuids().map(lambda name: f"call_{name.hex[:12]}")


def message(text: str, n: int) -> Any:
    """A message in one of the forms in which the SDK and its users add them."""
    forms: list[Any] = [
        {"role": "user", "content": text},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]},
        {"role": "assistant", "content": text},
        {"role": "system", "content": text},
        {
            "type": "message",
            "id": f"msg_{n}",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": text, "annotations": [{"type": "url_citation"}], "logprobs": []},
                {"type": "refusal", "refusal": "no"},
            ],
        },
        {"type": "reasoning", "id": f"rs_{n}", "summary": [{"type": "summary_text", "text": text}]},
        {"type": "reasoning", "id": f"rs_{n}", "summary": [], "encrypted_content": text},
        {
            "type": "web_search_call",
            "id": f"ws_{n}",
            "status": "completed",
            "action": {"type": "search", "query": text},
        },
        {"role": "user", "content": ""},
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:,", "detail": "auto"}]},
    ]
    return forms[n % len(forms)]


def exchange(call_id: str, text: str, n: int) -> list[Any]:
    """A call and its result."""
    outputs: list[Any] = [text, [{"type": "input_text", "text": text}], ""]
    call = {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}
    more = {"id": f"fc_{n}", "status": "completed"} if n % 2 else {}
    return [call | more, {"type": "function_call_output", "call_id": call_id, "output": outputs[n % 3]}]


ITEMS = st.lists(
    st.one_of(
        st.builds(lambda text, n: [message(text, n)], TEXTS, st.integers(0, 99)),
        st.builds(exchange, CALL_IDS, TEXTS, st.integers(0, 99)),
    ),
    max_size=4,
).map(lambda groups: [item for group in groups for item in group])
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), ITEMS),
        st.tuples(st.just("get"), st.sampled_from([None, 0, 1, 2, 50, -1])),
        st.tuples(st.just("pop"), st.none()),
        st.tuples(st.just("clear"), st.none()),
    ),
    max_size=10,
)


@given(actions=ACTIONS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_same_as_the_sdks_own(actions: list[Any]):
    """Whatever is added, read, popped and cleared: both give the same items."""

    async def compare() -> None:
        async with open_store("memory:") as store:
            ours, theirs = DalsegnoSession(store, "s"), SQLiteSession("s")
            for name, argument in actions:
                match name:
                    case "add":
                        await ours.add_items(argument)
                        await theirs.add_items(argument)
                    case "get":
                        assert await ours.get_items(argument) == await theirs.get_items(argument)
                    case "pop":
                        item = await theirs.pop_item()
                        assert await ours.pop_item() == item
                        if item is not None and "call_id" in item:  # and not half an exchange
                            assert await ours.pop_item() == await theirs.pop_item()
                    case _:
                        await ours.clear_session()
                        await theirs.clear_session()
            assert await ours.get_items() == await theirs.get_items()
            theirs.close()

    asyncio.run(compare())


@given(text=TEXTS, n=st.integers(0, 99))
def test_an_item_comes_back_as_it_was(text: str, n: int):
    """Whatever its form, and also when it cannot stand where it is to stand."""
    for raw in (message(text, n), *exchange("c", text, n)):
        assert shown_as(kept_as(raw)) == [raw]
        assert shown_as(kept_as(raw, fits=False)) == [raw]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Any]:
    async with open_store(f"sqlite:///{tmp_path}/s.db") as store:
        yield store


async def test_sessions_do_not_mix(store: Any):
    """Each name is a session of its own; a limit of the session's settings holds."""
    one, other = (
        DalsegnoSession(store, "one"),
        DalsegnoSession(store, "other", session_settings=SessionSettings(limit=1)),
    )
    await one.add_items([{"role": "user", "content": "1"}])
    await other.add_items([{"role": "user", "content": "2"}, {"role": "user", "content": "3"}])
    assert await one.get_items() == [{"role": "user", "content": "1"}]
    assert await other.get_items() == [{"role": "user", "content": "3"}]
    assert len(await other.get_items(5)) == 2


async def test_a_result_whose_call_is_elsewhere(store: Any):
    """What the SDK's own sessions take is taken: a call now and its result later, or a result alone."""
    session = DalsegnoSession(store, "s")
    call, output = exchange("c1", "later", 0)
    await session.add_items([{"role": "user", "content": "hi"}, call])
    assert await session.get_items() == [{"role": "user", "content": "hi"}, call]
    await session.add_items([output])
    await session.add_items([{"type": "function_call_output", "call_id": "nobody", "output": "x"}])
    assert (await session.get_items())[1:] == [
        call,
        output,
        {"type": "function_call_output", "call_id": "nobody", "output": "x"},
    ]
    assert await session.pop_item() == {"type": "function_call_output", "call_id": "nobody", "output": "x"}


@function_tool
async def weather(city: str) -> str:
    """Weather."""
    return f"sunny in {city}"


async def test_the_runner_with_our_session(store: Any):
    """`Runner.run` with our session sends what it sends with its own; a served agent goes on with that conversation."""
    asked: list[Any] = [Thought("hm "), ToolCall("weather", {"city": "Rome"})]
    script = by_round(asked, lambda shown: f"It is {shown.results[-1]}.")
    sent = list[Any]()
    async with ModelServer(script) as server:
        agent = Agent("A", tools=[weather], model=model_of(server))
        ours, theirs = DalsegnoSession(store, "customer 7"), SQLiteSession("customer 7")
        for session in (theirs, ours):
            server.log.clear()
            for text in ("How is it?", "And now?"):
                result = await Runner.run(agent, text, session=session, run_config=SILENT)
                assert result.final_output == "It is sunny in Rome."
            sent.append([entry.request["input"] for entry in server.log.entries])
        assert sent[0] == sent[1]
        assert await ours.get_items() == await theirs.get_items()
        theirs.close()
        items = (await store.load("customer 7")).items
        assert to_input(items) == await ours.get_items()


async def test_a_served_session_is_read_and_added_to():
    """The other way round: what was served is read through the protocol; while a turn is open adding is refused."""
    async with ModelServer(by_round("fine")) as server:
        agent = OpenAIAgent(Agent("A", model=model_of(server)))
        async with fleet(agent.run) as world:
            ref: Ref = await world.session()
            assert said(await world.ask(ref, "hi")) == "fine"
            session = DalsegnoSession(on_tiers(world), ref.id)
            items: list[Any] = await session.get_items()
            assert [item["role"] for item in items] == ["user", "assistant"]
            await session.add_items([{"role": "user", "content": "from outside"}])
            assert said(await world.ask(ref, "again")) == "fine"
            assert server.log.entries[-1].request["input"][-2] == {"role": "user", "content": "from outside"}
            hold = server.hold()
            receipt = await world.say(ref, "slow")
            await hold.reached()
            with pytest.raises(Conflict):
                await session.add_items([{"role": "user", "content": "no"}])
            hold.release()
            await world.end_of(ref, receipt)


def on_tiers(world: Any) -> Any:
    """A store over a fleet's tiers."""
    one = world.ones[0]
    return Store(Shelves(one.shelf, one.hot, one.blobs, TENANT, "default"))


ADDING = """
import asyncio, sys
from dalsegno import open_store
from tests.agents.test_openai_agents_session import add_pairs

async def main() -> None:
    async with open_store(sys.argv[1]) as store:
        print("ready", flush=True)
        await add_pairs(store, "theirs")

asyncio.run(main())
"""
PAIRS = 25


async def add_pairs(store: Any, name: str) -> None:
    """Two items at a time."""
    session = DalsegnoSession(store, "shared")
    for n in range(PAIRS):
        await session.add_items([{"role": "user", "content": f"{name} {n} {x}"} for x in "ab"])


async def test_two_processes_at_once(tmp_path: Path):
    """Each batch of each process is there, once, in one piece, and in the order of its writer."""
    url = f"sqlite:///{tmp_path}/s.db"
    async with open_store(url) as store:
        other = subprocess.Popen([sys.executable, "-c", ADDING, url], stdout=subprocess.PIPE, cwd=ROOT)
        assert other.stdout is not None
        await asyncio.to_thread(other.stdout.readline)
        await add_pairs(store, "ours")
        assert await asyncio.to_thread(other.wait, 60) == 0
        other.stdout.close()
        items: list[Any] = await DalsegnoSession(store, "shared").get_items()
        texts = [item["content"] for item in items]
    for name in ("ours", "theirs"):
        mine = [text for text in texts if text.startswith(name)]
        assert mine == [f"{name} {n} {x}" for n in range(PAIRS) for x in "ab"]
    assert all(texts[place + 1] == f"{text[:-1]}b" for place, text in enumerate(texts) if text.endswith("a"))


async def test_popped_once(store: Any):
    """Many who pop at once get each item once, and nobody gets one twice."""
    session = DalsegnoSession(store, "s")
    await session.add_items([{"role": "user", "content": f"{n}"} for n in range(12)])
    popped: list[Any] = await asyncio.gather(*(DalsegnoSession(store, "s").pop_item() for _ in range(12)))
    assert sorted(int(item["content"]) for item in popped) == list(range(12))
    assert await session.pop_item() is None
