"""The scripted model: what it says next is a function of the conversation that it is shown, and of nothing else."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tests.acceptance.retail.tasks import Action, Task

Json = dict[str, Any]

YES = "yes"
QUESTION = "Shall I do that? (yes/no)"
TALKATIVE = 3
"""Every third call comes with a sentence before it."""


class Line(msgspec.Struct, frozen=True):
    """What the model says, and what it asks for with it; `action` None = it is the customer's turn."""

    text: str
    action: Action | None = None


class NotATranscript(Exception):
    """No provider would accept this conversation."""


def opening(task: Task) -> str:
    """How a customer begins."""
    return f"Task {task.id}: {task.wish}"


def task_of(items: Sequence[Json]) -> str:
    """Which task the conversation is about, by its first message."""
    found = re.match(r"Task (\S+):", said(items[0]))
    if found is None:
        raise NotATranscript(f"the conversation begins with {said(items[0])!r}")
    return found[1]


def next_line(items: Sequence[Json], tasks: Mapping[str, Task]) -> Line:
    """What comes next in this conversation."""
    check(items)
    task = tasks[task_of(items)]
    done = sum(item["type"] == "function_call" for item in items)
    if done == len(task.actions):
        return Line(f"That is all for task {task.id}: {done} steps. Thank you for your patience – goodbye! 👋")
    action = task.actions[done]
    if action.writes and not (_by_user(items[-1]) and said(items[-1]) == YES):
        details = ", ".join(f"{name} = {value}" for name, value in action.arguments.items())
        return Line(f"I am about to call {action.name} with {details}. {QUESTION}")
    if done % TALKATIVE == 0:
        return Line(f"One moment, please – I am on step {done + 1} of {len(task.actions)} …", action)
    return Line("", action)


def check(items: Sequence[Json]) -> None:
    """Raises `NotATranscript` unless every call is followed by its one result before anybody speaks again, nothing is
    answered that was not asked, ids are unique, and it is the model's turn to speak.
    """
    open_calls: set[str] = set()
    calls: set[str] = set()
    for item in items:
        match item["type"]:
            case "function_call":
                if item["call_id"] in calls:
                    raise NotATranscript(f"two calls named {item['call_id']}")
                calls.add(item["call_id"])
                open_calls.add(item["call_id"])
            case "function_call_output":
                if item["call_id"] not in open_calls:
                    raise NotATranscript(f"{item['call_id']} was answered and not asked, or answered twice")
                open_calls.remove(item["call_id"])
            case "message" if open_calls:
                raise NotATranscript(f"somebody speaks before {open_calls} are answered")
            case "message":
                pass
            case other:
                raise NotATranscript(f"an item of type {other}")
    if open_calls or not items or not _by_user(items[0]):
        raise NotATranscript(f"{len(items)} items, calls {open_calls} without a result")
    if len({item["id"] for item in items}) != len(items):
        raise NotATranscript("two items have one id")
    if items[-1]["type"] == "message" and not _by_user(items[-1]) and items[-1].get("status") == "completed":
        raise NotATranscript("the model has just spoken")


def said(item: Json) -> str:
    """The text of a message."""
    return "".join(part["text"] for part in item["content"])


def _by_user(item: Json) -> bool:
    return item["type"] == "message" and item["role"] == "user"


