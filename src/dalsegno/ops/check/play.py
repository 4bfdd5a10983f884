"""One process's part in a play: a replica on a store, inputs said to it one after another, and what is seen of it.

Nothing here is special to a check: the runtime is the one that serves, and a step's boundary is its own.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Literal
from urllib.parse import quote

from dalsegno.core.event import Action
from dalsegno.core.ids import turn_id
from dalsegno.core.json import JsonObject
from dalsegno.core.turn import Turn
from dalsegno.ops.check.files import Files
from dalsegno.ops.check.left import Leftovers
from dalsegno.ops.check.memory import Memory, Surveyor, changes, sized
from dalsegno.ops.check.talk import AnyNote, Heard, Left, Order, Scene, Stopped, Trace
from dalsegno.ops.check.values import HIDDEN, SECRET
from dalsegno.ops.check.watch import Watch, WatchedAgent
from dalsegno.ops.config import environment
from dalsegno.ops.ids import RandomIds
from dalsegno.ops.tiers import FILE, Places, Tiers, opened
from dalsegno.ports import Agent, Member, Ref
from dalsegno.runtime.replica import Replica, Tuning
from dalsegno.runtime.service import Service
from dalsegno.wire.requests import parse_input

TENANT = "check"
NOBODY = "nobody decided: this is a check"
LONGER_SECONDS = 1.0
KINDS: dict[str, Literal["global", "cache", "library"]] = {"global": "global", "cache": "cache", "library": "library"}
POLL_SECONDS = 0.005
LEASE = timedelta(seconds=30)
DRAIN = timedelta(seconds=10)


class Scenery:
    """What surrounds the agent in its process, looked at between turns."""

    def __init__(self, order: Order, watch: Watch) -> None:
        def mine(file: str) -> bool:
            return file.startswith(order.roots) and "site-packages" not in file

        self._running = False
        self._surveyor = Surveyor(mine)
        self._files = Files(roots=order.roots, quiet=order.quiet, on=lambda: self._running, effect=lambda: watch.acting)
        self._left = Leftovers(mine=mine, on=lambda: self._running)
        self._memory: Memory = {}
        self._environment: Mapping[str, str] = {}
        self._folder = ""

    def watch(self) -> None:
        """From now on, which is before the first turn."""
        self._files.watch()
        self._left.watch(asyncio.get_running_loop())
        self._memory, self._environment, self._folder = self._surveyor.look(), dict(environment()), os.getcwd()
        self._running = True

    async def look(self) -> list[Trace]:
        """What became another since the last look."""
        left, files = await self._left.look(), self._files.look()
        self._running = False
        memory, variables, folder = self._surveyor.look(), dict(environment()), os.getcwd()
        found = [
            Trace(
                KINDS[now.kind],
                name,
                "(not there)" if was is None else was.shown,
                sized(now, was),
            )
            for name, was, now in changes(self._memory, memory)
        ]
        for name in sorted({*variables, *self._environment}):
            before, after = self._environment.get(name), variables.get(name)
            if before != after:
                found.append(Trace("environment", name, _shown(name, before), _shown(name, after)))
        if folder != self._folder:
            found.append(Trace("folder", "the working directory", self._folder, folder))
        # a module that is imported by a turn is looked at from then on
        self._memory, self._environment, self._folder = {**self._memory, **memory}, variables, folder
        self._running = True
        return [*found, *files, *left]


class Player:
    """Plays scenes with one replica each."""

    def __init__(self, order: Order, agent: Agent, watch: Watch, tell: Callable[[AnyNote], None]) -> None:
        self._order = order
        self._agent = WatchedAgent(agent, watch)
        self._watch = watch
        self._scenery = Scenery(order, watch)
        self._tell = tell
        self._turn = ""
        self._full = asyncio.Event()

    async def play(self) -> None:
        """All of the order."""
        self._scenery.watch()
        for scene in self._order.scenes:
            async with opened(tiers_in(scene.store)) as tiers:
                self._tell(Stopped(await self._scene(scene, tiers)))

    async def _scene(self, scene: Scene, tiers: Tiers) -> str:
        ids, ref = RandomIds(), Ref(TENANT, scene.session)
        tuning = Tuning(
            turn_deadline=timedelta(seconds=self._order.timeout_seconds), lease_ttl=LEASE, drain_within=DRAIN
        )
        member = Member(ids.incarnation(), "check", os.getpid())
        agents = {"default": self._agent}
        replica = Replica(member, agents, warm=tiers.warm, hot=tiers.hot, blobs=tiers.cold, tuning=tuning)

        def leave() -> None:
            replica.draining = True
            self._full.set()

        self._watch.on_full = leave
        service = Service(replica, warm=tiers.warm, blobs=tiers.cold, ids=ids)
        self._turn = await _running(service, ref)
        await replica.start()
        try:
            return await self._say(list(scene.inputs), service, ref)
        finally:
            await replica.drain()
            await replica.stop()

    async def _say(self, inputs: list[JsonObject], service: Service, ref: Ref) -> str:
        """Everything that is to be said, as long as nobody has to leave; how it stands then."""
        while True:
            status, actions = await self._rest(service, ref)
            if status == "left":
                return status
            if actions and self._watch.first and (not inputs or inputs[0].get("type", "message") == "message"):
                for action in actions:
                    await self._hear(service, ref, _refusal(action), by_itself=True)
            elif not inputs:
                return status
            elif (said := _addressed(inputs.pop(0), actions)) is not None:
                await self._hear(service, ref, said, by_itself=False)

    async def _hear(self, service: Service, ref: Ref, said: JsonObject, *, by_itself: bool) -> None:
        receipt = await service.admit(ref, parse_input(said))
        self._turn = turn_id(ref.id, receipt.turn)
        self._tell(Heard(self._turn, said, by_itself))

    async def _rest(self, service: Service, ref: Ref) -> tuple[str, tuple[Action, ...]]:
        """Once nothing runs: how the last turn stands, and what it waits for."""
        if not self._turn:
            return "idle", ()
        wanted = asyncio.ensure_future(self._ended(service, ref))
        leaving = asyncio.ensure_future(self._full.wait())
        await asyncio.wait({wanted, leaving}, return_when="FIRST_COMPLETED")
        leaving.cancel()
        if self._full.is_set():
            wanted.cancel()
            return "left", ()
        turn = await wanted
        if self._watch.first:
            self._tell(Left(turn.id, await self._scenery.look()))
        return turn.status, turn.actions

    async def _ended(self, service: Service, ref: Ref) -> Turn:
        """The turn once it has ended, or waits for somebody."""
        within = timedelta(seconds=self._order.timeout_seconds + LONGER_SECONDS)
        turn = await service.turn(ref, self._turn, wait=within)
        while turn.status == "waiting" and not turn.actions:
            # all is decided, and it is about to go on
            await asyncio.sleep(POLL_SECONDS)
            turn = await service.turn(ref, self._turn, wait=within)
        return turn


def tiers_in(store: str) -> Places:
    """A store that is a folder of its own."""
    warm, cold = f"sqlite:///{quote(f'{store}/{FILE}')}", f"file://{quote(f'{store}/cold')}"
    return Places(warm, warm, cold)


async def _running(service: Service, ref: Ref) -> str:
    """The turn that is open, if one is."""
    session = await service.get(ref)
    return "" if session.running is None else turn_id(ref.id, session.running.first)


def _refusal(action: Action) -> JsonObject:
    if action.type == "approval":
        return {"type": "approval", "call_id": action.call_id, "decision": "deny", "reason": NOBODY}
    return {"type": "tool_result", "call_id": action.call_id, "error": NOBODY}


def _addressed(said: JsonObject, actions: tuple[Action, ...]) -> JsonObject | None:
    """The input as it can be said now, if it can: a decision that names no call is about the first that waits."""
    kind = said.get("type", "message")
    if kind == "message":
        return {"type": "message", **said, "on_busy": "queue"}
    if kind == "cancel":
        return {"type": "cancel"} if actions else None
    fitting = [action for action in actions if action.type == kind or kind == "tool_result"]
    named = [action for action in fitting if action.call_id == said.get("call_id", action.call_id)]
    return {**said, "call_id": named[0].call_id} if named else None


def _shown(name: str, value: str | None) -> str:
    if value is None:
        return "(not set)"
    return HIDDEN if SECRET.search(name) else repr(value)
