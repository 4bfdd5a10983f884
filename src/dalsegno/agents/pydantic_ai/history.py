"""From our items to the messages that Pydantic AI gives its models: a pure function of the context (law 13).

An answer that this adapter recorded says in the `details` of its last item what its parts were and what it was an
answer to, as far as items cannot say it; so what is composed here is what the framework had. What others recorded, or a
client brought, is put into the nearest shape. JSON in, JSON out: `messages` alone makes objects of the framework.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter

from dalsegno.agents.pydantic_ai.content import EPOCH, user_part
from dalsegno.core import item as items
from dalsegno.core import json
from dalsegno.core.effect import DENIED
from dalsegno.core.json import Json, JsonObject

NOTE = "pydantic_ai"
"""Under which name our notes stand in an item's `details`."""

KINDS = {"text": items.MESSAGE, "thinking": items.REASONING, "tool-call": items.CALL}
"""Which parts of an answer are items, and which items."""


class Request(msgspec.Struct):
    """What was said before an answer: `parts` as the model was shown them; `natural` as the items alone tell it, of
    which `ids` are the messages.
    """

    natural: list[JsonObject]
    parts: list[JsonObject]
    ids: tuple[str, ...] = ()


class Response(msgspec.Struct):
    """An answer: its parts, what else is known of it, and the ids of its items."""

    parts: list[JsonObject]
    rest: JsonObject
    ids: tuple[str, ...]


Entry = Request | Response


def note_of(item: JsonObject) -> JsonObject:
    """What this adapter keeps with an item."""
    details = item.get("details")
    note: Json = details.get(NOTE) if isinstance(details, dict) else None
    return note if isinstance(note, dict) else {}


def generated(item: JsonObject) -> bool:
    """Whether a model said it."""
    kind = item.get("type", items.MESSAGE)
    return kind in (items.CALL, items.REASONING) or (kind == items.MESSAGE and item.get("role") == "assistant")


def compose(context: Iterable[JsonObject]) -> list[Entry]:
    """The conversation as requests and answers, in turns; the first and the last may be either."""
    found = list(context)
    groups = _groups(found)
    made = _Composer()
    for place, item in enumerate(found):
        if place in groups:
            made.answer([found[member] for member in groups[place]])
        elif item.get("type") == items.OUTPUT:
            made.output(item)
        elif item.get("type", items.MESSAGE) == items.MESSAGE and not generated(item):
            made.hear(item)
    return made.finish()


def messages(entries: Sequence[Entry]) -> list[ModelMessage]:
    """As objects of the framework."""
    encoded: list[JsonObject] = []
    for entry in entries:
        if isinstance(entry, Request):
            encoded.append({"kind": "request", "parts": [*entry.parts]})
        else:
            encoded.append({"kind": "response", "parts": [*entry.parts], "timestamp": EPOCH, **entry.rest})
    return ModelMessagesTypeAdapter.validate_json(msgspec.json.encode(encoded))


def response_of(answer: Sequence[JsonObject]) -> Response:
    """The answer that these items are, in the order in which they were said."""
    note = note_of(answer[-1]) if answer else {}
    spoken = [item for item in answer if generated(item)]
    ids = tuple(str(item["id"]) for item in spoken)
    listed, rest = note.get("parts"), note.get("response")
    if not isinstance(listed, list):
        return Response([part for item in spoken if (part := _foreign(item)) is not None], {}, ids)
    waiting = {kind: [item for item in spoken if item["type"] == kind] for kind in KINDS.values()}
    parts: list[JsonObject] = []
    for entry in listed:
        assert isinstance(entry, dict)
        if not entry.get("item"):
            parts.append(entry)
            continue
        own = {name: value for name, value in entry.items() if name != "item"}
        queue = waiting[KINDS[str(entry["part_kind"])]]
        said = queue.pop(0) if queue else None
        if said is not None and not entry.get("void"):
            parts.append(_part(said) | own)
    return Response(parts, rest if isinstance(rest, dict) else {}, ids)


def dynamic_prompts(entries: Sequence[Entry]) -> list[JsonObject]:
    """System prompts that the framework makes anew for each run."""
    requests = [entry for entry in entries if isinstance(entry, Request)]
    return [part for entry in requests for part in entry.parts if part.get("dynamic_ref") is not None]


def returned(item: JsonObject, name: str) -> tuple[JsonObject, Json]:
    """The output of a call as the part that answers it, and what the tool showed the model besides."""
    note, text = note_of(item), _said(item)
    outcome = note.get("outcome")
    if outcome is None:
        completed = item.get("status", "completed") == "completed"
        outcome = "success" if completed else "denied" if text.startswith(DENIED) else "failed"
    part: JsonObject = {
        "part_kind": "tool-return",
        "tool_name": name,
        "tool_call_id": str(item.get("call_id")),
        "content": content_of(item),
        "outcome": "failed" if outcome == "raised" else outcome,
        "timestamp": EPOCH,
    }
    return part, note.get("user")


