"""What must be true of a session after all that was done to its fleet, as functions from what was seen to violations.

Everything is judged from outside: by what the client was told, what the log says over HTTP, and what the ledger says.
"""

import json
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from dalsegno.client import TERMINAL, Event, Receipt, SessionHandle, text_of
from tests.acceptance import agents
from tests.acceptance.ledger import Ledger

Log = Sequence[dict[str, Any]]


@dataclass
class Said:
    """A message and the receipt for it."""

    script: dict[str, Any]
    receipt: Receipt

    @property
    def text(self) -> str:
        return json.dumps(self.script)


@dataclass
class Seen:
    """What one client knows of one session."""

    session: SessionHandle
    said: list[Said] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    resumed: int = 0


@dataclass(frozen=True)
class World:
    """The ledger and the tools' table, as they are after everything has ended."""

    keyed: Mapping[str, set[str]]
    times: Mapping[str, Counter[str]]
    booked: Counter[str]
    asked: Mapping[str, list[Mapping[str, Any]]]


def world_of(ledger: Ledger, database: Path | str) -> World:
    """Look at the world once. The tools' table is in a file, or in the PostgreSQL of that URL."""
    connect: Any = sqlite3.connect if isinstance(database, Path) else psycopg.connect
    with closing(connect(database)) as connection:
        booked = Counter(label for (label,) in connection.execute("SELECT label FROM bookings"))
    asked: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for line in ledger.lines("model"):
        asked[line["turn"]].append(line)
    times = {kind: ledger.times(kind) for kind in ("keyed", "once", "read", "poison")}
    return World(ledger.keys("keyed"), times, booked, asked)


async def log_of(session: SessionHandle) -> Log:
    """The whole log, as it is exported."""
    return [json.loads(line) for line in (await session.export()).splitlines()]


def ends(log: Log) -> dict[str, dict[str, Any]]:
    """The end of each turn that has one."""
    return {str(event["turn"]): event for event in log if event["type"] in TERMINAL}


def judge(seen: Seen, log: Log, world: World) -> list[str]:
    """Everything that is wrong with a session; empty if nothing is."""
    return [
        f"{seen.session.id}: {violation}"
        for check in (_numbered, _lost, _ended, _failed, _owned, _recorded, _streamed)
        for violation in check(seen, log)
    ] + [f"{seen.session.id}: {violation}" for said in seen.said for violation in _acted(said, log, world)]


def _numbered(seen: Seen, log: Log) -> Iterator[str]:
    numbers = [event["seq"] for event in log]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"gap: the log is numbered {numbers}"


def _lost(seen: Seen, log: Log) -> Iterator[str]:
    by_seq = {event["seq"]: event for event in log}
    for said in seen.said:
        event = by_seq.get(said.receipt.seq)
        if event is None or event["type"] != "turn.created" or event["turn"] != said.receipt.turn:
            yield f"lost: event {said.receipt.seq} is not {said.receipt} but {event}"
        elif event["data"]["input"]["content"] != said.text:
            yield f"altered: event {said.receipt.seq}"
    contents = Counter(event["data"]["input"]["content"] for event in log if event["type"] == "turn.created")
    yield from (f"doubled: {text} was appended {count} times" for text, count in contents.items() if count > 1)
    numbers = [said.receipt.seq for said in seen.said]
    if numbers != sorted(numbers):
        yield f"order: {numbers}"


def _ended(seen: Seen, log: Log) -> Iterator[str]:
    finished: set[str] = set()
    created: set[str] = set()
    for event in log:
        turn = event["turn"]
        if event["type"] == "turn.created":
            created.add(turn)
        if turn in finished:
            yield f"doubled: {event['type']} {event['seq']} after the end of {turn}"
        if event["type"] in TERMINAL:
            finished.add(turn)
    yield from (f"stuck: turn {turn} has no end" for turn in created - finished)


def _failed(seen: Seen, log: Log) -> Iterator[str]:
    """Only a turn that cost three replicas their lives may fail: nothing else in these tests is an error."""
    for turn, event in ends(log).items():
        if event["type"] != "turn.completed" and event["data"].get("error", {}).get("code") != "poisoned":
            yield f"failed: {turn}: {event['type']} {event['data']}"


