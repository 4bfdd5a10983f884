"""The agent of a world and its tools: everything an agent can do, done to the ledger, with the world looking on."""

import asyncio
import contextvars
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from functools import partial

from dalsegno.agents.plain import FunctionAgent
from dalsegno.core.context import Context
from dalsegno.core.json import Json, JsonObject
from dalsegno.core.part import Part
from dalsegno.errors import BadArguments
from dalsegno.ports import Call, DidNotHappen, Finding, Happened, Ref, Tool, Undo
from dalsegno.runtime.handle import Turn
from dalsegno.testing.world.ledger import UNDONE, Lease, Ledger, identity
from dalsegno.testing.world.loop import here
from dalsegno.testing.world.script import VOICES, read_script, remark, speech
from dalsegno.testing.world.watch import Watch
from dalsegno.testing.world.weather import Weather

ATTEMPT: contextvars.ContextVar[int] = contextvars.ContextVar("attempt", default=0)
"""Which attempt of its turn the running code belongs to: a replica that lost a session may get it back."""
LARGE = "dal segno " * 4000
PAUSE_SECONDS = 0.012
"""Up to twice as long as an answer waits for what could be recorded with it."""


class Overheard(Exception):
    """The model's provider failed in the middle of an answer."""


class Stage:
    """The agent, its model and its tools, for all replicas of one world."""

    def __init__(self, weather: Weather, ledger: Ledger, watch: Watch) -> None:
        self.weather = weather
        self.ledger = ledger
        self.watch = watch
        self.agent = FunctionAgent(self.run)
        self.models: dict[Turn, _Models] = {}
        self.tools = self._tools()

    # ------------------------------------------------------------------------------------------------- the agent

    async def run(self, turn: Turn) -> None:
        """Do what the script says the agent does, then let the model talk until it has nothing left to call."""
        ATTEMPT.set(turn.attempt)
        if self.weather.chance.random() < 0.5:
            turn.notes.go_ahead()
        script = read_script(turn.text)
        models = self.models.setdefault(turn, _Models(self, turn))
        if script is not None and script.before:
            await self._before(models, script.before)
        while True:
            reply = await models.ask("model")
            if not reply and script is not None and script.after == "raise":
                raise ValueError("what was done is not good enough")
            if not reply:
                return
            if self.weather.strikes(here(), "agent") == "agent raises":
                self.weather.count("agent raises")
                raise ValueError("the agent has a bug")
            await turn.perform(reply)

    async def _before(self, models: "_Models", what: str) -> None:
        turn = models.turn
        match what:
            case "say":
                await turn.say("one moment")
            case "step":
                await turn.step("roll", self._roll)
            case "emit":
                await turn.emit("progress", {"at": 1})
            case "call":
                await turn.call(next(tool for tool in self.tools if tool.name == "keyed"), script="agent")
            case "ask":
                await turn.ask("really?", within=timedelta(seconds=4))
            case "muse":
                await self._muse(models, VOICES[0])
            case "discuss":
                await asyncio.gather(*(self._muse(models, voice) for voice in VOICES))
            case "summarize":
                await turn.summarize("what was before", through=turn.past)
            case "raise":
                raise KeyError("this script cannot be done")

    async def _muse(self, models: "_Models", voice: str) -> None:
        """A voice speaks again and again. When it pauses, what it said may be just on its way into the log."""
        for _ in range(3):
            await models.ask(voice)
            if self.weather.chance.random() < 0.4:
                await asyncio.sleep(PAUSE_SECONDS * self.weather.chance.random())

    async def _roll(self) -> int:
        await asyncio.sleep(0.01)
        return 4

    # ------------------------------------------------------------------------------------------------- the tools

    def _tools(self) -> tuple[Tool, ...]:
        return (
            Tool("read", self._read, effect="read"),
            Tool("keyed", self._keyed, effect="keyed"),
            Tool("slow", self._keyed, effect="keyed"),
            Tool("tx", self._transactional, effect="transactional", timeout_seconds=4.0),
            Tool("once", self._once),
            Tool("probed", self._once, unknown="probe", probe=self._probe),
            Tool("asked", self._once, unknown="ask"),
            Tool("gated", self._keyed, effect="keyed", gate="approval"),
            Tool("hasty", self._once, gate="approval", answer_within_seconds=1.0),
            Tool("outside", self._nobody, gate="outside"),
            Tool("twice", self._keyed, effect="keyed", dedupe="turn"),
            Tool("ever", self._once, dedupe="session"),
            Tool("large", self._large, effect="read"),
            Tool("raises", self._raises, effect="keyed"),
            Tool("poison", self._poison, effect="keyed"),
            Tool("paid", self._keyed, effect="keyed", compensate=self._undo),
            Tool("spent", self._once, compensate=self._undo),
            Tool("vetted", self._keyed, effect="keyed", gate="approval", compensate=self._undo),
            Tool("booked", self._transactional, effect="transactional", timeout_seconds=4.0, compensate=self._unbook),
        )

    async def _begin(self, call: Call) -> None:
        self.weather.note("tool", call.name, call.id)
        self.watch.tool_runs(call, self._lease(call))
        await self._reach("tool:before")
        await asyncio.sleep(0.005 + 0.03 * self.weather.chance.random() + (0.6 if call.name in ("slow", "tx") else 0.0))
        self.ledger.attempt(call)

    async def _finish(self) -> None:
        await self._reach("tool:effect")
        await asyncio.sleep(0.02 * self.weather.chance.random())
        await self._reach("tool:after")

    async def _reach(self, point: str) -> None:
        process = here()
        self.weather.reaches(process, point)
        if process is not None and process.dead:
            await asyncio.get_running_loop().create_future()

    def _lease(self, call: Call) -> Lease:
        return self.watch.lease(Ref(call.tenant, call.session), call.turn, ATTEMPT.get())

    async def _read(self, call: Call) -> Json:
        await self._begin(call)
        await self._finish()
        return {"read": call.id}

    async def _keyed(self, call: Call) -> Json:
        await self._begin(call)
        self.ledger.apply_keyed(call, lease=self._lease(call))
        await self._finish()
        return f"did {call.id}"

    async def _once(self, call: Call) -> Json:
        await self._begin(call)
        self.ledger.apply(call, lease=self._lease(call))
        await self._finish()
        return f"did {call.id}"

    async def _transactional(self, call: Call) -> Json:
        await self._begin(call)
        assert call.transaction is not None
        await call.transaction.execute("set", (self.ledger.row(call), 1))
        await self._finish()
        return f"did {call.id}"

    async def _undo(self, undo: Undo) -> Json:
        await self._begin_to_undo(undo)
        self.ledger.undo(undo)
        await self._reach("undo:effect")
        await asyncio.sleep(0.02 * self.weather.chance.random())
        await self._reach("undo:after")
        return f"undid {undo.call.id}"

    async def _unbook(self, undo: Undo) -> Json:
        await self._begin_to_undo(undo)
        assert undo.call.transaction is not None
        await undo.call.transaction.execute("add", (UNDONE + identity(undo.call), 1))
        await self._reach("undo:effect")
        return f"undid {undo.call.id}"

    async def _begin_to_undo(self, undo: Undo) -> None:
        self.weather.note("undo", undo.call.name, undo.call.id)
        self.watch.undo_runs(undo, self._lease(undo.call))
        await self._reach("undo:before")
        await asyncio.sleep(0.03 * self.weather.chance.random())
        if not self.weather.calm and self.weather.chance.random() < 0.1:
            self.weather.count("undo raises")
            raise OSError("the service is down")

    async def _probe(self, call: Call) -> Finding:
        await asyncio.sleep(0.01)
        if self.ledger.applied[identity(call)]:
            return Happened(f"did {call.id}")
        return DidNotHappen() if self.weather.calm or self.weather.chance.random() < 0.8 else None

    async def _large(self, call: Call) -> Json:
        await self._begin(call)
        await self._finish()
        return LARGE

    async def _raises(self, call: Call) -> Json:
        await self._begin(call)
        self.weather.count("tool raises")
        raise BadArguments("no") if self.weather.chance.random() < 0.3 else OSError("the service is down")

    async def _poison(self, call: Call) -> Json:
        await self._begin(call)
        process = here()
        if process is not None and not self.weather.calm:
            self.weather.count("poison")
            self.weather.kill(process)
            await asyncio.get_running_loop().create_future()
        return "harmless"

    async def _nobody(self, call: Call) -> Json:
        raise AssertionError("an outside tool was run")