def content_of(item: JsonObject) -> Json:
    """What a tool returned, as JSON."""
    note, text = note_of(item), _said(item)
    if "content" in note:
        return note["content"]
    if not note.get("json"):
        return text
    try:
        found: Json = msgspec.json.decode(text)
    except msgspec.DecodeError:  # a text that was cut short is shown as it is
        return text
    return found


class _Composer:
    """Requests and answers as they are found."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._heard: list[JsonObject] = []
        self._ids: list[str] = []
        self._outputs: list[tuple[int, JsonObject, Json]] = []
        self._calls: dict[str, tuple[int, str]] = {}
        self._system: list[JsonObject] = []
        self._refreshed: JsonObject = {}
        self._said = False

    def hear(self, item: JsonObject) -> None:
        self._heard.append(user_part(item))
        self._ids.append(str(item.get("id")))

    def output(self, item: JsonObject) -> None:
        place, name = self._calls.get(str(item.get("call_id")), (len(self._calls), "unknown"))
        part, user = returned(item, name)
        self._outputs.append((place, part, user))
        self._said = self._said or note_of(item).get("said") is True

    def answer(self, answer: list[JsonObject]) -> None:
        note = note_of(answer[-1])
        result, self._said = self._said and "parts" not in note, False
        if result:
            return  # the result of a structured run, said to the user: models know it from their call
        self._flush(note.get("request"))
        system, refreshed = note.get("system"), note.get("refreshed")
        if isinstance(system, list):
            self._system += [part for part in system if isinstance(part, dict)]
        if isinstance(refreshed, dict):
            self._refreshed |= refreshed
        made = response_of(answer)
        if not made.parts and "parts" not in note:
            return
        for part in made.parts:
            if part["part_kind"] == "tool-call":
                self._calls[str(part["tool_call_id"])] = (len(self._calls), str(part["tool_name"]))
        self.entries.append(made)

    def finish(self) -> list[Entry]:
        self._flush(None)
        if self._system:
            if not self.entries or isinstance(self.entries[0], Response):
                self.entries.insert(0, Request([], []))
            first = self.entries[0]
            assert isinstance(first, Request)
            first.parts = [*self._system, *first.parts]
        for part in dynamic_prompts(self.entries):
            part["content"] = self._refreshed.get(str(part["dynamic_ref"]), part["content"])
        return self.entries

    def _flush(self, sent: Json) -> None:
        self._outputs.sort(key=lambda output: output[0])
        natural = [part for _, part, _ in self._outputs]
        natural += [
            {"part_kind": "user-prompt", "content": user, "timestamp": EPOCH}
            for _, _, user in self._outputs
            if user is not None
        ]
        natural += self._heard
        ids = tuple(self._ids)
        self._outputs, self._heard, self._ids = [], [], []
        parts = natural
        if isinstance(sent, list):
            parts = [
                natural[part] if isinstance(part, int) else {"timestamp": EPOCH, **part}
                for part in sent
                if isinstance(part, dict) or (isinstance(part, int) and part < len(natural))
            ]
        if parts:
            self.entries.append(Request(natural, parts, ids))


def _groups(found: Sequence[JsonObject]) -> Mapping[int, list[int]]:
    """Which items are one answer, under the place of the first of them.

    What an answer said behind its calls stands behind their results, so it is found from its last item backwards.
    """
    groups: dict[int, list[int]] = {}
    taken: set[int] = set()
    for place, item in enumerate(found):
        listed = note_of(item).get("parts")
        if not isinstance(listed, list):
            continue
        members: list[int] = []
        wanted = sum(1 for part in listed if isinstance(part, dict) and part.get("item"))
        for before in range(place, -1, -1):
            if len(members) == wanted:
                break
            if generated(found[before]) and before not in taken:
                members.insert(0, before)
        if members:
            taken.update(members)
            groups[members[0]] = members
    run: list[int] = []
    for place, item in enumerate(found):
        if not generated(item) or place in taken:
            run = []
            continue
        if not run:
            groups[place] = run
        run.append(place)
    return groups


def _foreign(item: JsonObject) -> JsonObject | None:
    """A part of an answer that somebody else recorded; their reasoning means nothing to another provider."""
    return None if item["type"] == items.REASONING else _part(item)


def _part(item: JsonObject) -> JsonObject:
    text = items.text_of(item)
    if item.get("type") == items.CALL:
        call_id, name = str(item.get("call_id")), str(item.get("name"))
        return {"part_kind": "tool-call", "tool_name": name, "args": text, "tool_call_id": call_id}
    return {"part_kind": "thinking" if item.get("type") == items.REASONING else "text", "content": text}


def _said(item: JsonObject) -> str:
    """The text of an output, of whatever shape a client may have brought it in."""
    output = item.get("output")
    return output if isinstance(output, str) else json.dumps(output).decode()
