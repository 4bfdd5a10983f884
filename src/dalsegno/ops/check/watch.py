"""A turn that is watched: the agent is given a turn like any other, and what it comes to, shows and does is noted.

In the first play everything is done. In the others model functions, steps and `read` tools are run again, so that what
they come to can be compared, and the agent goes on with what is on record; other tools are not run a second time.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import msgspec

from dalsegno.core.context import Context
from dalsegno.core.json import Json, JsonObject
from dalsegno.core.part import Part
from dalsegno.core.step import StepRecord
from dalsegno.core.tool import Undo, as_tool
from dalsegno.errors import DalsegnoError
from dalsegno.ops.check.answers import Answers, plain_parts
from dalsegno.ops.check.compare import canonical
from dalsegno.ops.check.talk import (
    OUTSIDE,
    AnyNote,
    Asked,
    Kept,
    Order,
    Ran,
    Reply,
    Said,
    Sent,
    Shown,
    Unseen,
)
from dalsegno.ops.check.wire import Answer
from dalsegno.ports import Agent, Call, Output, Tool, ToolFunction
from dalsegno.runtime.handle import Reply as ModelReply
from dalsegno.runtime.handle import Turn
from dalsegno.runtime.outcome import outcome_of
from dalsegno.runtime.said import Model, parts

T = TypeVar("T")


class Place(msgspec.Struct, frozen=True):
    """Where the agent is: in which step, and what is done there."""

    turn: str
    key: str
    kind: str = "step"
    effect: bool = False


_PLACE: ContextVar[Place | None] = ContextVar("dalsegno_check_place", default=None)


class Watch:
    """What one process notes, and what it answers from the record."""

    def __init__(self, order: Order, answers: Answers, tell: Callable[[AnyNote], None]) -> None:
        self.turn = ""
        """The turn that is being run, or was run last."""
        self.on_full: Callable[[], None] = _nothing
        self._order = order
        self._answers = answers
        self._tell = tell
        self._made = False
        self._keys: dict[str, dict[str, None]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    @property
    def first(self) -> bool:
        """Whether this is the play that the others are answered from."""
        return self._order.play == "first"

    @property
    def acting(self) -> bool:
        """Whether a tool that changes the world is at work here."""
        place = _PLACE.get()
        return place is not None and place.effect

    def named(self, turn: str, key: str, recorded: Iterable[str]) -> str:
        """The step's name, which is the same in every play."""
        keys = self._keys.setdefault(turn, {})
        keys.update(dict.fromkeys([*recorded, key]))
        return canonical(keys)[list(keys).index(key)]

    def asked(self, key: str) -> None:
        """The agent comes to a step that is on record."""
        self._tell(Asked(self.turn, key, known=True))

    def begins(self, key: str) -> None:
        """The agent comes to a step that is not on record: the next process's, if this one has made one already."""
        self._tell(Asked(self.turn, key, known=False))
        if self._made and self._order.stop == "step":
            self.on_full()

    def made(self) -> None:
        """A step that was not on record is done."""
        self._made = True

    # ------------------------------------------------------------------------------------ what is run

    async def model(self, function: Model, context: Context) -> AsyncGenerator[Part]:
        """A model's step."""
        place = _PLACE.get() or Place(self.turn, OUTSIDE)
        self._tell(Shown(place.turn, place.key, list(context.items)))
        if self.first:
            async for part in parts(function(context)):
                yield part
            return
        known = self._answers.said(place.turn, place.key)
        if self._order.model == "ask" or not self._answers.unseen(place.turn, place.key):
            actual = [part async for part in parts(function(context))]
            self._tell(Said(place.turn, place.key, plain_parts(actual)))
            known = actual if known is None else known
        for part in known or []:
            yield part

    async def function(self, run: Callable[[], Awaitable[T]], name: str) -> Any:
        """A step of the user's."""
        place = _PLACE.get() or Place(self.turn, OUTSIDE)
        result: Json = msgspec.to_builtins(await run())
        if self.first:
            return result
        self._tell(Ran(place.turn, "step", place.key, name, result))
        known = self._answers.result(place.turn, place.key)
        return result if known is None else known[0]

    def tool(self, tool: Tool | ToolFunction) -> Tool:
        """The tool as the turn is to know it."""
        found = as_tool(tool)
        watched = msgspec.structs.replace(found, run=partial(self._call, found))
        if self.first:
            return watched
        undo = None if found.compensate is None or self._order.effects == "run" else _undone
        return msgspec.structs.replace(watched, cache_seconds=None, compensate=undo or found.compensate)

    async def _call(self, tool: Tool, call: Call) -> Any:
        runs = self.first or tool.effect == "read" or self._order.effects == "run"
        with _at(Place(call.turn, call.id, "tool", effect=tool.effect != "read")):
            if self.first:
                return await tool.run(call)
            known = self._answers.output(call.turn, call.id, (call.name, call.arguments))
            if not runs:
                self._tell(Kept(call.turn, call.name))
                if known is None:
                    raise DalsegnoError("dalsegno check: the first play made no such call, so it is not made now")
            else:
                made = await outcome_of(tool, call)
                self._tell(Ran(call.turn, "tool", call.id, call.name, made.text))
                if known is None:
                    return Output(made.text, made.details, _status(made.status))
            details = known.get("details")
            return Output(str(known["output"]), details if isinstance(details, dict) else {}, _status(known["status"]))

    # ------------------------------------------------------------------------------------ what is sent

    def sent(self, request: JsonObject) -> tuple[int, Reply | None]:
        """A request leaves."""
        place = _PLACE.get() or Place(self.turn, OUTSIDE)
        number = self._counts[place.turn, place.key] = self._counts.get((place.turn, place.key), 0) + 1
        self._tell(Sent(place.turn, place.key, number, request, place.kind == "model"))
        if self.live():
            return number, None
        return number, self._answers.reply(place.turn, place.key, number, request)

    def live(self) -> bool:
        """Whether requests go to the network here."""
        place = _PLACE.get()
        if self.first or (place is not None and place.kind == "tool" and self._order.effects == "run"):
            return True
        return place is not None and place.kind == "model" and self._order.model == "ask"

    def answered(self, number: int, reply: Answer) -> None:
        """An answer has come."""
        place = _PLACE.get() or Place(self.turn, OUTSIDE)
        status, headers, body = reply
        self._tell(Reply(place.turn, place.key, number, status, list(headers), body))

    def connected(self) -> None:
        """Somebody connects to somewhere, and not by HTTP that we see."""
        place = _PLACE.get()
        if place is not None and place.kind == "model":
            self._tell(Unseen(place.turn, place.key))


