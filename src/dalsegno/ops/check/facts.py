"""What a play came to, as facts: from its logs and from what its processes noted. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from dalsegno.core import codec
from dalsegno.core import item as items
from dalsegno.core.event import Event, TurnCancelled, TurnCompleted, TurnFailed, TurnWaiting
from dalsegno.core.json import Json, JsonObject
from dalsegno.core.step import Journal, journal
from dalsegno.ops.check.answers import arguments_of, named, parts_of, plain_parts
from dalsegno.ops.check.compare import Facts, Kind, Name, Path, canonical, is_made_id, is_placed, neutral
from dalsegno.ops.check.talk import OUTSIDE, AnyNote, Asked, Play, Ran, Said, Sent, Shown


class Played(msgspec.Struct):
    """One turn of a play: its events, and what the processes that played it noted, each for itself."""

    turn: str
    first: int
    events: Sequence[Event]
    processes: list[list[AnyNote]]
    endless: bool = False

    @property
    def notes(self) -> list[AnyNote]:
        """What all of them noted."""
        return [note for notes in self.processes for note in notes]

    @property
    def journal(self) -> Journal:
        """What is on record."""
        return journal(self.events, self.first)


def facts(play: Play, turns: Iterable[Played]) -> Facts:
    """All that was seen, by name."""
    found: dict[Name, Json] = {}
    for place, turn in enumerate(turns, 1):
        for kind, which, value in _of(play, turn):
            found.setdefault((place, kind, which), neutral(value))
    return found


def path(turn: Played) -> Path:
    """The way that the turn took."""
    keys = list(turn.journal.steps)
    steps = tuple(canonical(keys))
    last = turn.processes[-1] if turn.processes else []
    asked = {note.key for note in last if isinstance(note, Asked)}
    status = str(end(turn)["status"])
    whole = status in ("completed", "waiting")
    missed = (name for key, name in zip(keys, steps, strict=True) if name not in asked and not is_placed(key))
    unasked = tuple(missed) if whole or turn.endless else ()
    return Path(steps, status, unasked, turn.endless)


def end(turn: Played) -> JsonObject:
    """How the turn stands: completed, failed with an error, cancelled, waiting; or open."""
    for event in reversed(turn.events):
        data = codec.decode(event)
        match data:
            case TurnCompleted():
                return {"status": "completed"}
            case TurnFailed(error=error):
                return {"status": "failed", "code": error.code, "message": error.message}
            case TurnCancelled():
                return {"status": "cancelled"}
            case TurnWaiting():
                return {"status": "waiting"}
            case _:
                pass
    return {"status": "open"}


def _of(play: Play, turn: Played) -> Iterator[tuple[Kind, str, Json]]:
    record = turn.journal
    labels = _labels(record)
    for note in turn.notes:
        yield from _noted(note, labels)
    yield from _counts(turn)
    if play == "first":
        yield from _recorded(turn, record, labels)
    for key, step in named(record).items():
        if key not in _models(turn) and items.innermost(step.items[0])["type"] not in (items.STEP, items.CALL):
            yield "says", key, [_bare(item) for item in step.items]
    for call_id, call in record.calls.items():
        yield "call", labels[call_id], _call(record, call_id, call)
    yield "end", "", end(turn)


def _noted(note: AnyNote, labels: dict[str, str]) -> Iterator[tuple[Kind, str, Json]]:
    match note:
        case Shown(key=key, items=shown):
            yield "context", key, list(shown)
        case Sent(key=key, number=number, request=request):
            yield "request", f"{key} request {number}", request
        case Said(key=key, parts=parts):
            yield "said", key, list(parts)
        case Ran(what="step", key=key, result=result):
            yield "result", key, result
        case Ran(key=key, result=result):
            yield "output", labels.get(key, key), result
        case _:
            pass


def _recorded(turn: Played, record: Journal, labels: dict[str, str]) -> Iterator[tuple[Kind, str, Json]]:
    """What everything came to when it was done, which the other plays do again."""
    for key, step in named(record).items():
        if key in _models(turn):
            yield "said", key, list(plain_parts(parts_of(step)))
        elif (item := items.innermost(step.items[0]))["type"] == items.STEP:
            yield "result", key, item.get("output")
    for call_id, output in record.outputs.items():
        yield "output", labels.get(call_id, call_id), output.get("output")


def _models(turn: Played) -> set[str]:
    return {note.key for note in turn.notes if isinstance(note, Shown)}


def _counts(turn: Played) -> Iterator[tuple[Kind, str, Json]]:
    """How many requests each step made, in the process that made most."""
    most: Counter[str] = Counter()
    for notes in turn.processes:
        most |= Counter(note.key for note in notes if isinstance(note, Sent) and note.key != OUTSIDE)
    for key, count in most.items():
        yield "requests", key, count


def _labels(record: Journal) -> dict[str, str]:
    """Calls by what they are: the n-th of that tool in the turn."""
    labels: dict[str, str] = {}
    count: Counter[str] = Counter()
    for call_id, call in record.calls.items():
        name = str(call["name"])
        count[name] += 1
        labels[call_id] = f"{name} #{count[name]}"
    return labels


def _call(record: Journal, call_id: str, call: JsonObject) -> JsonObject:
    found: JsonObject = {"name": call["name"], "arguments": arguments_of(call["arguments"])}
    if call_id in record.intents:
        intent = record.intents[call_id][1]
        found["effect"] = intent.effect
        if not is_made_id(call_id):
            found["key"] = intent.key
    return found


def _bare(item: JsonObject) -> JsonObject:
    return {name: value for name, value in item.items() if name not in ("id", "status")}
