"""What is on record of a morning: each customer's log, read as it was exported, and what it should have come to."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from dalsegno.core.effect import UNKNOWN
from dalsegno.core.event import Event
from dalsegno.core.ids import turn_id
from dalsegno.wire.transfer import Import
from tests.acceptance.retail.direct import Answer, apply_directly
from tests.acceptance.retail.play import Morning, Show, Stage, Tiers, Visit, play
from tests.acceptance.retail.tasks import Task

SEED = 114

Json = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A visit and its session's log, as exported and read by the importer, which believes nothing."""

    visit: Visit
    events: list[Event]

    @cached_property
    def data(self) -> list[Json]:
        """The events' content, in order."""
        return [msgspec.json.decode(event.data) for event in self.events]

    @cached_property
    def items(self) -> list[tuple[Event, Json]]:
        """The recorded items, each with its event."""
        done = [(event, data) for event, data in zip(self.events, self.data, strict=True) if event.type == "item.done"]
        return [(event, data["item"]) for event, data in done]

    @cached_property
    def calls(self) -> list[Json]:
        """The calls, in order."""
        return [item for _, item in self.items if item["type"] == "function_call"]

    @cached_property
    def outputs(self) -> dict[str, tuple[Event, Json]]:
        """What each call came to, by its id."""
        return {item["call_id"]: (event, item) for event, item in self.items if item["type"] == "function_call_output"}

    @cached_property
    def intents(self) -> list[Json]:
        """What was recorded of each call before it was carried out, in order."""
        return [data for event, data in zip(self.events, self.data, strict=True) if event.type == "tool.intent"]

    @cached_property
    def steps(self) -> dict[tuple[str, str], Event]:
        """When each model step was recorded, by turn and step."""
        pairs = zip(self.events, self.data, strict=True)
        return {
            (self.name(event), data["step"]): event
            for event, data in pairs
            if event.type == "item.done" and data.get("step") is not None
        }

    @cached_property
    def starts(self) -> dict[tuple[str, int], Event]:
        """When each attempt began, by turn and attempt."""
        pairs = zip(self.events, self.data, strict=True)
        return {(self.name(event), data["attempt"]): event for event, data in pairs if event.type == "turn.started"}

    def name(self, event: Event) -> str:
        """The id of the event's turn."""
        assert event.turn is not None
        return turn_id(self.visit.session, event.turn)

    def unknown(self, call: Json) -> bool:
        """Whether nobody knows what the call came to."""
        return bool(self.outputs[call["call_id"]][1]["output"] == UNKNOWN)


@dataclass(frozen=True)
class Day:
    """The morning, what is on record of it, and what it should have come to. The times of events may be `late_ms`
    early: they are what a replica believed that the database's clock said.
    """

    morning: Morning
    records: dict[str, Record]
    inventory: list[Json]
    answers: dict[str, list[Answer]]
    late_ms: int

    @cached_property
    def outcomes(self) -> Mapping[str, int]:
        """How the shop's journal sums up."""
        return Counter(line["outcome"] for line in self.morning.journal)

    @cached_property
    def attempts(self) -> Mapping[str, int]:
        """How often each turn was begun: by another replica, or by the same one, which had no answer to its claim."""
        return Counter(
            record.name(event)
            for record in self.records.values()
            for event in record.events
            if event.type == "turn.started"
        )

    def asked_of_shop(self, record: Record) -> list[Json]:
        """The shop's journal of one session."""
        return [line for line in self.morning.journal if line["session"] == record.visit.session]


def day_of(tasks: Sequence[Task], data: Path, folder: Path, *, show: Show, stage: Stage, tiers: Tiers) -> Day:
    """Serve these tasks, and apply them directly."""
    inventory, answers = apply_directly(tasks, data)
    backwards, same = apply_directly(reversed(tasks), data)
    assert (backwards, same) == (inventory, answers), "the tasks of a branch depend on their order"
    morning = asyncio.run(play(tasks, data, folder, show=show, stage=stage, tiers=tiers, seed=SEED))
    records = {visit.session: record_of(visit) for visit in morning.visits}
    return Day(morning, records, inventory, answers, tiers.late_ms)


def record_of(visit: Visit) -> Record:
    """The customer's log, as the importer reads it."""
    reader = Import()
    for line in visit.log.splitlines():
        reader.line(line)
    return Record(visit, reader.done())
