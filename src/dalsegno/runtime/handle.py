"""The turn as its agent sees it: the context, durable steps, tools, a voice, and ways to wait for a human.

Everything here is recorded once and answered from the record ever after. An agent is run again from its beginning
after a crash; what it did before comes back at once, in the same words, until it reaches the point where the log
ends.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import TypeVar

import msgspec

from dalsegno.core import item as items
from dalsegno.core.append import Draft
from dalsegno.core.context import Context
from dalsegno.core.event import ContextSummarized, ItemDone
from dalsegno.core.json import Json, JsonObject, clean_text
from dalsegno.core.part import ToolCall
from dalsegno.core.step import StepRecord, step_key
from dalsegno.core.tier import parse_artifact
from dalsegno.core.tool import as_tool
from dalsegno.errors import DalsegnoError, HandedOver, LeaseLost, Parked, PlatformSignal, TurnOver
from dalsegno.ports import Blobs, Output, Tool, ToolFunction
from dalsegno.runtime.notes import Notes
from dalsegno.runtime.recorder import Recorder
from dalsegno.runtime.said import Model, one, parts
from dalsegno.runtime.steps import Speaker
from dalsegno.runtime.tools import ToolBox

T = TypeVar("T")


class Reply(msgspec.Struct, frozen=True):
    """What a model answered: the items on record, and the calls it asks for, in order."""

    items: tuple[JsonObject, ...]

    @property
    def text(self) -> str:
        """The text of its messages."""
        return "".join(items.text_of(item) for item in self.items if item["type"] == items.MESSAGE)

    @property
    def calls(self) -> tuple[JsonObject, ...]:
        """The `function_call` items: give them to `turn.perform`."""
        return tuple(item for item in self.items if item["type"] == items.CALL)


class Turn:
    """What an agent function is given. One object a run of the function; it holds no state that is not in the log."""

    def __init__(
        self, recorder: Recorder, speaker: Speaker, tools: ToolBox, *, blobs: Blobs, draining: Callable[[], bool]
    ) -> None:
        lease = recorder.lease
        self.id = recorder.turn
        self.session = lease.session
        self.tenant = lease.tenant
        self.user = recorder.session.user
        self.metadata: JsonObject = copy.deepcopy(recorder.session.metadata)
        self.attempt = lease.attempt
        self.epoch = lease.epoch
        self._recorder = recorder
        self._speaker = speaker
        self._tools = tools
        self._blobs = blobs
        self._draining = draining
        self._numbers: dict[str, set[int]] = {}
        self._handed_over = False
        self.notes = Notes(recorder, speaker)
        self.seen: int | None = None
        """The last event that the model was shown; None while no model was asked."""

    @property
    def context(self) -> Context:
        """What a model is to be shown now: the conversation so far, this turn's message included."""
        return self._recorder.transcript.context()

    @property
    def opening(self) -> Context:
        """The context that the turn began with, its message the last of it: the same in every attempt."""
        said = self._recorder.journal.message
        count = len(said.items) if said is not None and said.items is not None else 1
        return self._recorder.transcript.opening(self._recorder.lease.turn, count)

    @property
    def text(self) -> str:
        """The text of the turn's message."""
        said = self._recorder.journal.message
        if said is None:
            return ""
        return said.content if said.content is not None else "".join(items.text_of(item) for item in said.items or ())

    @property
    def prefix(self) -> str:
        """What readers were shown of a message that a dead replica, or a try that failed, did not finish; mostly
        empty. A provider that can be given the beginning of its answer goes on from here: yield `Continue()` first.
        Only the model function of the step that the message belongs to is told.
        """
        return self._speaker.prefix

    async def generate(
        self,
        model: Model,
        *,
        tools: Sequence[Tool | ToolFunction] = (),
        name: str = "model",
        inside: str | None = None,
        label: str | None = None,
    ) -> Reply:
        """One model call as a step: streamed to readers as it comes, recorded once with the intents of its calls.

        `model` is given the context and yields text, `Thought`, `ToolCall` and `Usage`. If it raises, nothing is
        recorded and the error is yours; ask again, and readers see the new answer go on from the old one where they
        agree. What is said `inside` a call (an agent that is a tool) is no part of the conversation and not streamed.
        `label` tells the step from others where its name is another in each attempt: `prefix` goes by it.
        """
        with self._numbered(name) as key:
            record = await self._recorded(key)
            self._tools.offer(tools)
            if record is None:
                context = self.context
                with self._tools.work.under_way():
                    made = await self._speaker.speak(
                        lambda: parts(model(context)), key=key, through=context.through, inside=inside, label=label
                    )
                record = StepRecord(made, context.through)
        if inside is None:
            self.seen = record.through
        return Reply(record.items)

    async def perform(
        self, calls: Reply | Sequence[JsonObject], *, tools: Sequence[Tool | ToolFunction] = ()
    ) -> list[str]:
        """Carry out calls that a reply asked for, side by side, each according to its effect class; their outputs.

        Outputs on record are returned from there. If some of them wait for a human or for somebody outside, the turn
        parks here, holding nothing, and is run again when they are decided.
        """
        self._boundary()
        self._tools.offer(tools)
        asked = calls.calls if isinstance(calls, Reply) else calls
        return await self._tools.perform(asked)

    async def answer(self, call: JsonObject, output: Output) -> None:
        """Record the output of a call that a reply asked for and no tool is run for. Nothing was done, so nothing is
        undone. A call on record stays as it is.
        """
        self._boundary()
        await self._tools.answer(call, output)

    def offer(self, tools: Sequence[Tool | ToolFunction]) -> None:
        """Tools that calls may name: first of all, if the agent does not run from its beginning (for undoing them)."""
        self._tools.offer(tools)

    def answered(self, call_id: str) -> JsonObject | None:
        """The `function_call_output` item of a call of this turn: on record, or on its way there."""
        return copy.deepcopy(self._tools.output(call_id))

    async def call(self, tool: Tool | ToolFunction, **arguments: Json) -> str:
        """Call a tool by your own decision; recorded, keyed and shown to the model as if it had asked."""
        tool = as_tool(tool)
        with self._numbered(f"call:{tool.name}") as key:
            record = await self._recorded(key)
            self._tools.offer((tool,))
            if record is None:
                through = self._recorder.head
                asked = ToolCall(tool.name, arguments)
                made = await self._speaker.speak(lambda: one(asked), key=key, through=through)
                record = StepRecord(made, through)
        return (await self._tools.perform(record.items))[0]

    async def step(self, name: str, run: Callable[[], Awaitable[T]]) -> T:
        """Run a function once and record what it returned (JSON); after a crash its result comes from the record.

        A crash while it runs means that it may run again: put effects into tools.
        """
        with self._numbered(name) as key:
            record = await self._recorded(key)
            if record is None:
                with self._tools.work.under_way():
                    result: Json = msgspec.to_builtins(await run())
                item = items.step(name, result, item_id=self._speaker.new_id(items.STEP))
                await self._recorder.append([self._draft(ItemDone(item, step=key))])
                record = StepRecord((item,), self._recorder.head)
        return record.items[0]["output"]  # type: ignore[return-value]

    async def say(self, text: str) -> None:
        """Say a whole message, as one step."""
        with self._numbered("say") as key:
            if await self._recorded(key) is None:
                item = items.message(clean_text(text), item_id=self._speaker.new_id(items.MESSAGE))
                self._recorder.defer([self._draft(ItemDone(await self._speaker.kept(item), step=key))])

    async def emit(self, name: str, data: Json = None) -> None:
        """Show readers an event of your own; models do not see it."""
        with self._numbered("emit") as key:
            if await self._recorded(key) is None:
                item = items.custom(name, data, item_id=self._speaker.new_id(items.EVENT))
                await self._recorder.append([self._draft(ItemDone(item, step=key))])

    async def ask(self, question: str, *, within: timedelta | None = None) -> str:
        """Ask a human and park until somebody sends a `tool_result` for the action; the answer.

        With `within`, the answer is an error text once that time has passed.
        """
        with self._numbered("ask") as key:
            self._boundary()
            return await self._tools.ask(f"ask_{self.id[:8]}_{key[4:]}", question, within=within)

    async def summarize(self, text: str, *, through: int) -> None:
        """From here on show models `text` instead of the conversation up to event `through`, which must be past
        turns'.
        """
        with self._numbered("summarize") as key:
            if await self._recorded(key) is None:
                note = items.user_message(clean_text(text), item_id=self._speaker.new_id(items.MESSAGE))
                data = ContextSummarized(min(through, self.past), {**note, "role": "developer"}, key)
                await self._recorder.append([self._draft(data)])

    @property
    def past(self) -> int:
        """The last event before this turn."""
        return self._recorder.lease.turn - 1

    async def artifact(self, artifact: str) -> bytes:
        """The whole of a payload that the context shows only the beginning of."""
        pointer = parse_artifact(artifact)
        content = None
        if pointer is not None and pointer.session == self.session:
            content = await self._blobs.get(pointer.name(self.tenant))
        if content is None:
            raise DalsegnoError(f"no artifact {artifact} in this session")
        return content

    @property
    def signal(self) -> PlatformSignal | None:
        """Why the agent has to leave, if it has to: whatever it makes of the signal, this is how its run ends
        (law 6).
        """
        if self._recorder.lost:
            return LeaseLost()
        if self._recorder.parked:
            return Parked()
        if self._recorder.journal.undoing is not None:
            return TurnOver()
        return HandedOver() if self._handed_over else None

    @property
    def acting(self) -> bool:
        """Whether a tool is being run: whoever is to leave sees it through."""
        return bool(self._tools.under_way)

    async def _recorded(self, key: str) -> StepRecord | None:
        self._boundary()
        await self._recorder.settle()
        found = self._recorder.journal.steps.get(key)
        if found is None:
            await self._recorder.nothing_new()
        return found

    def _boundary(self) -> None:
        """Between two steps: the place where a turn may be taken away."""
        if self._recorder.lost:
            raise LeaseLost
        if self._recorder.parked:
            raise Parked
        if self._recorder.journal.cancelled and self._recorder.journal.undoing is None:
            raise asyncio.CancelledError
        if self._draining():
            self._handed_over = True
            raise HandedOver

    @contextmanager
    def _numbered(self, name: str) -> Iterator[str]:
        """The key of the next step of that name. One that fails gives its number back, and is tried again under it."""
        taken = self._numbers.setdefault(name, set())
        number = next(number for number in count(1) if number not in taken)
        taken.add(number)
        try:
            yield step_key(name, number)
        except BaseException:
            taken.discard(number)
            raise

    def _draft(self, data: ItemDone | ContextSummarized) -> Draft:
        return Draft(data, self._recorder.lease.turn)
