"""What an agent can do to the world: a tool, one call of it, and the transaction that both may share.

Values, and the shape of one thing that a store gives to a tool. Nothing here runs.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from dalsegno.core.append import Decide, Decision
from dalsegno.core.effect import Finding, UnknownPolicy
from dalsegno.core.event import EffectClass
from dalsegno.core.json import Json, JsonObject
from dalsegno.errors import ConfigError

R = TypeVar("R")


class Transaction(Protocol):
    """A tool's own transaction in the log's database."""

    async def execute(self, statement: str, parameters: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        """Run one statement and return its rows. Statements that would end the transaction are refused."""
        ...

    async def commit(self, decide: Decide[R]) -> Decision[R]:
        """Append to the session in this same transaction and commit both. Nothing can follow."""
        ...


class Call(msgspec.Struct, frozen=True):
    """One call of a tool. `key` is stable: forward it to whatever the tool changes, so that a repeat changes
    nothing.
    """

    id: str
    name: str
    arguments: JsonObject
    key: str
    session: str
    tenant: str
    turn: str
    transaction: Transaction | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The key as HTTP services expect it."""
        return {"Idempotency-Key": self.key}

    @property
    def meta(self) -> JsonObject:
        """The key as it goes out in the `_meta` of an MCP request."""
        return {"dalsegno.dev/idempotency-key": self.key}


class Output(msgspec.Struct, frozen=True):
    """What a tool may return to say more than a value: the text for the model, `details` that are kept with it on
    record, and whether the tool did what it was asked (`completed`) or says why not (`incomplete`; `refused`: nothing
    was done, and nothing has to be undone).
    """

    text: str
    details: JsonObject = {}
    status: Literal["completed", "incomplete", "refused"] = "completed"


class Undo(msgspec.Struct, frozen=True):
    """A call whose turn did not complete, to be undone: the call as it was made, and what is on record of it.

    `key` is stable, and not the call's: forward it to whatever undoes the call, since it may be sent again. `outcome`
    is `unknown` when the call failed, or its replica died over it: it may have happened or not. `output` is what the
    model was shown, of a large one its beginning; None if there was none.
    """

    call: Call
    key: str
    outcome: Literal["completed", "unknown"] = "completed"
    output: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The key as HTTP services expect it."""
        return {"Idempotency-Key": self.key}


class Tool(msgspec.Struct, frozen=True):
    """What an agent can do to the world, and what is known about doing it twice.

    1. `run` is given a `Call` with the arguments as the model wrote them; it validates them, and raises `BadArguments`.
       It returns a value, or an `Output`.
    2. A `transactional` tool's call carries the transaction that its writes and its record share.
    3. A `read` tool with `cache_seconds` may be answered with what an identical call of the tenant came to within them.
    4. `gate="approval"`: a human is asked before each call. `gate="outside"`: somebody else carries it out.
    5. With `compensate`, what a call did is undone when its turn fails or is cancelled: tried again while it raises,
       for `compensate_within_seconds`. That of a transactional tool has a transaction of its own: `call.transaction`.
    """

    name: str
    run: Callable[[Call], Awaitable[Json | Output]]
    description: str = ""
    parameters: JsonObject = msgspec.field(default_factory=lambda: {"type": "object", "properties": {}})
    effect: EffectClass = "once"
    unknown: UnknownPolicy = "tell"
    probe: Callable[[Call], Awaitable[Finding]] | None = None
    gate: Literal["none", "approval", "outside"] = "none"
    dedupe: Literal["never", "turn", "session"] = "never"
    timeout_seconds: float = 300.0
    answer_within_seconds: float | None = None
    cache_seconds: float | None = None
    compensate: Callable[[Undo], Awaitable[Json]] | None = None
    compensate_within_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Raises `ConfigError`: an effect that is answered from a cache would not happen, and what only reads has
        nothing to undo.
        """
        if self.compensate is not None and self.effect == "read":
            raise ConfigError(f"tool {self.name}: a tool of the class `read` has nothing to undo")
        if self.cache_seconds is not None and (self.effect != "read" or self.cache_seconds <= 0):
            raise ConfigError(
                f"tool {self.name}: `cache` is a time for which a tool of the class `read` need not run again"
            )

    @property
    def spec(self) -> JsonObject:
        """The tool as the Responses API describes functions to a model."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }


class ToolFunction(Protocol):
    """A function that is a tool, too: whoever takes tools takes it; called, it is the function it was."""

    tool: Tool
    spec: JsonObject

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """Call the function, a coroutine if it is async."""
        ...


def as_tool(tool: Tool | ToolFunction) -> Tool:
    """The tool, whichever way it was given."""
    return tool if isinstance(tool, Tool) else tool.tool