def _owned(seen: Seen, log: Log) -> Iterator[str]:
    """Each start has a newer epoch, and attempts count up: one owner at a time."""
    epoch, attempts = 0, Counter[str]()
    for event in log:
        if event["type"] == "turn.started":
            data, turn = event["data"], event["turn"]
            if data["epoch"] <= epoch:
                yield f"owner: epoch {data['epoch']} of event {event['seq']} after {epoch}"
            if data["attempt"] not in (attempts[turn], attempts[turn] + 1) and data["attempt"] <= attempts[turn]:
                yield f"owner: attempt {data['attempt']} of event {event['seq']} after {attempts[turn]}"
            epoch, attempts[turn] = data["epoch"], data["attempt"]


def _recorded(seen: Seen, log: Log) -> Iterator[str]:
    """A completed turn says exactly what its script says, and every call has one result."""
    completed = {turn for turn, event in ends(log).items() if event["type"] == "turn.completed"}
    items: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in log:
        if event["type"] == "item.done":
            items[event["turn"]].append(event["data"]["item"])
    for said in seen.said:
        if said.receipt.turn not in completed:
            continue
        found, script = items[said.receipt.turn], said.script
        texts = [
            re.sub(r"[0-9]+:(?=\S)", "", text_of(item)) if script.get("voice") == "own" else text_of(item)
            for item in found
            if item["type"] == "message" and item.get("status") == "completed"
        ]
        plain = {**script, "voice": "same"}
        wanted = ["".join(agents.words(plain, number)) for number in range(len(script["do"]) + 1)]
        if texts != wanted:
            yield f"said: {said.receipt.turn} says {texts}, not {wanted}"
        calls = [item["call_id"] for item in found if item["type"] == "function_call" and item["status"] == "completed"]
        outputs = [item["call_id"] for item in found if item["type"] == "function_call_output"]
        if len(calls) != len(script["do"]) or sorted(calls) != sorted(outputs):
            yield f"calls: {said.receipt.turn} has calls {calls} and outputs {outputs}"


def _streamed(seen: Seen, log: Log) -> Iterator[str]:
    """The client's stream is the log, and what it was told of each item is the item."""
    if not seen.events:
        return
    numbers = [event.seq for event in seen.events if event.seq is not None]
    if numbers != list(range(1, len(log) + 1)):
        yield f"stream: numbers {numbers} of {len(log)}"
    streamable = ("message", "function_call", "reasoning")
    done = {
        item["id"]: text_of(item)
        for item in (event["data"]["item"] for event in log if event["type"] == "item.done")
        if item["type"] in streamable
    }
    told = {name: text for name, text in seen.texts.items() if name in done or text}
    if {name: told.get(name) for name in done} != done:
        yield f"stream: {sorted(set(done) ^ set(told))} differ, or their texts do"


def _acted(said: Said, log: Log, world: World) -> Iterator[str]:
    """`keyed` and `transactional` exactly once where the turn completed, `once` at most once; models asked in order."""
    end = ends(log).get(said.receipt.turn)
    completed = end is not None and end["type"] == "turn.completed"
    outputs = {
        event["data"]["item"]["output"]
        for event in log
        if event["type"] == "item.done" and event["data"]["item"]["type"] == "function_call_output"
    }
    for number, kind in enumerate(said.script["do"]):
        label = f"{said.script['id']}/{number}"
        if kind == "keyed":
            count = len(world.keyed.get(label, ()))
        elif kind == "transactional":
            count = world.booked[label]
        else:
            count = world.times.get(kind, Counter())[label]
        told = f"{kind} {label} done" in outputs
        if count > 1 and kind != "read":
            yield f"effect doubled: {kind} {label} happened {count} times"
        if completed and kind == "transactional" and not told and count:
            yield f"effect not on record: {kind} {label} happened"
        if told and count == 0:
            yield f"effect lost: {kind} {label} is on record and never happened"
        if completed and kind in ("keyed", "transactional", "read") and not told:
            yield f"effect lost: {kind} {label} has no result"
    yield from _asked(said, world.asked.get(said.receipt.turn, ()))


def _asked(said: Said, lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A recorded step is not asked for again, and every attempt is shown the same.

    What an attempt had begun to say and another one did not repeat is on record, and shown: those are left out.
    """
    last, shown = -1, dict[str, str]()
    for line in lines:
        number = int(line["label"].rpartition("/")[2])
        if number < last:
            yield f"asked again: {line['label']} after step {last}"
        if said.script["voice"] == "same" and shown.setdefault(line["label"], line["shown"]) != line["shown"]:
            yield f"context: {line['label']} was shown something else in attempt {line['attempt']}"
        last = max(last, number)
