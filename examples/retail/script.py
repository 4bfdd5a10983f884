"""What the scripted model says: it plays the tasks in `data/tasks.json` and looks at nothing but the conversation.

    python -m dalsegno.testing.model retail.script:answer

A customer who begins with `Task 0: …` is served with the calls that solve this task; before each one that changes the
shop's books the model asks, and waits for a `yes`. It remembers nothing, so any replica may ask it at any time.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec

from dalsegno import ToolCall
from dalsegno.testing.model.answer import Answer, Pace
from dalsegno.testing.model.shown import Message, Shown
from retail.rules import WRITES, Json

DATA = Path(os.environ.get("RETAIL_DATA") or Path(__file__).parent / "data")
YES = "yes"
QUESTION = "Shall I do that? (yes/no)"
PACE = timedelta(milliseconds=10)
TALKATIVE = 3
"""Every third call comes with a sentence before it."""


class Action(msgspec.Struct, frozen=True):
    """One tool call that a task is solved with."""

    name: str
    arguments: Json

    @property
    def writes(self) -> bool:
        """Whether it changes the shop."""
        return self.name in WRITES


class Task(msgspec.Struct, frozen=True):
    """What one customer wants, and the calls that give it to them, in order."""

    id: str
    wish: str
    actions: tuple[Action, ...]


class Line(msgspec.Struct, frozen=True):
    """What the model says, and what it asks for with it; `action` None = it is the customer's turn."""

    text: str
    action: Action | None = None


def tasks_of(folder: Path) -> dict[str, Task]:
    """All tasks of the folder's `tasks.json`, by their ids."""
    return {
        raw["id"]: Task(
            raw["id"],
            raw["user_scenario"]["instructions"]["reason_for_call"],
            tuple(Action(each["name"], each["arguments"]) for each in raw["evaluation_criteria"]["actions"]),
        )
        for raw in json.loads((folder / "tasks.json").read_bytes())
    }


def opening(task: Task) -> str:
    """How a customer begins."""
    return f"Task {task.id}: {task.wish}"


def task_of(text: str) -> str:
    """Which task a conversation is about that begins with this text; "" = none."""
    found = re.match(r"Task (\S+):", text)
    return "" if found is None else found[1]


def next_line(messages: Sequence[Message], tasks: Mapping[str, Task]) -> Line:
    """What comes next in this conversation."""
    task = tasks.get(task_of(messages[0].text))
    if task is None:
        begin = ", ".join(f"`Task {name}: …`" for name in tasks)
        return Line(f"I am a script and no model. I know what to do when a conversation begins with one of {begin}.")
    done = sum(len(message.calls) for message in messages)
    if done == len(task.actions):
        return Line(f"That is all for task {task.id}: {done} steps. Thank you for your patience – goodbye! 👋")
    action = task.actions[done]
    if action.writes and not (messages[-1].role == "user" and messages[-1].text == YES):
        details = ", ".join(f"{name} = {value}" for name, value in action.arguments.items())
        return Line(f"I am about to call {action.name} with {details}. {QUESTION}")
    if done % TALKATIVE == 0:
        return Line(f"One moment, please – I am on step {done + 1} of {len(task.actions)} …", action)
    return Line("", action)


def answer(shown: Shown) -> Answer:
    """The same for the scripted model server: two words every few milliseconds."""
    line = next_line(shown.messages, TASKS)
    said = [line.text] if line.text else []
    asked = [ToolCall(line.action.name, line.action.arguments)] if line.action else []
    return Answer((*said, *asked), pace=Pace(2, PACE))


TASKS = tasks_of(DATA)
