"""The crash sweep: one scripted turn, and a crash at its first, second, … last step outside itself, each in a world
of its own.

Every call of a port is two such steps, before and after it; so are each delta of the model and each tool. Polls of the
fleet are not counted: they go on for ever and belong to no turn.
"""

import asyncio
from collections import Counter
from typing import Literal

import msgspec

from dalsegno.core.event import Action
from dalsegno.core.input import Approval, Input, Message, ToolResult
from dalsegno.core.turn import undecided
from dalsegno.testing.world.ledger import UNDONE
from dalsegno.testing.world.loop import Process
from dalsegno.testing.world.people import Person
from dalsegno.testing.world.reader import Broken
from dalsegno.testing.world.script import Script
from dalsegno.testing.world.world import Verdict, World, run_seed

POLLS = ("log.bury", "log.claim", "log.join", "log.holdings", "log.unerased")
Notice = Literal["told", "untold"]


class Swept(msgspec.Struct, frozen=True):
    """What a crash did. `point` is None when the turn was over before the crash came."""

    point: str | None
    broken: list[str]
    applied: dict[str, int]
    tries: dict[str, int]
    outputs: list[str]
    not_undone: list[str]


class Sweep:
    """One script, one crash: at the `place`-th step, of the replica that takes it. `seed` orders what is ready."""

    def __init__(self, script: Script, *, place: int, notice: Notice, seed: int = 0) -> None:
        self.script = script
        self.seed = seed
        self.place = place
        self.notice: Notice = notice
        self.point: str | None = None
        self._world: World | None = None
        self._steps = 0

    def run(self) -> Swept:
        """Crash there, recover, look."""
        verdict: Verdict = run_seed(self.seed, self.tell)
        world = self._world
        assert world is not None
        ref, ledger = world.ref(0), world.ledger
        applied = {name.rpartition("/")[2]: count for name, count in sorted(ledger.applied.items())}
        rows = [row for row in world.tiers.database.scratch if not row.startswith(UNDONE)]
        applied |= Counter(row.rpartition("/")[2].partition("#")[0] for row in rows)
        log = [msgspec.json.decode(event.data) for event in world.watch.log(ref) if event.type == "item.done"]
        outputs = [data["item"]["output"] for data in log if data["item"]["type"] == "function_call_output"]
        tries = {name.rpartition("/")[2]: len(keys) for name, keys in ledger.tries.items()}
        failed = [msgspec.json.decode(event.data) for event in world.watch.log(ref) if event.type == "turn.failed"]
        not_undone = [call_id for data in failed for call_id in data.get("not_undone", ())]
        return Swept(self.point, verdict.broken, applied, tries, outputs, not_undone)

    async def tell(self, world: World) -> None:
        """The turn, the crash, the recovery, and a reader who follows it all."""
        self._world = world
        weather, reach = world.weather, world.weather.reaches
        weather.calm = True

        def count(process: Process | None, point: str) -> None:
            reach(process, point)
            if process is None or self.point is not None or point.startswith(POLLS):
                return
            self._steps += 1
            if self._steps == self.place:
                self.point = point
                self._crash(world, process)

        await asyncio.sleep(0.1)
        weather.reaches = count  # type: ignore[method-assign]
        person = Person(world.town, world.ref(0), messages=0)
        reader = asyncio.ensure_future(person.read())
        decider = asyncio.ensure_future(self._decide(world))
        receipt = await world.town.tell(world.ref(0), Message(self.script.text), "key")
        assert receipt is not None
        if not self.script.after:
            world.must_complete[world.ref(0)] = receipt.turn
        await world.quiet()
        world.town.over = True
        decider.cancel()
        try:
            async with asyncio.timeout(30):
                await reader
        except (TimeoutError, Broken) as error:
            world.watch.breaks(f"the reader did not get to the end: {error!r}")
        await world.tidy()

    def _crash(self, world: World, process: Process) -> None:
        for host in world.hosts:
            if host.process is process:
                host.kill(process, notice=self.notice)
                world.loop.call_later(0.4, host.boot, context=world.hosts[0].outside)

    async def _decide(self, world: World) -> None:
        """A human who looks before he decides."""
        ref, count = world.ref(0), 0
        while True:
            await asyncio.sleep(0.05)
            row = world.tiers.database.rows.get(ref)
            turn = None if row is None else world.tiers.database.session(ref, row).running
            for action in undecided(turn) if turn is not None and turn.state == "waiting" else ():
                count += 1
                await world.town.tell(ref, self._answer(world, action), f"decision {count}")

    def _answer(self, world: World, action: Action) -> Input:
        if action.type == "tool_result":
            return ToolResult(action.call_id, output="from outside")
        if action.reason == "unknown_outcome" and world.town.happened(world.ref(0), action.call_id):
            return ToolResult(action.call_id, output=f"did {action.call_id}")
        return Approval(action.call_id, "approve")
