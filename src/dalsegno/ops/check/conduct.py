"""READ THIS FIRST: one check, from the target to what its plays came to.

1. *First*: the conversation in one process, with the real model and real effects. All of it is recorded.
2. *Again*, twice: the same in one process, answered from the record. What differs from the first play differs by
   itself: a clock, chance, the world.
3. *Fresh*: the same, answered from the record, with a new process for every step. What differs only here was kept by a
   process.

In the second and third play each turn begins from the first play's log, so that one difference does not cause the next.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec

from dalsegno.core import codec
from dalsegno.core.event import Event, SessionCreated, TurnCreated, TurnInput
from dalsegno.core.ids import turn_id
from dalsegno.core.input import Cancel
from dalsegno.core.json import JsonObject
from dalsegno.errors import ConfigError
from dalsegno.ops.check.facts import Played
from dalsegno.ops.check.play import TENANT, tiers_in
from dalsegno.ops.check.process import Failed, last_words, run
from dalsegno.ops.check.stage import Stage, stage
from dalsegno.ops.check.talk import (
    AnyNote,
    Cannot,
    Heard,
    Order,
    Play,
    Record,
    Reply,
    Scene,
    Sent,
    Stopped,
    Unseen,
)
from dalsegno.ops.config import environment
from dalsegno.ops.ids import RandomIds
from dalsegno.ops.tiers import opened
from dalsegno.ports import Member, Ref
from dalsegno.runtime.replica import Replica
from dalsegno.runtime.service import Service

PREFIX = "dalsegno_check_"
EVENTS_MAX = 100_000
START_SECONDS = 120.0
SPARE_PROCESSES = 4
AGAIN = ("again", "once-more")
"""Two, since what is drawn from few may be drawn alike once."""
SEEDS = (165, 153, 206, 558)
"""For `random`: the first numbers drawn are at opposite ends, so that a path that is drawn is drawn differently."""


class Plan(msgspec.Struct, frozen=True):
    """What is to be checked. `folder` is where TARGET is looked for and what the plays have a copy of."""

    target: str
    folder: Path
    inputs: tuple[JsonObject, ...]
    stop: Literal["step", "turn"] = "step"
    model: Literal["replay", "ask"] = "replay"
    effects: Literal["replay", "run"] = "replay"
    timeout_seconds: float = 300.0


class Plays(msgspec.Struct):
    """What the three plays came to, turn by turn."""

    first: list[Played]
    again: list[list[Played]]
    fresh: list[Played]
    inputs: list[Heard]
    processes: int
    shared: tuple[Path, ...]
    folders: tuple[str, ...]
    """Names of folders that are left out where a file is shown."""


Progress = Callable[[str], None]


async def conduct(plan: Plan, progress: Progress) -> Plays:
    """All three plays. Raises `ConfigError` for a target that cannot be loaded, and `Failed`."""
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        return await _Conductor(plan, Path(name), progress).conduct()


class _Conductor:
    """One check in its own temporary folder."""

    def __init__(self, plan: Plan, place: Path, progress: Progress) -> None:
        self._plan = plan
        self._place = place
        self._progress = progress
        self._stage: Stage = stage(plan.folder.resolve(), place)
        self._session = RandomIds().session()
        self._record = ""
        self._processes = 0

    async def conduct(self) -> Plays:
        first, heard = await self._first()
        inputs = [_inputs(turn.events) for turn in first]
        again = [await self._again(name, first, inputs) for name in AGAIN]
        fresh = [await self._fresh(number, first, inputs[number]) for number in range(len(first))]
        folders = (str(self._stage.folder), str(self._stage.source))
        return Plays(first, again, fresh, heard, self._processes, self._stage.shared, folders)

    # ------------------------------------------------------------------------------------ the plays

    async def _first(self) -> tuple[list[Played], list[Heard]]:
        store = self._store("first")
        async with _service(store) as service:
            await service.create(TENANT, id=self._session, opening=SessionCreated())
        self._progress("first play: one process, the real model")
        scene = Scene(store, self._session, self._plan.inputs)
        notes = await self._process("first", [scene], stop="end")
        events = await self._log(store)
        self._keep(Record(events, _of(notes, Reply), _of(notes, Sent), _of(notes, Unseen)))
        turns = [event.seq for event in events if event.type == "turn.created"]
        return [self._played(first, events, [notes]) for first in turns], _of(notes, Heard)

    async def _again(
        self, name: str, first: Sequence[Played], inputs: Sequence[tuple[JsonObject, ...]]
    ) -> list[Played]:
        self._progress("second play: one process, answered from the record")
        scenes = [await self._scene(f"{name}-{n}", first, n, inputs[n]) for n in range(len(first))]
        if not scenes:
            return []
        notes = await self._process("again", scenes, stop="end")
        return [
            self._played(turn.first, await self._log(scene.store), [notes])
            for turn, scene in zip(first, scenes, strict=True)
        ]

    async def _fresh(self, number: int, first: Sequence[Played], inputs: tuple[JsonObject, ...]) -> Played:
        scene = await self._scene(f"fresh-{number}", first, number, inputs)
        record = first[number].journal
        most = 2 * (len(record.steps) + len(record.calls)) + len(inputs) + SPARE_PROCESSES
        processes: list[list[AnyNote]] = []
        status = "left"
        while status == "left" and len(processes) < most:
            self._progress(f"third play: turn {number + 1} of {len(first)}, process {len(processes) + 1}")
            stop: Literal["step", "end"] = "step" if self._plan.stop == "step" else "end"
            notes = await self._process("fresh", [scene], stop=stop)
            processes.append(notes)
            scene = msgspec.structs.replace(scene, inputs=scene.inputs[len(_of(notes, Heard)) :])
            status = _of(notes, Stopped)[-1].status
        played = self._played(first[number].first, await self._log(scene.store), processes)
        played.endless = status == "left"
        return played

    def _played(self, first: int, events: Sequence[Event], processes: Sequence[Sequence[AnyNote]]) -> Played:
        turn = turn_id(self._session, first)
        mine = [[note for note in notes if getattr(note, "turn", turn) == turn] for notes in processes]
        return Played(turn, first, [event for event in events if event.turn == first], mine)

    # ------------------------------------------------------------------------------------ stores

    def _store(self, name: str) -> str:
        folder = self._place / "stores" / name
        folder.mkdir(parents=True)
        return str(folder)

    async def _scene(self, name: str, first: Sequence[Played], number: int, inputs: tuple[JsonObject, ...]) -> Scene:
        """A store of its own in which the session is as it was before that turn."""
        store = self._store(name)
        log = await self._log(str(self._place / "stores" / "first"))
        async with _service(store) as service:
            await service.restore(TENANT, log[: first[number].first - 1], id=self._session)
        return Scene(store, self._session, inputs)

    async def _log(self, store: str) -> list[Event]:
        async with _service(store) as service:
            return list(await service.events(Ref(TENANT, self._session), after=0, limit=EVENTS_MAX))

    def _keep(self, record: Record) -> None:
        path = self._place / "record.json"
        path.write_bytes(msgspec.json.encode(record))
        self._record = str(path)

    # ------------------------------------------------------------------------------------ processes

    async def _process(self, play: Play, scenes: Sequence[Scene], *, stop: Literal["end", "step"]) -> list[AnyNote]:
        """A fresh interpreter in a fresh folder; what it noted."""
        self._processes += 1
        self._stage.set()
        order = Order(
            target=self._plan.target,
            folder=str(self._stage.folder),
            roots=(str(self._stage.folder), str(self._stage.source)),
            quiet=(str(self._place / "stores"),),
            play=play,
            stop=stop,
            scenes=tuple(scenes),
            record=self._record,
            seed=SEEDS[self._processes % len(SEEDS)],
            model=self._plan.model,
            effects=self._plan.effects,
            timeout_seconds=self._plan.timeout_seconds,
        )
        within = START_SECONDS + (self._plan.timeout_seconds * sum(len(scene.inputs) + 1 for scene in scenes))
        words = self._place / "words"
        notes = await run(order, environment=self._environment(), words=words, seconds=within)
        for note in notes:
            if isinstance(note, Cannot):
                raise ConfigError(note.reason) if note.code == 2 else Failed(note.reason)
        if not _of(notes, Stopped):
            raise Failed(f"the process of the {play} play ended before its time. Its last words: {last_words(words)}")
        return notes

    def _environment(self) -> dict[str, str]:
        """The operator's, with places of our own; and another hash seed in every process, as it is in production."""
        given = dict(environment())
        paths = [given["PYTHONPATH"]] if given.get("PYTHONPATH") else []
        given["PYTHONPATH"] = os.pathsep.join([*paths, str(Path(__file__).resolve().parents[3])])
        given["TMPDIR"] = str(self._stage.temp)
        given.setdefault("PYTHONHASHSEED", str(self._processes))
        return given


@asynccontextmanager
async def _service(store: str) -> AsyncIterator[Service]:
    """The sessions of a store, without a replica that would run them."""
    async with opened(tiers_in(store)) as tiers:
        ids = RandomIds()
        replica = Replica(Member(ids.incarnation(), "check"), {}, warm=tiers.warm, hot=tiers.hot, blobs=tiers.cold)
        yield Service(replica, warm=tiers.warm, blobs=tiers.cold, ids=ids)


def _inputs(events: Sequence[Event]) -> tuple[JsonObject, ...]:
    """What was said to a turn, as it can be said again."""
    found: list[JsonObject] = []
    for event in events:
        data = codec.decode(event)
        if isinstance(data, TurnCreated | TurnInput):
            said: JsonObject = msgspec.to_builtins(data.input)
            found.append({"type": "cancel"} if isinstance(data.input, Cancel) else said)
    return tuple(found)


def _of(notes: Sequence[AnyNote], kind: type) -> list:  # type: ignore[type-arg]
    return [note for note in notes if isinstance(note, kind)]
