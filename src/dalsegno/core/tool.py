"""What an agent can do to the world: a tool, one call of it, and the transaction that both may share.

Values, and the shape of one thing that a store gives to a tool. Nothing here runs.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol, TypeVar

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


class Tool(msgspec.Struct, frozen=True):
    """What an agent can do to the world, and what is known about doing it twice.

    1. `run` is given a `Call` with the arguments as the model wrote them; it validates them, and raises `BadArguments`.
    2. A `transactional` tool's call carries the transaction that its writes and its record share.
    3. A `read` tool with `cache_seconds` may be answered with what an identical call of the tenant came to within them.
    4. `gate="approval"`: a human is asked before each call. `gate="outside"`: somebody else carries it out.
    """

    name: str
    run: Callable[[Call], Awaitable[Json]]
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

    def __post_init__(self) -> None:
        """Raises `ConfigError`: an effect that is answered from a cache would not happen."""
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
