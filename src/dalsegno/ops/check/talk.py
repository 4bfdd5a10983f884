"""What a check and its processes say to each other: one `Order` in, notes out, one JSON object a line.

Values only. A turn is named by its id, which is the same in every play: it is derived from the log before it.
"""

from typing import Literal, TypeAlias

import msgspec

from dalsegno.core.event import Event
from dalsegno.core.json import Json, JsonObject

OUTSIDE = "(outside of a step)"
Play: TypeAlias = Literal["first", "again", "fresh"]
"""`first`: one process, the real model, real effects; recorded. `again`: one process, answered from the record: what
differs here differs by itself. `fresh`: a process for every step, answered from the record: what differs only here was
kept by a process."""


class Scene(msgspec.Struct, frozen=True):
    """A session in a store, and what is said to it, one after another: in the first play everything, else one turn's
    inputs.
    """

    store: str
    session: str
    inputs: tuple[JsonObject, ...]


class Order(msgspec.Struct, frozen=True):
    """What a process is to do. `roots` are the folders whose code is the user's."""

    target: str
    folder: str
    roots: tuple[str, ...]
    quiet: tuple[str, ...]
    """Folders of ours: what is written there is not the agent's."""
    play: Play
    stop: Literal["end", "step"]
    scenes: tuple[Scene, ...]
    record: str
    seed: int = 0
    model: Literal["replay", "ask"] = "replay"
    effects: Literal["replay", "run"] = "replay"
    timeout_seconds: float = 300.0


class Note(msgspec.Struct, frozen=True, tag=True):
    """Something that a process saw."""


class Loaded(Note, frozen=True):
    """The agent is there."""


class Cannot(Note, frozen=True):
    """The process could not do its work at all; `code` as an exit code."""

    reason: str
    code: int


class Heard(Note, frozen=True):
    """The next input was admitted. `by_itself`: nobody had said it, it is the check's own decision."""

    turn: str
    said: JsonObject
    by_itself: bool = False


class Asked(Note, frozen=True):
    """The agent came to a step; `known`: it is on record."""

    turn: str
    key: str
    known: bool


class Shown(Note, frozen=True):
    """A model function was given this context."""

    turn: str
    key: str
    items: list[JsonObject]


class Said(Note, frozen=True):
    """What a model function said when it was run with recorded answers."""

    turn: str
    key: str
    parts: list[JsonObject]


class Ran(Note, frozen=True):
    """What a function of the user's came to when it was run again: a step, or a call of a tool."""

    turn: str
    what: Literal["step", "tool"]
    key: str
    name: str
    result: Json


class Kept(Note, frozen=True):
    """A call that was not carried out again: its output came from the record."""

    turn: str
    name: str


class Sent(Note, frozen=True):
    """An HTTP request inside a step: the `number`-th of it."""

    turn: str
    key: str
    number: int
    request: JsonObject
    model: bool


class Reply(Note, frozen=True):
    """What was answered to it."""

    turn: str
    key: str
    number: int
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Unseen(Note, frozen=True):
    """A model step spoke to the network in a way that cannot be recorded."""

    turn: str
    key: str


class Trace(msgspec.Struct, frozen=True):
    """Something that outlives a turn in a process: `kind` says what, `where` the line that did it, if that is known."""

    kind: Literal["global", "cache", "library", "environment", "folder", "file", "task", "thread"]
    name: str
    before: str = ""
    after: str = ""
    where: str = ""
    read_later: bool = False
    effect: bool = False
    """Left by a tool that changes the world: that is what it is for."""


class Left(Note, frozen=True):
    """What a turn left in its process."""

    turn: str
    traces: list[Trace]


class Stopped(Note, frozen=True):
    """The process has done what it could. `left`: handed over at a step; the others are the turn's status."""

    status: str


AnyNote: TypeAlias = (
    Loaded | Cannot | Heard | Asked | Shown | Said | Ran | Kept | Sent | Reply | Unseen | Left | Stopped
)


class Record(msgspec.Struct, frozen=True):
    """The first play, for those that are answered from it."""

    events: list[Event] = []
    replies: list[Reply] = []
    requests: list[Sent] = []
    unseen: list[Unseen] = []
