"""OpenAI's own client inside a turn: `dalsegno serve examples/openai_agent.py:answer --replicas 3`."""

from openai import AsyncOpenAI

from dalsegno import Context, ToolCall, Turn, tool
from dalsegno.agents.providers import for_responses

client = AsyncOpenAI()  # by OPENAI_API_KEY and OPENAI_BASE_URL


@tool("read")
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"dry in {city}"


async def model(context: Context):
    asking = {"model": "gpt-5", "input": for_responses(context.items), "tools": [weather.spec], "store": False}
    async with client.responses.stream(**asking) as events:
        async for event in events:
            if event.type == "response.output_text.delta":
                yield event.delta
        for item in (await events.get_final_response()).output:
            if item.type == "function_call":
                yield ToolCall(item.name, item.arguments, item.call_id)


async def answer(turn: Turn) -> None:
    while (reply := await turn.generate(model, tools=(weather,))).calls:
        await turn.perform(reply)