class _Models:
    """One turn's models: asked with a context, they answer piece by piece, unless they fail.

    `answers` counts what each has answered, to know the key of its next step; `given` are the items of them all.
    """

    def __init__(self, stage: Stage, turn: Turn) -> None:
        self.stage = stage
        self.turn = turn
        self.answers = Counter[str]()
        self.given: list[str] = []

    async def ask(self, name: str) -> Sequence[JsonObject]:
        """One step of that model, which is asked again if it fails; the calls that it wants."""
        while True:
            model = partial(self._answer, name, tuple(self.given))
            try:
                reply = await self.turn.generate(model, tools=self.stage.tools, name=name)
            except Overheard:
                await asyncio.sleep(0.01)
            else:
                self.answers[name] += 1
                self.given += [str(item["id"]) for item in reply.items]
                return reply.calls

    async def _answer(self, name: str, given: Sequence[str], context: Context) -> AsyncIterator[Part]:
        stage, turn, weather = self.stage, self.turn, self.stage.weather
        stage.watch.model_asked(turn, f"{name}#{self.answers[name] + 1}", context, given=given)
        await stage._reach("model:before")
        word_seconds = 0.004 if name in VOICES else 0.03
        await asyncio.sleep(word_seconds / 3)
        fails = weather.strikes(here(), "model") == "model fails"
        for number, part in enumerate(self._parts(name, context)):
            if fails and number == 3:
                weather.count("model fails")
                raise Overheard("the stream broke")
            await asyncio.sleep(word_seconds * weather.chance.random())
            await stage._reach("model:delta")
            yield part
        await stage._reach("model:after")

    def _parts(self, name: str, context: Context) -> Iterator[Part]:
        turn, chance = self.turn, self.stage.weather.chance
        if name in VOICES:
            return remark(name, words=chance.choice((0, 0, 3, 6)))
        mood = 0 if chance.random() < 0.7 else chance.randrange(8)
        return speech(context.items, f"msg_{turn.id[:8]}{int(turn.id[28:], 16):x}_", mood=mood)
