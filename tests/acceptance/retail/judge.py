"""What must hold of a day at the shop, whichever agent served it, and however many died."""

from collections import Counter
from typing import Any

import msgspec

from dalsegno.core.context import context
from dalsegno.testing.model.shown import Asked, Message
from retail.rules import WRITES
from retail.script import QUESTION, YES, next_line, opening
from tests.acceptance.retail.direct import first_difference
from tests.acceptance.retail.records import Day, Record
from tests.acceptance.retail.tasks import Task
from tests.acceptance.retail.transcript import messages_of

Json = dict[str, Any]
COMPLETED = "turn.completed"
ENDS = (COMPLETED, "turn.failed", "turn.cancelled")
TRANSFER = "transfer_to_human_agents"
NEAR_MS = 5000


def everybody_is_served(day: Day) -> None:
    """Each turn has one end and is completed; every customer was streamed every event once and in order; every task's
    calls are on record once, in order, with the answers that a shop without crashes gives; and so is all that was said.
    """
    ended = Counter(end.type for visit in day.morning.visits for end in visit.ends)
    others = {visit.task.id: end.data for visit in day.morning.visits for end in visit.ends if end.type != COMPLETED}
    assert not others
    assert ended == {COMPLETED: turns(day)}
    for record in day.records.values():
        visit = record.visit
        ends = [event.type for event in record.events if event.type in ENDS]
        assert ends == [COMPLETED] * len(visit.ends)
        streamed = [event.seq for event in visit.events if event.seq is not None]
        assert streamed == [event.seq for event in record.events if event.turn is not None]
        asked = [(call["name"], msgspec.json.decode(call["arguments"])) for call in record.calls]
        assert asked == [(action.name, action.arguments) for action in visit.task.actions], visit.task.id
        for call, answer in zip(record.calls, day.answers[visit.task.id], strict=True):
            output = record.outputs[call["call_id"]][1]["output"]
            unknown = call["name"] == TRANSFER and record.unknown(call)
            assert output == answer.text or unknown, f"task {visit.task.id}: {call['name']} came to {output}"
        items: list[Any] = list(context(record.events, session=visit.session).items)
        said = [(message.role, message.text) for message in messages_of(items) if message.role != "tool"]
        assert said == conversation(visit.task), f"task {visit.task.id}"


def conversation(task: Task) -> list[tuple[str, str]]:
    """What the customer and the model say to each other, in order, whatever the tools come to."""
    so_far = [Message("user", opening(task))]
    while True:
        line = next_line(so_far, {task.id: task})
        calls = () if line.action is None else (Asked("", line.action.name, ""),)
        so_far.append(Message("assistant", line.text, calls=calls))
        if line.action is not None:
            so_far.append(Message("tool"))
        elif line.text.endswith(QUESTION):
            so_far.append(Message("user", YES))
        else:
            return [(message.role, message.text) for message in so_far if message.role != "tool"]


def the_shop_is_as_if_nothing_had_died(day: Day) -> None:
    """All branches of it: the books are those that the same actions give when they are applied directly, once."""
    difference = first_difference(day.morning.inventory, day.inventory)
    assert difference is None, difference
    changes = sum(count for books in day.morning.inventory for count in books.get("changes", {}).values())
    assert changes == writes(day) - len(refused(day))


def every_write_happens_once(day: Day) -> None:
    """However often it is sent; and nobody is handed over twice."""
    decided, absorbed = Counter[str](), Counter[str]()
    for line in day.morning.journal:
        if line["name"] in WRITES:
            (absorbed if line["outcome"] == "absorbed" else decided)[line["key"]] += 1
    keys = [
        intent["key"]
        for record in day.records.values()
        for intent in record.intents
        if intent["name"] in WRITES and intent["effect"] == "keyed"
    ]
    assert len(keys) == writes(day) and decided == dict.fromkeys(keys, 1)
    assert day.outcomes.get("misused", 0) == 0 and day.outcomes.get("refused", 0) == len(refused(day))
    assert set(absorbed) <= set(decided)
    for record in day.records.values():
        transfers = [line for line in day.asked_of_shop(record) if line["name"] == TRANSFER]
        known = [call for call in record.calls if call["name"] == TRANSFER and not record.unknown(call)]
        assert len(known) <= len(transfers) <= sum(call["name"] == TRANSFER for call in record.calls)


def no_tool_runs_after_its_result(day: Day) -> None:
    """Every request to the shop came before its result was on record, and at most once in each attempt."""
    for record in day.records.values():
        calls = {intent["key"]: intent["call_id"] for intent in record.intents}
        lines = day.asked_of_shop(record)
        times = Counter(line["key"] for line in lines)
        for line in lines:
            assert line["key"] in calls, f"task {record.visit.task.id}: {line} has a key that nobody recorded"
            recorded, _ = record.outputs[calls[line["key"]]]
            late = line["at"] > recorded.at + day.late_ms or times[line["key"]] > day.attempts[line["turn"]]
            assert not late, story(day, record, line["turn"], line["at"], "LATE, OR TOO OFTEN")


def story(day: Day, record: Record, turn: str, at: int, what: str) -> str:
    """What is known of a turn in which something was asked too often or too late: everything near it, in the order of
    time.
    """
    known = [(event.at, f"attempt {number}") for (name, number), event in record.starts.items() if name == turn]
    known += [(line["at"], f"the shop was asked: {line}") for line in day.asked_of_shop(record)]
    known += [(blow.at, f"{blow.pid} was killed") for blow in day.morning.blows]
    known += [(event.at, f"event {event.seq}: {event.type}") for event in record.events]
    near = [f"{when - at:+} ms {each}" for when, each in sorted([*known, (at, what)]) if abs(when - at) < NEAR_MS]
    return "\n".join([f"task {record.visit.task.id}", *near])


def turns(day: Day) -> int:
    """How many there should be: each customer's first message, and a yes before each write."""
    return len(day.morning.visits) + writes(day)


def writes(day: Day) -> int:
    """How many calls are to change the shop, refused ones too."""
    return sum(action.writes for visit in day.morning.visits for action in visit.task.actions)


def refused(day: Day) -> list[str]:
    """The tasks with a write that the shop refuses, whoever asks."""
    return sorted(
        visit.task.id
        for visit in day.morning.visits
        for action, answer in zip(visit.task.actions, day.answers[visit.task.id], strict=True)
        if action.writes and not answer.accepted
    )
