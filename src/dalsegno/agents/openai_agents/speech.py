"""A model's stream of events → the parts that a turn streams and records. Pure.

The provider's items come one after another, as they are in its answer. Text and reasoning go on as they arrive; what
else belongs to an item follows once it is done. Items without a shape of ours (a web search, a call of a hosted tool)
are kept with their neighbours.
"""

from collections.abc import Callable, Iterator, Sequence

from dalsegno.agents.openai_agents.items import KEY, Raw, plain, stripped, texts_of
from dalsegno.core.item import CALL, MESSAGE, REASONING
from dalsegno.core.part import Arguments, Detail, Part, Thought, ToolCall

DELTAS: dict[str, Callable[[str], Part]] = {
    "response.output_text.delta": str,
    "response.refusal.delta": str,
    "response.reasoning_summary_text.delta": Thought,
    "response.reasoning_text.delta": Thought,
    "response.function_call_arguments.delta": Arguments,
}
"""The events that bring a piece of an item, and what it is a piece of."""
PARTS: dict[str, Callable[[str], Part]] = {MESSAGE: str, REASONING: Thought, CALL: Arguments}
"""The items that have a shape of ours."""


class Speech:
    """One answer. Give it what the provider says; `hear` and `end` return the parts to speak."""

    def __init__(self, *, prefix: str = "") -> None:
        self._prefix = prefix
        """The beginning of the first message, which was shown before and is not said again."""
        self._said = [prefix]
        self._begun = bool(prefix)
        self._calling = False
        self._next = 0
        self._done: dict[int, Raw] = {}
        self._before: list[Raw] = []
        self._pending: Raw | None = None

    def added(self, place: int, item: object) -> Iterator[Part]:
        """An item begins. Of a call it is known by then which."""
        raw = plain(item)
        if place == self._next and raw.get("type") == CALL and raw.get("name") and raw.get("call_id"):
            yield from self._begin()
            self._calling = True
            yield ToolCall(str(raw["name"]), "", id=str(raw["call_id"]))

    def hear(self, kind: str, place: int, delta: str) -> tuple[Part, ...]:
        """A piece of the item at that place of the answer. What comes out of order waits until its item is done."""
        part = DELTAS[kind]
        if place != self._next or not delta or (part is Arguments and not self._calling):
            return ()
        self._said.append(delta)
        return (part(delta),) if self._begun else (*self._begin(), part(delta))

    def done(self, place: int, item: object) -> Iterator[Part]:
        """An item is whole."""
        self._done[place] = plain(item)
        while self._next in self._done:
            yield from self._item(self._done[self._next])

    def end(self, output: Sequence[object], more: Raw) -> Iterator[Part]:
        """The answer is whole; `more` is kept with it."""
        whole = {place: plain(item) for place, item in enumerate(output)} | self._done
        for place in sorted(whole):
            if place >= self._next:
                yield from self._item(whole[place])
        if self._pending is None:
            yield ""  # nothing that readers could be shown: an empty message to keep the rest with
            self._pending = {}
        if self._before:
            self._pending["after"], self._before = self._before, []
        self._pending.update(more)
        yield from self._settle()

    def _begin(self) -> Iterator[Part]:
        """Before the first piece of an item: the one before it is closed."""
        if not self._begun:
            self._begun = True
            yield from self._settle()

    def _settle(self) -> Iterator[Part]:
        if self._pending is not None:
            yield Detail({KEY: self._pending})
            self._pending = None

    def _item(self, raw: Raw) -> Iterator[Part]:
        self._next += 1
        kind = raw.get("type")
        if kind not in PARTS:
            self._before.append(raw)
            return
        yield from self._begin()
        if self._prefix and kind == MESSAGE:
            raw, self._prefix = _prefixed(raw, self._prefix), ""
        if kind == CALL and not self._calling:
            yield ToolCall(str(raw["name"]), "", id=str(raw["call_id"]))
        text, said = "".join(texts_of(raw)), "".join(self._said)
        as_heard = text.startswith(said)
        rest = text[len(said) :] if as_heard else ""
        if rest or not (said or kind == CALL):
            yield PARTS[str(kind)](rest)
        self._pending = {"item": stripped(raw) if as_heard or kind == CALL else raw}
        if self._before:
            self._pending["before"], self._before = self._before, []
        self._begun, self._calling, self._said = False, False, []


def _prefixed(raw: Raw, prefix: str) -> Raw:
    """The provider's message with the beginning that it was given."""
    parts = [dict(part) for part in raw.get("content") or ()] or [
        {"type": "output_text", "text": "", "annotations": []}
    ]
    parts[0]["text"] = prefix + str(parts[0].get("text") or "")
    return {**raw, "content": parts}
