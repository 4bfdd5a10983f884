"""A model's step: what it says goes out as it comes and into the log once it is whole."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing

from dalsegno.core import item as items
from dalsegno.core import json
from dalsegno.core.append import Draft
from dalsegno.core.event import ItemDone, ToolIntent
from dalsegno.core.generation import Diverged, Generation
from dalsegno.core.ids import item_id
from dalsegno.core.json import JsonObject, clean_text
from dalsegno.core.part import Arguments, Continue, Detail, Part, Thought, ToolCall, Usage, add_usage
from dalsegno.core.step import StepRecord
from dalsegno.core.stream import Piece
from dalsegno.errors import DalsegnoError, TurnOver
from dalsegno.runtime.publisher import Publisher
from dalsegno.runtime.recorder import Recorder
from dalsegno.runtime.texts import Texts

Intent = Callable[[JsonObject], ToolIntent]
Model = Callable[[], AsyncGenerator[Part]]
BESIDE = (Usage, Detail, Continue)


class Speaker:
    """Turns what a model says into published pieces and recorded items, for one turn."""

    def __init__(self, recorder: Recorder, publisher: Publisher, *, intent: Intent, texts: Texts) -> None:
        self._recorder = recorder
        self._publisher = publisher
        self._intent = intent
        self._texts = texts
        self.usage: dict[str, JsonObject | None] = {}
        """What the model calls of this attempt cost, by step; those on record before are in the journal."""
        self._open: Generation | None = None
        self._speaking: asyncio.Task[object] | None = None
        self._count = 0
        self._taken: set[str] = set()
        self._turn = recorder.turn

    def new_id(self, kind: str) -> str:
        """An id for one more item of this turn: no attempt ever made it before."""
        self._count += 1
        return item_id(self._turn, kind, f"{self._recorder.lease.epoch}_{self._count}")

    async def kept(self, item: JsonObject) -> JsonObject:
        """The item as the log is to hold it: of a large text only the beginning, once the rest is put elsewhere."""
        return await self._texts.keep(item, self._recorder.lease)

    def adopt(self, base: int, pieces: Sequence[Piece]) -> None:
        """Go on from what a dead replica published of the open step."""
        self._open = Generation(turn=self._recorder.lease.turn, base=base, carried=pieces)

    async def speak(
        self, model: Model, *, key: str, through: int, inside: str | None = None, label: str | None = None
    ) -> tuple[JsonObject, ...]:
        """Carry one model call through: publish, then send its items and intents to the log, in one commit.

        One call at a time is streamed; what others say meanwhile, and what is said inside a call, is recorded whole,
        when it is done. `model` is called once `prefix` is that call's.
        """
        if self._speaking is not None or inside is not None:
            return await self._listen(model(), self._generation(), StepRecord((), through, inside=inside), key=key)
        self._speaking = asyncio.current_task()
        try:
            if self._open is None:
                await self._recorder.settle()  # what another has said meanwhile may wait to be recorded
                self._open = self._generation()
            generation = self._open
            generation.ask(label or key)
            return await self._listen(model(), generation, StepRecord((), through), key=key)
        finally:
            self._speaking = None

    def _generation(self) -> Generation:
        return Generation(turn=self._recorder.lease.turn, base=self._recorder.head)

    async def _listen(
        self, parts: AsyncGenerator[Part], generation: Generation, step: StepRecord, *, key: str
    ) -> tuple[JsonObject, ...]:
        beside, last, ids = _Beside(generation), "", set(self._recorder.journal.calls)
        shown = generation is self._open
        async with aclosing(parts):
            async for part in parts:
                self._go_on()
                if isinstance(part, BESIDE):
                    last = beside.note(part, last)
                    continue
                kind, text = _text_of(part)
                if kind != last or isinstance(part, ToolCall):
                    last, diverged = kind, generation.open(self._new(kind, part, ids))
                    if diverged is not None:
                        await self._close_shown(diverged, generation)
                if text:
                    diverged = generation.text(text)
                    if diverged is not None:
                        await self._close_shown(diverged, generation)
                if shown:
                    self._publisher.push(generation.news)
        finished = generation.finish()
        if isinstance(finished, Diverged):
            await self._close_shown(finished, generation)
            finished = generation.finish()
            assert not isinstance(finished, Diverged)
        finished = finished or (items.step(key, None, item_id=self.new_id(items.STEP)),)
        made = tuple(map(self._apart, beside.detailed(finished)))
        await self._record(StepRecord(made, step.through, beside.usage, step.inside), generation, key=key)
        return made

    @property
    def prefix(self) -> str:
        """The beginning of a message that readers have been shown, and that no log has yet; for its own model only."""
        mine = self._speaking is not None and self._speaking is asyncio.current_task()
        return self._open.prefix if self._open is not None and mine else ""

    def _apart(self, item: JsonObject) -> JsonObject:
        """A call under an id of its own: effects are told apart by it, and others may have taken it meanwhile."""
        if item["type"] != items.CALL:
            return item
        call_id = str(item["call_id"])
        if call_id in self._taken or call_id in self._recorder.journal.calls:
            call_id = f"call{str(item['id'])[2:]}"
        self._taken.add(call_id)
        return {**item, "call_id": call_id}

    async def abandon(self) -> list[Draft]:
        """Drafts that close what was published and will not be finished."""
        drafts, self._open = self.unfinished, None
        self._publisher.close()
        return drafts

    @property
    def unfinished(self) -> list[Draft]:
        """The same, as long as it may still be gone on with."""
        return [] if self._open is None else self._incomplete(self._open.abandon())

    def _go_on(self) -> None:
        """The end closes the open step: of one that the agent left behind nothing more is said, or recorded."""
        if self._recorder.closed and self._speaking is asyncio.current_task():
            raise TurnOver

    async def _close_shown(self, diverged: Diverged, generation: Generation) -> None:
        """What was shown is put on record as it is, and the step begins anew."""
        self._publisher.close()
        self._open = None
        await self._recorder.append(self._incomplete(diverged.items))
        self._go_on()
        self._open = generation
        generation.restart(base=self._recorder.head)

    def _incomplete(self, closed: Sequence[JsonObject]) -> list[Draft]:
        return [Draft(ItemDone(item, streamed=True), self._recorder.lease.turn) for item in closed]

    async def _record(self, step: StepRecord, generation: Generation, *, key: str) -> None:
        turn = self._recorder.lease.turn
        streamed = generation is self._open and generation.made > 0
        within = step.inside
        kept = [await self.kept(item) if within is None else items.inside(within, item) for item in step.items]
        self._go_on()
        first = ItemDone(kept[0], step=key, streamed=streamed, through=step.through, usage=step.usage)
        drafts = [Draft(first, turn)]
        drafts += [Draft(ItemDone(item, step=key, streamed=streamed), turn) for item in kept[1:]]
        calls = [item for item in step.items if item["type"] == items.CALL]
        drafts += [Draft(self._intent(call), turn) for call in calls]
        if generation is self._open:
            # a cancel that arrives with the append must not close these items a second time
            self._open = None
        self.usage[key] = step.usage
        if streamed:
            self._publisher.hold()
        if calls:
            await self._recorder.begin(drafts)
        else:
            self._recorder.defer(drafts)
        if streamed:
            self._publisher.close()

    def _new(self, kind: str, part: Part, ids: set[str]) -> JsonObject:
        if isinstance(part, Arguments):
            raise DalsegnoError("Arguments() go on with the call before them, and there is none")
        item_id = self.new_id(kind)
        if isinstance(part, ToolCall):
            call_id = clean_text(part.id)
            if not call_id or call_id in ids:
                call_id = f"call{item_id[2:]}"
            ids.add(call_id)
            return items.opened(items.call(call_id, clean_text(part.name), "", item_id=item_id))
        if kind == items.REASONING:
            return items.opened(items.reasoning("", item_id=item_id))
        return items.opened(items.message("", item_id=item_id))


class _Beside:
    """What a model's answer comes with, and readers are not shown as it comes."""

    def __init__(self, generation: Generation) -> None:
        self.usage: JsonObject | None = None
        self._generation = generation
        self._details: dict[int, JsonObject] = {}

    def note(self, part: Usage | Detail | Continue, last: str) -> str:
        """The kind of item that text which follows goes on with, `last` before; empty = it opens one of its own."""
        if isinstance(part, Usage):
            self.usage = add_usage(self.usage, part.counts)
            return last
        if isinstance(part, Detail):
            place = max(self._generation.made, 1) - 1
            self._details[place] = {**self._details.get(place, {}), **part.data}
            return ""
        if not self._generation.go_on():
            raise DalsegnoError("Continue() goes on from turn.prefix, and there is none")
        return items.MESSAGE

    def detailed(self, made: Sequence[JsonObject]) -> Iterator[JsonObject]:
        """The items, each with its details."""
        return (items.detailed(item, self._details.get(place, {})) for place, item in enumerate(made))


def _text_of(part: str | Thought | ToolCall | Arguments) -> tuple[str, str]:
    if isinstance(part, str):
        return items.MESSAGE, clean_text(part)
    if isinstance(part, Thought):
        return items.REASONING, clean_text(part.text)
    if isinstance(part, Arguments):
        return items.CALL, clean_text(part.text)
    arguments = part.arguments if isinstance(part.arguments, str) else json.dumps(part.arguments).decode()
    return items.CALL, clean_text(arguments)
