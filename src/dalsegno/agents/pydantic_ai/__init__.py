"""Pydantic AI: `dalsegno serve my_module:agent` takes an `Agent` as it is; `PydanticAgent` says more about it."""

from dalsegno.agents.pydantic_ai.agent import PydanticAgent, adapt

__all__ = ["PydanticAgent", "adapt"]
