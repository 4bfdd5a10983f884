"""The morning at the shop once more, through each framework: the agents of `examples/retail`, just as a user has them.

The same customers, the same tools, the same kills as in `test_retail.py`. But here nothing of the agent is ours: the
framework runs it, and a real provider client asks the scripted model server, a process of its own that is never
killed. It refuses what providers refuse, and its log holds every context that any replica has shown it. These are
compared with the sessions' logs in a form that no protocol shows through: instructions, messages, calls and results.

An ordinary run serves every fourth customer on the embedded tiers. `RELEASE_SIZES=1` serves all 114, and then once more
on PostgreSQL, Redis and S3.

A replica that was killed is back after two to five seconds here, since that is what importing a framework takes; the
killer waits until two of three serve.
"""

import statistics
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx2
import pytest

from dalsegno.core.context import context
from dalsegno.core.event import Event
from dalsegno.testing.model.shown import Message
from retail.rules import OPERATIONS
from retail.script import task_of
from retail.tools import POLICY
from tests.acceptance import stack as stacks
from tests.acceptance.retail import judge
from tests.acceptance.retail.asked import Ask, ModelLog
from tests.acceptance.retail.play import STACK_LATE_MS, Show, Tiers, running
from tests.acceptance.retail.records import Day, Record, day_of
from tests.acceptance.retail.stages import scripted
from tests.acceptance.retail.tasks import data_folder, missing, tasks_of
from tests.acceptance.retail.transcript import messages_of, plain
from tests.acceptance.sizes import RELEASE, publish, size

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(size(240, 480))]

AGENTS = {
    "pydantic-ai": "retail.pydantic_agent:agent",
    "openai-agents": "retail.openai_agents_agent:agent",
    "langgraph": "retail.langgraph_agent:agent",
}
PLACES = ["embedded", *(["stack"] if RELEASE else [])]
EVERY = size(4, 1)
SPAN_BLOWS = float(size(5, 40))
KILLS_MIN = size(2, 15)
WITHIN_SECONDS = float(size(90, 300))
REST_SECONDS = (0.2, 0.6)


@dataclass(frozen=True)
class Case:
    """A day, and what the model server was asked in it."""

    day: Day
    asks: list[Ask]

    @cached_property
    def by_task(self) -> dict[str, Record]:
        """Each task's record: a conversation's first words name the task."""
        return {record.visit.task.id: record for record in self.day.records.values()}


def answers(record: Record) -> Iterator[tuple[Event, int]]:
    """The first event of each model step on record, and the last event that the model had been shown."""
    for event, data in zip(record.events, record.data, strict=True):
        if event.type == "item.done" and data.get("through") is not None:
            yield event, data["through"]


def shown_at(record: Record, through: int) -> tuple[Message, ...]:
    """The context that the log stands for, up to an event."""
    items: list[Any] = list(context(record.events[:through], session=record.visit.session).items)
    return plain(messages_of(items))


