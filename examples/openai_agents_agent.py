"""OpenAI Agents SDK: `dalsegno serve examples/openai_agents_agent.py:agent --replicas 3`."""

from agents import Agent, function_tool

from dalsegno import current_call, tool


@function_tool
@tool("keyed")
async def refund(order: str) -> str:
    """Refund an order. The bank knows the key, and pays once."""
    return f"refunded {order} with {current_call().key}"


agent = Agent("Triage", instructions="Hand over who wants money.", handoffs=[Agent("Billing", tools=[refund])])
