"""LangGraph: compiled graphs as agents, and a checkpointer over our log. Needs `dalsegno[langgraph]`."""

from dalsegno.agents.langgraph.agent import LangGraphAgent, adapt
from dalsegno.agents.langgraph.seam import step
from dalsegno.agents.langgraph.store import Saver

__all__ = ["LangGraphAgent", "Saver", "adapt", "step"]
