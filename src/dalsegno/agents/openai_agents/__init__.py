"""OpenAI Agents SDK: an unmodified `Agent`, served with every promise (`dalsegno serve my_module:agent`)."""

from typing import Any

from agents import Agent

from dalsegno.agents.openai_agents.agent import OpenAIAgent
from dalsegno.agents.openai_agents.session import DalsegnoSession

__all__ = ["DalsegnoSession", "OpenAIAgent", "adapt"]


def adapt(found: Any, *, name: str) -> OpenAIAgent:
    """What a TARGET names, as an agent under that name. Raises `TypeError` for what is none."""
    if isinstance(found, Agent):
        found = OpenAIAgent(found)
    if not isinstance(found, OpenAIAgent):
        raise TypeError(f"a {type(found).__name__} is no Agent: an agents.Agent or an OpenAIAgent is served")
    return found.named(name)
