"""What the people of a world ask for, and the scripted model that does it: a pure function of the context it is shown.

A message's text is a script: groups of tool calls, one group after another, then a closing text. The model looks at the
context for the first group that it has not called yet. So a context that lost something has it done twice, and one that
shows too much has it skipped; the effects tell.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from dalsegno.core.item import CALL, text_of
from dalsegno.core.json import JsonObject
from dalsegno.core.part import Part, Thought, ToolCall, Usage

WORDS = ("al", " segno", " 𝄋", " fine", " coda", " da", " capo", " – ", "é", ".")
COMMON = (
    "keyed",
    "tx",
    "read",
    "once",
    "probed",
    "asked",
    "keyed",
    "once",
    "gated",
    "outside",
    "twice",
    "ever",
    "slow",
    "paid",
    "spent",
    "booked",
    "vetted",
)
RARE = ("raises", "hasty", "large", "nobody")
BEFORE = ("", "", "", "say", "step", "emit", "call", "ask", "raise", "summarize", "muse", "discuss")
VOICES = ("muse", "hope", "fear")
"""Models that are asked beside the one that does what the script says: the first alone, or all side by side."""


class Script(msgspec.Struct, frozen=True):
    """`groups` of calls by tool name; `before` is what the agent itself does first, `after` what it does in the end;
    `words` is how much is said.
    """

    id: str
    groups: tuple[tuple[str, ...], ...]
    before: str = ""
    words: int = 6
    after: Literal["", "raise"] = ""

    @property
    def text(self) -> str:
        return msgspec.json.encode(self).decode()


def draw(chance: random.Random, name: str) -> Script:
    """A script of a message."""
    groups = []
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2))):
        size = chance.choice((1, 1, 1, 2, 3))
        groups.append(tuple(chance.choice(RARE if chance.random() < 0.06 else COMMON) for _ in range(size)))
    before = chance.choice(BEFORE) if chance.random() < 0.5 else ""
    return Script(name, tuple(groups), before, chance.randint(1, 8), "raise" if chance.random() < 0.12 else "")


def read_script(text: str) -> Script | None:
    """The script of a message; None if it is none."""
    try:
        return msgspec.json.decode(text, type=Script)
    except msgspec.MsgspecError:
        return None


def call_id(script: Script, group: int, place: int) -> str:
    """The id that the model gives a call, or "" where it leaves that to the runtime."""
    return "" if (group + place + len(script.id)) % 3 == 0 else f"call_{script.id}_{group}_{place}"


def arguments(script: Script, group: int, place: int) -> JsonObject:
    """What a call says; the tools that share results are always asked the same."""
    name = script.groups[group][place]
    if name in ("twice", "ever"):
        return {"amount": 1}
    return {"script": script.id, "group": group, "place": place}


def speech(items: Sequence[JsonObject], prefix: str, *, mood: int) -> Iterator[Part]:
    """What the model says to this context; `prefix` marks the messages of the turn. `mood` changes words, not deeds."""
    scripts = [found for item in items if str(item["id"]).startswith(prefix) if (found := read_script(text_of(item)))]
    made: dict[str, int] = {}
    for item in items:
        of_turn = item["type"] == CALL and str(item["id"]).startswith(prefix.replace("msg_", "fc_"))
        if of_turn and '"script":"agent"' not in str(item["arguments"]):
            made[str(item["name"])] = made.get(str(item["name"]), 0) + 1
    if mood % 4 == 1:
        yield Thought("hm")
    for script in scripts:
        for number, group in enumerate(script.groups):
            if all(made.get(name, 0) >= group.count(name) for name in group):
                for name in group:
                    made[name] -= 1
                continue
            yield from _say(script, 2 if mood % 3 else 0, mood)
            for place, name in enumerate(group):
                yield ToolCall(name, arguments(script, number, place), id=call_id(script, number, place))
            yield Usage({"output_tokens": 10})
            return
    yield f"done {', '.join(script.id for script in scripts)}:"
    yield from _say(scripts[-1] if scripts else None, 4, mood)
    yield Usage({"output_tokens": 10})


def remark(voice: str, *, words: int) -> Iterator[Part]:
    """What one of the `VOICES` says, whatever it is shown."""
    yield f"{voice}:"
    yield from _say(None, words, 0)


def _say(script: Script | None, least: int, mood: int) -> Iterator[str]:
    count = least + (script.words if script is not None else 0)
    for number in range(count):
        yield WORDS[(number + (mood if number > 3 else 0)) % len(WORDS)]
