"""The 114 customers: where their data is found, what each wants done, and at which of the shop's branches."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retail import script
from retail.script import Action
from retail.shop import books_of

ROOT = Path(__file__).resolve().parents[3]
VARIABLE = "RETAIL_DATA"
BESIDE = Path("../shared/data/retail")
FILES = ("tasks.json", "db.json")

Json = dict[str, Any]


class Task(script.Task, frozen=True):
    """What one customer wants, the calls that give it to them, and the branch where they are."""

    branch: int


def data_folder() -> Path | None:
    """Where the data is, or None. Nothing else is tried than the two places that `missing` names."""
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else ROOT / BESIDE
    return folder if all((folder / file).is_file() for file in FILES) else None


def missing() -> str:
    """Why the test cannot run here."""
    named = os.environ.get(VARIABLE)
    return (
        f"THE RETAIL ACCEPTANCE TEST DID NOT RUN: no {' and '.join(FILES)} in "
        f"{f'{VARIABLE}={named}' if named else f'{BESIDE} (beside the repository), and {VARIABLE} is not set'}. "
        f"Put the retail data into {BESIDE} or name its folder in {VARIABLE}."
    )


def tasks_of(folder: Path) -> list[Task]:
    """All tasks, each at a branch: two tasks that touch the same customer are never at the same one."""
    books, tasks = books_of(folder), list[Task]()
    busy: dict[int, set[str]] = defaultdict(set)
    for task in script.tasks_of(folder).values():
        users = set(users_of(task.actions, books))
        branch = next(number for number in range(len(tasks) + 1) if not users & busy[number])
        busy[branch] |= users
        tasks.append(Task(task.id, task.wish, task.actions, branch))
    return tasks


def users_of(actions: tuple[Action, ...], books: Json) -> Iterator[str]:
    """Every customer whose books these calls read or change."""
    for action in actions:
        if "user_id" in action.arguments:
            yield action.arguments["user_id"]
        elif action.arguments.get("order_id") in books["orders"]:
            yield books["orders"][action.arguments["order_id"]]["user_id"]
