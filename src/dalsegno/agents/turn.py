"""What adapters ask of a turn. `runtime.handle.Turn` is one; its docstrings say what each does."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Protocol, TypeVar

from dalsegno.core.context import Context
from dalsegno.core.event import Event
from dalsegno.core.json import Json, JsonObject
from dalsegno.core.part import Part
from dalsegno.ports import Output, Tool, ToolFunction

T = TypeVar("T")
Said = AsyncGenerator[Part] | AsyncIterator[Part] | Awaitable[Part | Sequence[Part]]


class Reply(Protocol):
    """What a model answered."""

    @property
    def items(self) -> tuple[JsonObject, ...]:
        """The items on record, in order."""
        ...

    @property
    def text(self) -> str:
        """The text of its messages."""
        ...

    @property
    def calls(self) -> tuple[JsonObject, ...]:
        """The `function_call` items."""
        ...


class Notes(Protocol):
    """What an adapter keeps in the log for itself."""

    @property
    def hidden(self) -> Sequence[int]:
        """The first events of the turns that were rolled back."""
        ...

    def keep(self, item: JsonObject) -> None:
        """Record an item of a type of our own with the next commit."""
        ...

    async def settle(self) -> None:
        """Everything that was kept is on record now."""
        ...

    async def read(self, *, after: int, limit: int) -> Sequence[Event]:
        """Events of the session, as they are in the log."""
        ...

    def go_ahead(self) -> None:
        """The agent goes on while its records are on their way."""
        ...

    async def asked(self, call_id: str) -> JsonObject | None:
        """The item on record for a call of this turn, once what is being written is there."""
        ...

    def steps(self, prefix: str) -> list[str]:
        """The names of this turn's steps on record that begin so, in the order of the log."""
        ...


class Turn(Protocol):
    """The turn as an adapter sees it."""

    id: str
    session: str
    tenant: str
    user: str | None
    metadata: JsonObject
    attempt: int

    @property
    def notes(self) -> Notes:
        """What the adapter keeps for itself."""
        ...

    @property
    def context(self) -> Context:
        """What a model is to be shown now."""
        ...

    @property
    def opening(self) -> Context:
        """The context that the turn began with."""
        ...

    @property
    def text(self) -> str:
        """The text of the turn's message."""
        ...

    @property
    def past(self) -> int:
        """The last event before this turn."""
        ...

    @property
    def prefix(self) -> str:
        """The beginning of an answer that readers were shown and no log has."""
        ...

    async def generate(
        self,
        model: Callable[[Context], Said],
        *,
        tools: Sequence[Tool | ToolFunction] = (),
        name: str = "model",
        inside: str | None = None,
        label: str | None = None,
    ) -> Reply:
        """One model call as a step; `inside` a call, it is no part of the conversation. `label` tells it from others in
        every attempt, if its name does not.
        """
        ...

    async def perform(self, calls: Sequence[JsonObject], *, tools: Sequence[Tool | ToolFunction] = ()) -> list[str]:
        """Carry out calls on record, each according to its effect class; their outputs."""
        ...

    async def answer(self, call: JsonObject, output: Output) -> None:
        """Record the output of a call on record that nobody carries out. One that has an output keeps it."""
        ...

    def offer(self, tools: Sequence[Tool | ToolFunction]) -> None:
        """Tools that calls of this turn may name: first of all, if the agent does not run from its beginning."""
        ...

    def answered(self, call_id: str) -> JsonObject | None:
        """The output of a call of this turn: on record, or on its way there."""
        ...

    async def step(self, name: str, run: Callable[[], Awaitable[T]]) -> T:
        """Run a function once and record what it returned."""
        ...

    async def say(self, text: str) -> None:
        """Say a whole message."""
        ...

    async def emit(self, name: str, data: Json = None) -> None:
        """Show readers an event of the agent's own."""
        ...

    async def ask(self, question: str, *, within: timedelta | None = None) -> str:
        """Ask a human; parks until there is an answer."""
        ...
