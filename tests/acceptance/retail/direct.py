"""The yardstick: the same actions applied to a fresh copy of the shop directly, each once, by nobody but this loop."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from dalsegno.core.json import dumps
from retail.rules import Json, Refused, act
from retail.script import Action
from retail.shop import books_of
from tests.acceptance.retail.tasks import Task


class Answer(msgspec.Struct, frozen=True):
    """What a call came to, as a model is shown it; `accepted` = the shop did not refuse."""

    text: str
    accepted: bool


def apply_directly(tasks: Iterable[Task], folder: Path) -> tuple[list[Json], dict[str, list[Answer]]]:
    """The branches' books when all is done, and what each task's calls came to."""
    tasks = list(tasks)
    branches = [books_of(folder) for _ in range(1 + max(task.branch for task in tasks))]
    return branches, {task.id: [_apply(branches[task.branch], action) for action in task.actions] for task in tasks}


def _apply(books: Json, action: Action) -> Answer:
    try:
        done = act(books, action.name, action.arguments)
    except Refused as refusal:
        return Answer(f"Refused: {refusal}", accepted=False)
    return Answer(done if isinstance(done, str) else dumps(done).decode(), accepted=True)


def first_difference(one: Any, other: Any, where: str = "shop") -> str | None:
    """Where two JSON values differ first, and how; None = they are equal in every type and value."""
    if type(one) is not type(other):
        return f"{where}: {one!r} and {other!r} are of different types"
    if isinstance(one, dict):
        for name in sorted({*one, *other}):
            if name not in one or name not in other:
                return f"{where}.{name}: only on the {'right' if name in other else 'left'}"
            if found := first_difference(one[name], other[name], f"{where}.{name}"):
                return found
        return None
    if isinstance(one, list):
        for place, (left, right) in enumerate(zip(one, other, strict=False)):
            if found := first_difference(left, right, f"{where}[{place}]"):
                return found
        return None if len(one) == len(other) else f"{where}: {len(one)} and {len(other)} entries"
    return None if one == other else f"{where}: {one!r} and {other!r}"
