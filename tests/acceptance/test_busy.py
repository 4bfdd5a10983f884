"""Fifty messages at once to one session, from clients of two real replicas, under every policy for a busy session: each
is one message of the log, whole and in order, or its sender was told that it is not. Nothing is lost in silence.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dalsegno.client import TERMINAL, Client
from dalsegno.testing.fleet import Fleet
from dalsegno.testing.servers import postgres
from tests.acceptance.conftest import Serving
from tests.acceptance.ledger import Ledger
from tests.acceptance.sizes import publish, seconds, size
from tests.support import wait_until

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(90))]

MESSAGES = 50
ROUNDS = size(1, 20)
POLICIES = ("queue", "reject", "interrupt", "rollback", "steer")
ENDS = {
    "queue": {"turn.completed"},
    "reject": {"turn.completed"},
    "interrupt": {"turn.completed", "turn.cancelled"},
    "rollback": {"turn.completed", "turn.cancelled"},
    "steer": {"turn.completed"},
}


@dataclass(frozen=True)
class Sent:
    """A message, when it was sent and answered, and what the answer was."""

    text: str
    key: str
    sent: float
    answered: float
    status: int
    answer: dict[str, Any]
    headers: httpx2.Headers


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    """A private PostgreSQL."""
    with postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def tiers(request: pytest.FixtureRequest, database: Path) -> tuple[str, ...]:
    """Where the two processes keep what they know: the embedded tiers, and PostgreSQL alone."""
    if request.param == "sqlite":
        return "--warm", f"sqlite:///{database}"
    server: postgres.Postgres = request.getfixturevalue("server")
    return "--warm", server.database()


@pytest.mark.parametrize("policy", POLICIES)
async def test_fifty_messages_at_once(serving: Serving, ledger: Ledger, policy: str):
    """P1, P2, P3, P5: "An acknowledged message is in its session's log"; "for one idempotency key at most one message";
    "if A was acknowledged before B was sent, A precedes B"; "every accepted turn reaches exactly one end".
    """
    answers, kept = Counter[int](), 0
    async with serving(replicas=2) as fleet, Client(fleet.urls) as client:
        for number in range(ROUNDS):
            session = await client.sessions.create()
            sent = await everybody(fleet, session.id, policy, f"{policy}-{number}")
            await wait_until(partial(_idle, session), description="every turn has ended", timeout=30)
            log = [json.loads(line) for line in (await session.export()).splitlines()]
            assert judged(log, sent, policy, ledger) == []
            answers.update(one.status for one in sent)
            kept += len({one.answer["seq"] for one in sent if one.status == 202})
    publish(f"{policy}: {MESSAGES * ROUNDS} messages, {kept} in the log; answers {dict(answers)}")
    assert answers[202] >= ROUNDS
    assert policy == "reject" or set(answers) == {202}


async def _idle(session: Any) -> bool:
    return bool((await session.get())["status"] == "idle")


async def everybody(fleet: Fleet, session: str, policy: str, name: str) -> list[Sent]:
    """All messages at once, half of them to each process; every fifth to both, under the same key."""
    clock = asyncio.get_running_loop().time
    limits = httpx2.Limits(max_connections=2 * MESSAGES)
    async with httpx2.AsyncClient(timeout=30, limits=limits) as client:

        async def say(number: int, url: str) -> Sent:
            text = json.dumps({"id": f"{name}-{number}", "do": [], "words": 4, "pace_ms": 5, "more": "é𝄋\n" * number})
            said = {"type": "message", "content": text, "on_busy": policy}
            headers = {"idempotency-key": f"key {name} {number}"}
            began = clock()
            answer = await client.post(f"{url}/v1/sessions/{session}/inputs", json=said, headers=headers)
            key = headers["idempotency-key"]
            return Sent(text, key, began, clock(), answer.status_code, answer.json(), answer.headers)

        saying = [say(number, fleet.urls[number % 2]) for number in range(MESSAGES)]
        saying += [say(number, fleet.urls[1 - number % 2]) for number in range(0, MESSAGES, 5)]
        return await asyncio.gather(*saying)


def judged(log: list[dict[str, Any]], sent: list[Sent], policy: str, ledger: Ledger) -> list[str]:
    """What is not as it was promised, in words."""
    events = {event["seq"]: event for event in log}
    wrong = [] if list(events) == list(range(1, len(log) + 1)) else ["the log has gaps, or is not in order"]
    accepted = [one for one in sent if one.status == 202]
    said = {seq: event for seq, event in events.items() if event["data"].get("input", {}).get("type") == "message"}
    for one in accepted:
        event = said.get(one.answer["seq"])
        if event is None or event["data"]["input"]["content"] != one.text:
            wrong.append(f"{one.key} was acknowledged and is not in the log, or is altered")
    for one in sent:
        busy = policy == "reject" and (one.status, one.answer.get("code")) == (409, "session_busy")
        if one.status != 202 and not (busy and one.answer["outcome"] == "not_applied"):
            wrong.append(f"{one.key} was answered {one.status} {one.answer}")
        if busy and one.headers.get("x-should-retry") != "false":
            wrong.append(f"{one.key} was refused without a word about trying again")
    if set(said) != {one.answer["seq"] for one in accepted}:
        wrong.append(f"in the log are {len(said)} messages, and not those that were acknowledged")
    wrong += _keys(accepted) + _order(accepted) + _ends(log, policy)
    return wrong + (_unseen(said, ledger) if policy in ("queue", "reject", "steer") else [])


def _keys(accepted: list[Sent]) -> list[str]:
    """One key, one number, and all receipts but the first say that they are repeated."""
    seqs: dict[str, set[int]] = {}
    firsts = Counter[str]()
    for one in accepted:
        seqs.setdefault(one.key, set()).add(one.answer["seq"])
        firsts[one.key] += not one.answer["replayed"]
    wrong = [f"{key} is in the log at {found}" for key, found in seqs.items() if len(found) > 1]
    return wrong + [f"{key} was new {count} times" for key, count in firsts.items() if count != 1]


def _order(accepted: list[Sent]) -> list[str]:
    """Whoever was answered before another one spoke precedes it."""
    return [
        f"{before.key} was acknowledged before {after.key} was sent, and comes after it"
        for before in accepted
        for after in accepted
        if before.answered < after.sent and before.key != after.key and before.answer["seq"] > after.answer["seq"]
    ]


def _ends(log: list[dict[str, Any]], policy: str) -> list[str]:
    """Every turn ends once, in the way that the policy allows, and they begin in the order in which they were asked."""
    created = [event["seq"] for event in log if event["type"] == "turn.created"]
    ended = Counter[str](event["turn"] for event in log if event["type"] in TERMINAL)
    turns = {event["turn"] for event in log if event["type"] == "turn.created"}
    wrong = [f"turn {turn} ended {ended[turn]} times" for turn in turns if ended[turn] != 1]
    kinds = {event["type"] for event in log if event["type"] in TERMINAL}
    wrong += [f"a turn ended as {kind}" for kind in kinds - ENDS[policy]]
    starts = [event["turn"] for event in log if event["type"] == "turn.started"]
    first = {event["turn"]: event["seq"] for event in log if event["type"] == "turn.created"}
    order = [first[turn] for turn in dict.fromkeys(starts)]
    wrong += [f"turn {later} began before {earlier}" for earlier, later in pairwise(order) if earlier > later]
    last = max(created)
    if policy != "steer" and not any(e["type"] == "turn.completed" and first[e["turn"]] == last for e in log):
        wrong.append("the last turn was not completed")
    return wrong


def _unseen(said: dict[int, dict[str, Any]], ledger: Ledger) -> list[str]:
    """Of turns that completed, every message was shown to a model."""
    shown: dict[str, int] = {}
    for line in ledger.lines("model"):
        shown[line["turn"]] = max(shown.get(line["turn"], 0), line["at_event"])
    return [f"message {seq} was shown to no model" for seq, e in said.items() if shown.get(e["turn"], 0) < seq]


async def test_what_the_queue_does_not_hold_is_refused(serving: Serving):
    """Law 12: beyond `--max-queue` a message is 429 `queue_full` with `Retry-After`, and nothing of it is applied."""
    async with serving(replicas=2, options=("--max-queue", "10")) as fleet, Client(fleet.urls) as client:
        session = await client.sessions.create()
        sent = await everybody(fleet, session.id, "queue", "full")
        refused = [one for one in sent if one.status != 202]
        assert refused
        for one in refused:
            assert (one.status, one.answer["code"], one.answer["outcome"]) == (429, "queue_full", "not_applied")
            assert timedelta(seconds=int(one.headers["retry-after"])) > timedelta()
        await wait_until(partial(_idle, session), description="every turn has ended", timeout=30)
        log = [json.loads(line) for line in (await session.export()).splitlines()]
        said = [event["seq"] for event in log if event["type"] == "turn.created"]
        assert set(said) == {one.answer["seq"] for one in sent if one.status == 202}
