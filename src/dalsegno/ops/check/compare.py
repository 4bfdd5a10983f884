"""What differs between plays, and what that says. Pure: facts in, findings out.

A fact is one thing that somebody saw: the context of a model's step, a request, what was said, what a call asked. The
same name in two plays is the same thing. What is different in the fresh play, and was not in the second play in one
process, was kept by a process.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import unified_diff
from typing import Literal

import msgspec

from dalsegno.core import json
from dalsegno.core.json import Json

Kind = Literal["context", "request", "requests", "said", "says", "result", "call", "output", "end", "path"]
Verdict = Literal["process", "elsewhere", "chance"]
"""Where a difference comes from: memory of a process; something that the first play left, outside of it or in a tool
that was not run again; a clock, chance, or the world."""

Name = tuple[int, Kind, str]
"""A turn's place in the conversation, what kind of thing, and which one."""
Facts = Mapping[Name, Json]
Leaf = tuple[str | int, ...]

DIFF_LINES_MAX = 14
_PLACE = re.compile(r"@([^#@]*)\.[\w-]{10}(?=[/#])")
_MADE_IDS = re.compile(r"\b(msg|fc|fco|rs|it|call)_[0-9a-f]{9,}_[A-Za-z0-9_-]+")


class Finding(msgspec.Struct, frozen=True):
    """A difference. `at` is its first place inside the fact, `diff` the lines of a unified diff."""

    turn: int
    kind: Kind
    name: str
    verdict: Verdict
    at: str = ""
    diff: tuple[str, ...] = ()
    words: str = ""


class Path(msgspec.Struct, frozen=True):
    """The way a turn took: steps in the order of the log; of the fresh play also those on record that its last process
    never asked for, and whether it came to an end at all.
    """

    steps: tuple[str, ...]
    status: str = "completed"
    unasked: tuple[str, ...] = ()
    endless: bool = False


def canonical(keys: Iterable[str]) -> list[str]:
    """Steps as they are called in every play, by the order in which they came.

    A graph's adapter names them by place and by the task's id, which is made anew in every play.
    """
    found, count = [], Counter[str]()
    for key in keys:
        name, placed = _PLACE.subn(r"@\1", _MADE_IDS.sub(r"\1_*", key))
        if placed:
            name = name.partition("#")[0]
            count[name] += 1
            name = f"{name}#{count[name]}"
        found.append(name)
    return found


def is_placed(key: str) -> bool:
    """Whether the step belongs to a task of a graph, which goes on from its checkpoint and not from the beginning."""
    return _PLACE.search(key) is not None


def neutral(value: Json) -> Json:
    """Without the names that are made anew in every attempt."""
    match value:
        case str():
            return _MADE_IDS.sub(r"\1_*", value)
        case list():
            return [neutral(part) for part in value]
        case dict():
            return {name: neutral(part) for name, part in value.items()}
        case _:
            return value


def is_made_id(text: str) -> bool:
    """Whether this id was made here, since the model gave none."""
    return _MADE_IDS.fullmatch(text) is not None


def leaves(value: Json, at: Leaf = ()) -> Iterator[tuple[Leaf, Json]]:
    """Every place in a value and what is there; an empty list or object is a place, too."""
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from leaves(part, (*at, name))
    elif isinstance(value, list) and value:
        for index, part in enumerate(value):
            yield from leaves(part, (*at, index))
    else:
        yield at, value


def changed(one: Json, other: Json) -> dict[Leaf, Json]:
    """Where the second value is another, and what is there; None where it has nothing."""
    before, after = dict(leaves(one)), dict(leaves(other))
    places = [*before, *(at for at in after if at not in before)]
    return {
        at: after.get(at)
        for at in places
        if (at in before) != (at in after) or json.dumps_sorted(before[at]) != json.dumps_sorted(after[at])
    }


def differences(first: Facts, again: Sequence[Facts], fresh: Facts) -> list[Finding]:
    """Of all facts that the first and the fresh play have, those that differ, in order; `again` are the controls."""
    found = []
    for name, was in first.items():
        if name not in fresh or not (now := changed(was, fresh[name])):
            continue
        others = [changed(was, other[name]) for other in again if name in other]
        own = {at: value for at, value in now.items() if not any(at in other for other in others)}
        verdict: Verdict = "process"
        if not own:
            same = all(json.dumps_sorted(other.get(at)) == json.dumps_sorted(now[at]) for other in others for at in now)
            verdict = "elsewhere" if same else "chance"
        turn, kind, which = name
        at = next(iter(own or now))
        found.append(Finding(turn, kind, which, verdict, _place(at), _diff(was, fresh[name])))
    return sorted(found, key=lambda finding: finding.turn)


def detours(first: Sequence[Path], again: Sequence[Sequence[Path]], fresh: Sequence[Path]) -> list[Finding]:
    """Turns whose replay does not come past what is on record, or that went another way in another play."""
    found = []
    for place, (was, now) in enumerate(zip(first, fresh, strict=False)):
        others = [set(ways[place].steps) for ways in again]
        verdict: Verdict = "process" if all(other == set(was.steps) for other in others) else "chance"
        turn, diff = place + 1, _lines(was.steps, now.steps)
        if now.endless:
            words = f"never ended: each process came to other steps, such as {_some(now.unasked or now.steps)}"
            found.append(Finding(turn, "path", "", "chance", diff=diff, words=words))
        elif now.unasked:
            words = f"on record, and not asked for when the turn was run again: {_some(now.unasked)}"
            found.append(Finding(turn, "path", "", verdict, diff=diff, words=words))
        elif was.status == now.status and set(was.steps) != set(now.steps):
            words = f"came to other steps: {_some(sorted(set(was.steps) ^ set(now.steps)))}"
            found.append(Finding(turn, "path", "", verdict, diff=diff, words=words))
    return found


def _place(at: Leaf) -> str:
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at)
    return words.removeprefix(".")


def _diff(one: Json, other: Json) -> tuple[str, ...]:
    return _lines(_pretty(one), _pretty(other))


def _lines(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    lines = list(unified_diff(one, other, n=1, lineterm=""))[2:]
    more = (f"… {len(lines) - DIFF_LINES_MAX} more",) if len(lines) > DIFF_LINES_MAX else ()
    return (*lines[:DIFF_LINES_MAX], *more)


def _pretty(value: Json) -> list[str]:
    return msgspec.json.format(json.dumps(value), indent=2).decode().splitlines()


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