class WatchedTurn(Turn):
    """The turn under a second name, with the same state: what the runtime sees of its turn stays true."""

    def __init__(self, inner: Turn, watch: Watch) -> None:
        self.__dict__ = inner.__dict__
        self._watch = watch
        self._open: set[str] = set()

    async def generate(
        self,
        model: Model,
        *,
        tools: Sequence[Tool | ToolFunction] = (),
        name: str = "model",
        inside: str | None = None,
        label: str | None = None,
    ) -> ModelReply:
        watched, offered = partial(self._watch.model, model), [self._watch.tool(tool) for tool in tools]
        with _as("model"):
            return await super().generate(watched, tools=offered, name=name, inside=inside, label=label)

    async def perform(
        self, calls: ModelReply | Sequence[JsonObject], *, tools: Sequence[Tool | ToolFunction] = ()
    ) -> list[str]:
        asked = calls.calls if isinstance(calls, ModelReply) else calls
        fresh = [str(call["call_id"]) for call in asked if self.answered(str(call["call_id"])) is None]
        for call_id in fresh:
            self._watch.begins(f"call {call_id}")
        outputs = await super().perform(asked, tools=[self._watch.tool(tool) for tool in tools])
        if fresh:
            self._watch.made()
        return outputs

    async def call(self, tool: Tool | ToolFunction, **arguments: Json) -> str:
        return await super().call(self._watch.tool(tool), **arguments)

    async def step(self, name: str, run: Callable[[], Awaitable[T]]) -> T:
        return await super().step(name, partial(self._watch.function, run, name))

    async def _recorded(self, key: str) -> StepRecord | None:
        steps = self._recorder.journal.steps
        name = self._watch.named(self.id, key, steps)
        if key in steps:
            self._watch.asked(name)
        else:
            self._watch.begins(name)
            self._open.add(key)
        return await super()._recorded(key)

    @contextmanager
    def _numbered(self, name: str) -> Iterator[str]:
        kind = _KIND.get()
        with super()._numbered(name) as key:
            known = self._watch.named(self.id, key, self._recorder.journal.steps)
            with _at(Place(self.id, known, kind)):
                yield key
        if key in self._open:
            self._open.discard(key)
            self._watch.made()


class WatchedAgent:
    """An agent whose turns are watched."""

    def __init__(self, inner: Agent, watch: Watch) -> None:
        self._inner = inner
        self._watch = watch

    @property
    def name(self) -> str:
        """The name that sessions ask for it by."""
        return self._inner.name

    async def run(self, turn: Turn) -> None:
        """Run the agent."""
        self._watch.turn = turn.id
        await self._inner.run(WatchedTurn(turn, self._watch))


_KIND: ContextVar[str] = ContextVar("dalsegno_check_kind", default="step")


@contextmanager
def _as(kind: str) -> Iterator[None]:
    token = _KIND.set(kind)
    try:
        yield
    finally:
        _KIND.reset(token)


@contextmanager
def _at(place: Place) -> Iterator[None]:
    token = _PLACE.set(place)
    try:
        yield
    finally:
        _PLACE.reset(token)


async def _undone(undo: Undo) -> Json:
    """What was not done needs no undoing."""
    return None


def _status(text: object) -> Any:
    return "completed" if text == "completed" else "incomplete"


def _nothing() -> None:
    return None
