"""The verdict of a check: what is wrong, what is only worth knowing, and how much was compared. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from dalsegno.ops.check.compare import Facts, Finding, Path, detours, differences
from dalsegno.ops.check.conduct import Plays
from dalsegno.ops.check.facts import Played, end, facts, path
from dalsegno.ops.check.talk import OUTSIDE, Kept, Left, Sent, Shown, Trace, Unseen

ORDER = ("path", "end", "request", "requests", "context", "says", "said", "result", "output", "call")
"""The nearer to the cause, the earlier."""
RUNNING = ("task", "thread")
LIBRARY = "library"
"""Objects of libraries remember for good reasons: they are named only where something differed."""


class Trouble(msgspec.Struct, frozen=True):
    """Something that another replica would do differently. `also`: what else differed in that turn."""

    turn: int
    kind: str
    name: str
    cause: str
    words: str = ""
    at: str = ""
    diff: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


class Held(msgspec.Struct, frozen=True):
    """Something that the process kept from one turn to the next."""

    kind: str
    name: str
    before: str
    after: str
    turns: tuple[int, ...]
    where: str = ""
    read: tuple[int, ...] = ()


class Compared(msgspec.Struct, frozen=True):
    """How much was compared between the first play and the third."""

    turns: int
    contexts: int
    outputs: int
    calls: int
    requests: int
    processes: int


class Report(msgspec.Struct, frozen=True):
    """All of it."""

    clean: bool
    compared: Compared
    troubles: tuple[Trouble, ...]
    held: tuple[Held, ...]
    notes: tuple[str, ...]


def report(plays: Plays) -> Report:
    """What the plays add up to."""
    again = [facts("again", played) for played in plays.again]
    first, fresh = facts("first", plays.first), facts("fresh", plays.fresh)
    detoured = detours(_ways(plays.first), [_ways(played) for played in plays.again], _ways(plays.fresh))
    held = _held(plays)
    found = [_explained(finding, held) for finding in (*detoured, *differences(first, again, fresh))]
    wrong = [finding for finding in found if _is_wrong(finding, held)]
    compared = _compared(first, fresh, plays)
    kept = tuple(one for one in held if one.kind not in RUNNING and (wrong or one.kind != LIBRARY))
    troubles = [*_grouped(wrong), *_left(plays)]
    if not wrong:
        troubles += _blind(plays, kept)
    troubles += [] if troubles else _nothing(plays, compared)
    notes = _notes(plays, [one for one in found if one not in wrong and not _is_recorded(one)])
    if not any(one.kind not in RUNNING for one in troubles):
        notes = [*(_harmless(one, plays) for one in kept), *notes]
    return Report(not troubles, compared, tuple(sorted(troubles, key=lambda one: one.turn)), kept, tuple(notes))


def _ways(played: Sequence[Played]) -> list[Path]:
    return [path(turn) for turn in played]


def _explained(finding: Finding, held: Sequence[Held]) -> Finding:
    """A path, or what a step found in the world, that nothing in the process can have decided was decided by chance."""
    kept = any(min(one.turns) <= finding.turn for one in held)
    if finding.kind in ("path", "result", "output") and finding.verdict == "process" and not kept:
        return msgspec.structs.replace(finding, verdict="chance")
    return finding


def _is_wrong(finding: Finding, held: Sequence[Held]) -> bool:
    """A path or an end always is; a value if a process made the difference, or may have."""
    if finding.kind in ("path", "end") or finding.verdict == "process":
        return True
    known = (one for one in held if one.kind != LIBRARY)
    return finding.verdict == "elsewhere" and any(min(one.turns) <= finding.turn for one in known)


def _is_recorded(finding: Finding) -> bool:
    """What steps and tools find in the world may differ: that is why it is recorded."""
    return finding.kind in ("result", "output") and finding.verdict == "chance"


def _grouped(wrong: Sequence[Finding]) -> Iterable[Trouble]:
    """One trouble a turn: the finding nearest to the cause, and the names of the others."""
    for turn in sorted({finding.turn for finding in wrong}):
        mine = sorted((one for one in wrong if one.turn == turn), key=lambda one: ORDER.index(one.kind))
        one, *others = mine
        also = tuple(f"{other.kind} {other.name}".strip() for other in others)
        yield Trouble(turn, one.kind, one.name, one.verdict, one.words, one.at, one.diff, also)


def _held(plays: Plays) -> list[Held]:
    """What each turn of the first play left, one line a thing."""
    found: dict[tuple[str, str], Held] = {}
    for place, turn in enumerate(plays.first, 1):
        for trace in _traces(turn):
            name = _near(trace.name, plays.folders)
            one = Held(trace.kind, name, trace.before, trace.after, (place,), _near(trace.where, plays.folders))
            if trace.read_later:
                one = msgspec.structs.replace(one, read=(place,))
            known = found.get((one.kind, one.name))
            found[one.kind, one.name] = one if known is None else _joined(known, one)
    return list(found.values())


def _traces(turn: Played) -> list[Trace]:
    return [trace for note in turn.notes if isinstance(note, Left) for trace in note.traces if not trace.effect]


def _joined(one: Held, later: Held) -> Held:
    turns = one.turns if later.read or later.turns[0] in one.turns else (*one.turns, *later.turns)
    return msgspec.structs.replace(one, after=later.after, turns=turns, read=(*one.read, *later.read))


def _near(name: str, folders: Sequence[str]) -> str:
    for folder in folders:
        name = name.replace(f"{folder}/", "")
    return name


def _left(plays: Plays) -> Iterable[Trouble]:
    for place, turn in enumerate(plays.first, 1):
        for trace in _traces(turn):
            if trace.kind in RUNNING:
                yield Trouble(place, trace.kind, trace.name, "process", _near(trace.where, plays.folders))


def _nothing(plays: Plays, compared: Compared) -> Iterable[Trouble]:
    """A check that compared nothing has found nothing out."""
    ends = [end(turn) for turn in plays.first]
    failed = [one for one in ends if one["status"] == "failed"]
    if ends and len(failed) == len(ends):
        words = f"every turn failed in the first play: {failed[0]['code']}: {failed[0]['message']}"
        yield Trouble(1, "nothing", "", "elsewhere", words)
    elif not compared.contexts and not compared.outputs:
        yield Trouble(1, "nothing", "", "elsewhere", "the agent asked no model and said nothing")


def _compared(first: Facts, fresh: Facts, plays: Plays) -> Compared:
    kinds = Counter(kind for turn, kind, name in first if (turn, kind, name) in fresh)
    outputs = kinds["said"] + kinds["says"] + kinds["result"] + kinds["output"]
    return Compared(len(plays.fresh), kinds["context"], outputs, kinds["call"], kinds["request"], plays.processes)


def _harmless(one: Held, plays: Plays) -> str:
    """What changed, and made no difference that anybody saw."""
    change = f" ({one.before} → {one.after})" if one.after else ""
    verb = "was written" if one.kind == "file" else "changed"
    but = "but nothing that the model or a client saw depended on it"
    doubt = ", as far as can be told without running all tools again" if _kept(plays) else ""
    return f"{one.name} {verb}{change} in {_turns(one.turns)}, {but}{doubt}"


def _blind(plays: Plays, held: Sequence[Held]) -> Iterable[Trouble]:
    """Something changed, and what the model was sent cannot be seen: nobody can say that it does not matter."""
    names = [one.name for one in held if one.kind != "cache"]
    steps = _unseen(plays)
    if names and steps:
        turn = min(min(one.turns) for one in held)
        yield Trouble(turn, "unseen", ", ".join(steps), "process", f"changed meanwhile: {', '.join(names)}")


def _unseen(plays: Plays) -> list[str]:
    return sorted({note.key for turn in plays.first for note in turn.notes if isinstance(note, Unseen)})


def _kept(plays: Plays) -> list[str]:
    notes = (
        note for turn in (*(turn for played in plays.again for turn in played), *plays.fresh) for note in turn.notes
    )
    return sorted({note.name for note in notes if isinstance(note, Kept)})


def _notes(plays: Plays, found: Sequence[Finding]) -> list[str]:
    notes = []
    for kind in dict.fromkeys(finding.kind for finding in found):
        places = [f"{one.name} in turn {one.turn}".strip() for one in found if one.kind == kind]
        names = ", ".join(places[:4]) + (" …" if len(places) > 4 else "")
        notes.append(f"{WORDS[kind]} differed by itself, as a clock, chance or the world does: {names}")
    failed = [(place, end(turn)) for place, turn in enumerate(plays.first, 1) if end(turn)["status"] == "failed"]
    notes += [f"turn {place} failed in the first play: {one['code']}: {one['message']}" for place, one in failed]
    seen = [note for turn in (*plays.first, *plays.fresh) for note in turn.notes]
    if kept := _kept(plays):
        notes.append(f"not run again, since effects are not done twice: {', '.join(kept)} (--effects run runs them)")
    if unseen := _unseen(plays):
        notes.append(
            f"{', '.join(unseen)}: asked in a way that cannot be recorded (neither httpx nor httpx2), so what was sent "
            "is not compared, and the function was not run again"
        )
    if any(isinstance(note, Sent) and note.key == OUTSIDE for turn in plays.first for note in turn.notes):
        notes.append("HTTP requests are made outside of any step: they are repeated whenever a turn goes on elsewhere")
    if any(heard.by_itself for heard in plays.inputs):
        notes.append("nobody decided what the agent asked a human for, so it was refused: say it in a --script")
    if plays.shared:
        names = ", ".join(str(path) for path in plays.shared[:4])
        notes.append(f"the working folder is large: {names} and the like were shared between the processes, not copied")
    if not any(isinstance(note, Shown) for note in seen):
        notes.append("no model was asked")
    return notes


WORDS: dict[str, str] = {
    "context": "the context of a model",
    "request": "a request",
    "requests": "the number of requests",
    "said": "what a model said",
    "says": "what the agent said",
    "result": "the result of a step",
    "output": "the output of a tool",
    "call": "a call",
    "end": "the end of a turn",
    "path": "the steps of a turn",
}


def _turns(turns: Sequence[int]) -> str:
    return f"turn {turns[0]}" if len(turns) == 1 else f"turns {', '.join(map(str, turns))}"
