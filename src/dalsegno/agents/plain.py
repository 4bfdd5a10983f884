"""A plain async function is an agent: it is given the turn, and what it does through the turn is durable."""

from collections.abc import Awaitable, Callable
from typing import Any


class FunctionAgent:
    """The reference adapter: calls the function with the turn and nothing else."""

    def __init__(self, function: Callable[[Any], Awaitable[object]], *, name: str = "default") -> None:
        self._function = function
        self._name = name

    @property
    def name(self) -> str:
        """The name that sessions ask for it by."""
        return self._name

    async def run(self, turn: Any) -> None:
        """Run the function to its end."""
        await self._function(turn)
