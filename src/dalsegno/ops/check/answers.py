"""The first play, looked up by those that are answered from it: by step and by call, and where those do not fit, by
what was asked.
"""

import msgspec

from dalsegno.core import item as items
from dalsegno.core import json
from dalsegno.core.event import Event
from dalsegno.core.json import Json, JsonObject
from dalsegno.core.part import Arguments, Detail, Part, Thought, ToolCall, Usage
from dalsegno.core.step import Journal, StepRecord
from dalsegno.ops.check.compare import canonical
from dalsegno.ops.check.talk import Record, Reply


class Answers:
    """Of one play, turn by turn. What was taken for a call that had no id of its own is not taken twice."""

    def __init__(self, record: Record, turns: dict[int, str]) -> None:
        self._journals: dict[str, Journal] = {}
        for event in record.events:
            self._note(event, turns)
        self._steps = {turn: named(journal) for turn, journal in self._journals.items()}
        self._replies = {(reply.turn, reply.key, reply.number): reply for reply in record.replies}
        self._by_request = {
            (sent.turn, json.dumps_sorted(sent.request)): self._replies.get((sent.turn, sent.key, sent.number))
            for sent in record.requests
        }
        self._spoken = {(sent.turn, sent.key) for sent in record.requests}
        self._unseen = bool(record.unseen)
        self._taken: set[str] = set()

    def _note(self, event: Event, turns: dict[int, str]) -> None:
        if event.turn is not None:
            self._journals.setdefault(turns[event.turn], Journal()).note(event)

    def unseen(self, turn: str, key: str) -> bool:
        """Whether the model of that step is asked in a way that cannot be recorded, so that it is not asked again."""
        return self._unseen and (turn, key) not in self._spoken

    def said(self, turn: str, key: str) -> list[Part] | None:
        """What the model said in that step."""
        record = self._step(turn, key)
        return None if record is None else parts_of(record)

    def result(self, turn: str, key: str) -> tuple[Json] | None:
        """What the function of that step returned."""
        record = self._step(turn, key)
        return None if record is None else (record.items[0].get("output"),)

    def reply(self, turn: str, key: str, number: int, request: JsonObject) -> Reply | None:
        """What was answered to that request of that step, or to the same one in another."""
        found = self._replies.get((turn, key, number))
        return found or self._by_request.get((turn, json.dumps_sorted(request)))

    def output(self, turn: str, call_id: str, asked: tuple[str, JsonObject]) -> JsonObject | None:
        """The output of that call; of one whose id was made anew, that of the first such call that is left."""
        journal = self._journals.get(turn, Journal())
        if call_id not in journal.outputs:
            same = (other for other, call in journal.calls.items() if _asked(call) == asked)
            call_id = next((other for other in same if other not in self._taken), "")
        self._taken.add(call_id)
        return journal.outputs.get(call_id)

    def _step(self, turn: str, key: str) -> StepRecord | None:
        return self._steps.get(turn, {}).get(key)


def named(record: Journal) -> dict[str, StepRecord]:
    """The steps of a turn under names that are the same in every play."""
    return dict(zip(canonical(record.steps), record.steps.values(), strict=True))


def parts_of(record: StepRecord) -> list[Part]:
    """A model's step as the parts that it was made of."""
    parts: list[Part] = []
    for item in map(items.innermost, record.items):
        match item["type"]:
            case items.MESSAGE:
                parts.append(items.text_of(item))
            case items.REASONING:
                parts.append(Thought(items.text_of(item)))
            case items.CALL:
                parts.append(ToolCall(str(item["name"]), str(item["arguments"]), str(item["call_id"])))
        details = item.get("details")
        if isinstance(details, dict):
            parts.append(Detail(details))
    return [*parts, Usage(record.usage)] if record.usage is not None else parts


def plain_parts(parts: list[Part]) -> list[JsonObject]:
    """What was said, so that it can be compared: pieces of one text are one, and costs and signatures are left out."""
    found, pieces = list[JsonObject](), ""
    for part in parts:
        match part:
            case str() | Thought():
                kind, text = ("text", part) if isinstance(part, str) else ("thought", part.text)
                if found and kind in found[-1]:
                    found[-1][kind] = f"{found[-1][kind]}{text}"
                elif text:
                    found.append({kind: text})
            case ToolCall(name=name, arguments=arguments):
                found.append({"call": name, "arguments": arguments_of(arguments)})
                pieces = arguments if isinstance(arguments, str) else ""
            case Arguments(text=text):
                pieces += text
                found[-1]["arguments"] = arguments_of(pieces)
            case _:
                pass
    return found


def arguments_of(arguments: object) -> Json:
    """A call's arguments as a value, where they are JSON."""
    if not isinstance(arguments, str):
        value: Json = msgspec.to_builtins(arguments)
        return value
    try:
        value = msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        return arguments
    return value


def _asked(call: JsonObject) -> tuple[str, Json]:
    return str(call["name"]), arguments_of(call["arguments"])
