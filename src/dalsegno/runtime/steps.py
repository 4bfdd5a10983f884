"""A model's step: what it says goes out as it comes and into the log once it is whole."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from dalsegno.core import item as items
from dalsegno.core import json
from dalsegno.core.append import Draft
from dalsegno.core.event import ItemDone, ToolIntent
from dalsegno.core.generation import Diverged, Generation
from dalsegno.core.ids import item_id
from dalsegno.core.json import JsonObject, clean_text
from dalsegno.core.part import Part, Thought, ToolCall, Usage, add_usage
from dalsegno.core.stream import Piece
from dalsegno.runtime.publisher import Publisher
from dalsegno.runtime.recorder import Recorder

Intent = Callable[[JsonObject], ToolIntent]


class Speaker:
    """Turns what a model says into published pieces and recorded items, for one turn."""

    def __init__(self, recorder: Recorder, publisher: Publisher, *, intent: Intent) -> None:
        self._recorder = recorder
        self._publisher = publisher
        self._intent = intent
        self.usage: dict[str, JsonObject | None] = {}
        """What the model calls of this attempt cost, by step; those on record before are in the journal."""
        self._open: Generation | None = None
        self._count = 0
        self._turn = recorder.turn

    def new_id(self, kind: str) -> str:
        """An id for one more item of this turn: no attempt ever made it before."""
        self._count += 1
        return item_id(self._turn, kind, f"{self._recorder.lease.epoch}_{self._count}")

    def adopt(self, base: int, pieces: Sequence[Piece]) -> None:
        """Go on from what a dead replica published of the open step."""
        self._open = Generation(turn=self._recorder.lease.turn, base=base, carried=pieces)

    async def speak(self, parts: AsyncGenerator[Part], *, key: str, through: int) -> tuple[JsonObject, ...]:
        """Carry one model call through: publish, then record its items and intents in one commit."""
        generation = self._open
        if generation is None:
            generation = self._open = Generation(turn=self._recorder.lease.turn, base=self._recorder.head)
        else:
            generation.retry()
        usage: JsonObject | None = None
        last, ids = "", set(self._recorder.journal.calls)
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, Usage):
                    usage = add_usage(usage, part.counts)
                    continue
                kind, text = _text_of(part)
                if kind != last or kind == items.CALL:
                    await self._publish(generation, generation.open(self._new(kind, part, ids)))
                    last = kind
                if text:
                    await self._publish(generation, generation.text(text))
        made = generation.finish()
        if isinstance(made, Diverged):
            await self._publish(generation, made)
            made = generation.finish()
            assert not isinstance(made, Diverged)
        await self._record(made, key=key, through=through, usage=usage)
        return made

    async def abandon(self) -> list[Draft]:
        """Drafts that close what was published and will not be finished."""
        generation, self._open = self._open, None
        await self._publisher.close()
        return [] if generation is None else self._incomplete(generation.abandon())

    async def _publish(self, generation: Generation, pieces: tuple[Piece, ...] | Diverged) -> None:
        if isinstance(pieces, Diverged):
            await self._publisher.close()
            # a cancel that arrives with the append must not close these items a second time
            self._open = None
            await self._recorder.append(self._incomplete(pieces.items))
            self._open = generation
            pieces = generation.restart(base=self._recorder.head)
        self._publisher.push(pieces)

    def _incomplete(self, closed: Sequence[JsonObject]) -> list[Draft]:
        return [Draft(ItemDone(item, streamed=True), self._recorder.lease.turn) for item in closed]

    async def _record(self, made: Sequence[JsonObject], *, key: str, through: int, usage: JsonObject | None) -> None:
        turn = self._recorder.lease.turn
        drafts = [Draft(ItemDone(item, step=key, streamed=True), turn) for item in made[1:]]
        if made:
            first = ItemDone(made[0], step=key, streamed=True, through=through, usage=usage)
            drafts.insert(0, Draft(first, turn))
        calls = [item for item in made if item["type"] == items.CALL]
        drafts += [Draft(self._intent(call), turn) for call in calls]
        if not made:
            nothing = items.step(key, None, item_id=self.new_id(items.STEP))
            drafts = [Draft(ItemDone(nothing, step=key, usage=usage, through=through), turn)]
        self._open = None
        self.usage[key] = usage
        if calls:
            await self._recorder.append(drafts)
        else:
            self._recorder.defer(drafts)
        await self._publisher.close()

    def _new(self, kind: str, part: Part, ids: set[str]) -> JsonObject:
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


def _text_of(part: str | Thought | ToolCall) -> tuple[str, str]:
    if isinstance(part, str):
        return items.MESSAGE, clean_text(part)
    if isinstance(part, Thought):
        return items.REASONING, clean_text(part.text)
    arguments = part.arguments if isinstance(part.arguments, str) else json.dumps(part.arguments).decode()
    return items.CALL, clean_text(arguments)
