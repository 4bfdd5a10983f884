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
    asked: set[str] = set()
    unanswered: set[str] = set()
    for item in items:
        match item["type"], item.get("call_id"):
            case "function_call", str(call) if call not in asked:
                asked.add(call)
                unanswered.add(call)
            case "function_call_output", str(call) if call in unanswered:
                unanswered.remove(call)
            case "message", None if not unanswered:
                pass
            case misplaced:
                raise NotATranscript(f"{misplaced} cannot follow {sorted(asked)}, of which {sorted(unanswered)} wait")
    if unanswered or not items or not _by_user(items[0]):
        raise NotATranscript(f"{len(items)} items, calls {unanswered} without a result")
    if len({item["id"] for item in items}) != len(items):
        raise NotATranscript("two items have one id")
    if items[-1].get("role") == "assistant" and items[-1].get("status") == "completed":
        raise NotATranscript("the model has just spoken")


def said(item: Json) -> str:
    """The text of a message."""
    return "".join(part["text"] for part in item["content"])


def _by_user(item: Json) -> bool:
    return item["type"] == "message" and item["role"] == "user"
