"""LangGraph: `dalsegno serve examples/langgraph_agent.py:graph --replicas 3`."""

from langchain.agents import create_agent
from langchain_core.tools import tool

import dalsegno


@tool
@dalsegno.tool("keyed")
async def refund(order: str) -> str:
    """Refund an order. The bank knows the key, and pays once."""
    return f"refunded {order} with {dalsegno.current_call().key}"


graph = create_agent("openai:gpt-5", [refund], system_prompt="Refund what the customer asks for.")
