"""Scripts: functions from what the model was shown to what it answers. They remember nothing, so that a question
asked again after a crash gets the same answer.
"""

import importlib
import re
import runpy
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

import msgspec

from dalsegno.errors import ConfigError
from dalsegno.testing.model.answer import Answer, Pace, Said, whole
from dalsegno.testing.model.shown import Shown

Script: TypeAlias = Callable[[Shown], Said]
Reply: TypeAlias = Said | Script


def answered(reply: Reply, shown: Shown) -> Answer:
    """What a reply comes to."""
    return whole(reply(shown) if callable(reply) else reply)


def echo(shown: Shown) -> str:
    """Says what the user said."""
    return f"You said: {shown.said}"


def by_words(rules: Mapping[str, Reply], *, otherwise: Reply = echo) -> Script:
    """The reply of the first pattern (a regular expression) that is found in the last user message."""

    def script(shown: Shown) -> Answer:
        found = (reply for pattern, reply in rules.items() if re.search(pattern, shown.said))
        return answered(next(found, otherwise), shown)

    return script


def by_round(*replies: Reply) -> Script:
    """One after another as the model is asked again after tools; the last one from then on.

    by_round(ToolCall("weather", {"city": "Bologna"}), lambda shown: f"It is {shown.results[-1]}.")
    """
    return lambda shown: answered(replies[min(shown.round, len(replies) - 1)], shown)


def by_turn(*replies: Reply) -> Script:
    """One after another as the user says more; the last one from then on."""
    return lambda shown: answered(replies[min(max(shown.turn, 1), len(replies)) - 1], shown)


def at_pace(reply: Reply, *, tokens: int = 1, delay: timedelta = timedelta(0)) -> Script:
    """The same, `tokens` tokens a delta, `delay` apart."""
    return lambda shown: msgspec.structs.replace(answered(reply, shown), pace=Pace(tokens, delay))


def find(target: str) -> Script:
    """The script that `module:name` or `file.py:name` names, or `echo`. Raises `ConfigError` if there is none."""
    if target == "echo":
        return echo
    place, _, name = target.rpartition(":")
    if not place:
        raise ConfigError(f"SCRIPT {target!r} names no script: write `module:name`, `file.py:name` or `echo`")
    names: Mapping[str, Any] = runpy.run_path(place) if place.endswith(".py") else vars(importlib.import_module(place))
    reply = names.get(name)
    if reply is None:
        raise ConfigError(f"{place} has no {name!r}")
    return lambda shown: answered(reply, shown)
