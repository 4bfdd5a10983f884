"""Pydantic AI: `dalsegno serve examples/pydantic_agent.py:agent --replicas 3`."""

from pydantic_ai import Agent

from dalsegno import current_call, tool

agent = Agent("openai:gpt-5-mini", instructions="You answer for a shop.")


@agent.tool_plain
@tool("keyed")
async def refund(order: str) -> str:
    """Refund an order. The bank knows the key, and pays once."""
    return f"refunded {order} with {current_call().key}"