@pytest.fixture(scope="module", params=PLACES)
def tiers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiers]:
    """Where the fleet keeps what it knows: the embedded tiers; for a release also PostgreSQL, Redis and S3."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        yield Tiers(("--warm", f"sqlite:///{folder / 'warm.db'}"))
    else:
        with stacks.running(folder) as stack:
            yield Tiers(stack.options(stack.database()), stack.environment, late_ms=STACK_LATE_MS)


@pytest.fixture(scope="module", params=list(AGENTS))
def case(request: pytest.FixtureRequest, tiers: Tiers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    data = data_folder()
    if data is None:
        pytest.skip(missing())
    data, here = data.resolve(), tmp_path_factory.mktemp("retail")
    show = Show(AGENTS[request.param], span=SPAN_BLOWS, rest=REST_SECONDS, within=WITHIN_SECONDS)
    with (
        running("dalsegno.testing.model", "retail.script:answer", environment={"RETAIL_DATA": str(data)}) as url,
        httpx2.Client(base_url=url, timeout=60) as http,
    ):
        asked = ModelLog(http)
        tasks = tasks_of(data)[::EVERY]
        day = day_of(tasks, data, here, show=show, stage=scripted(url, asked), tiers=tiers)
        yield Case(day, asked.asks())


def test_every_customer_is_served(case: Case):
    """P5, P8: every accepted turn reaches exactly one end, and every task's calls are on record once, in order, with
    the answers that a shop without crashes gives.
    """
    judge.everybody_is_served(case.day)


def test_replicas_died_in_the_middle_of_turns(case: Case, record_property):
    """P5, and the other tests mean something: kills ended replicas that ran turns, and others went on with them."""
    blows = sorted(blow.at for blow in case.day.morning.blows)
    began = [
        (blows[bisect_right(blows, event.at) - 1], event.at)
        for record in case.day.records.values()
        for (_, attempt), event in record.starts.items()
        if attempt > 1
    ]
    fatal, waits = {blow for blow, _ in began}, [at - blow for blow, at in began]
    attempts = Counter(attempt for record in case.day.records.values() for _, attempt in record.starts)
    figures = {
        "customers": len(case.day.records),
        "kills": len(blows),
        "kills in the middle of turns": len(fatal),
        "take-overs": len(began),
        "turns in a third attempt": attempts[3],
        "take-over ms, median": statistics.median(waits),
        "take-over ms, worst": max(waits),
        "writes repeated and absorbed": case.day.outcomes.get("absorbed", 0),
        "contexts": len(case.asks),
        "seconds": round(case.day.morning.seconds, 1),
    }
    for name, figure in figures.items():
        record_property(name, figure)
    publish(", ".join(f"{name} {figure}" for name, figure in figures.items()))
    assert len(fatal) >= KILLS_MIN
    assert max(attempts) <= 3


def test_the_shop_is_as_if_nothing_had_died(case: Case):
    """P7: the shop's final state is the one that the same actions give when they are applied directly, once."""
    judge.the_shop_is_as_if_nothing_had_died(case.day)


def test_every_write_happens_once_however_often_it_is_sent(case: Case):
    """P7: every key is decided once, and nobody is handed over to a human twice."""
    judge.every_write_happens_once(case.day)


def test_every_context_is_exactly_the_log(case: Case):
    """P6: "The model is shown exactly the log's prefix": every context that the model server was shown, by any replica
    in any attempt, is what the session's log says up to the event that the recorded answer names; none was refused.
    """
    assert [ask.refusal for ask in case.asks if ask.refusal] == []
    folds = {
        name: {shown_at(record, through) for _, through in answers(record)} for name, record in case.by_task.items()
    }
    assert len(case.asks) >= sum(len(known) for known in folds.values())
    for ask in case.asks:
        assert ask.shown is not None
        name, shown = task_of(ask.shown.messages[0].text), plain(ask.shown.messages)
        assert shown in folds[name], f"task {name}, request {ask.number}: {shown}"
        assert ask.shown.instructions == POLICY
        assert {tool.name for tool in ask.shown.tools} == set(OPERATIONS)


def test_no_recorded_step_is_asked_for_again(case: Case):
    """P6: "A recorded model response or tool result is never asked for again": every question to the model came before
    its answer was on record, and at most once in each attempt; and so did every request to the shop.
    """
    times = Counter[tuple[str, tuple[Message, ...]]]()
    recorded = {
        (name, shown_at(record, through)): (event, record.name(event))
        for name, record in case.by_task.items()
        for event, through in answers(record)
    }
    for ask in case.asks:
        assert ask.shown is not None
        asked = task_of(ask.shown.messages[0].text), plain(ask.shown.messages)
        event, turn = recorded[asked]
        times[asked] += 1
        late = ask.at > event.at + case.day.late_ms or times[asked] > case.day.attempts[turn]
        assert not late, judge.story(
            case.day, case.by_task[asked[0]], turn, ask.at, f"THE MODEL WAS ASKED, late or too often, for {event.seq}"
        )
    judge.no_tool_runs_after_its_result(case.day)
