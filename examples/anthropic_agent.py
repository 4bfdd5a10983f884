"""Anthropic's own client inside a turn: `dalsegno serve examples/anthropic_agent.py:answer --replicas 3`."""

from anthropic import AsyncAnthropic

from dalsegno import Context, Continue, ToolCall, Turn, tool
from dalsegno.agents.providers import for_anthropic


@tool("read")
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"dry in {city}"


async def answer(turn: Turn) -> None:
    async def model(context: Context):
        asking = {"model": "claude-haiku-4-5", "max_tokens": 4096, "messages": for_anthropic(context.items)}
        if turn.prefix and not turn.prefix[-1].isspace():  # this model goes on from what a dead replica has shown
            asking["messages"].append({"role": "assistant", "content": turn.prefix})
            yield Continue()
        offered = [{"name": "weather", "input_schema": weather.tool.parameters}]
        async with AsyncAnthropic() as client, client.messages.stream(**asking, tools=offered) as events:
            async for text in events.text_stream:
                yield text
            for block in (await events.get_final_message()).content:
                if block.type == "tool_use":
                    yield ToolCall(block.name, block.input, block.id)

    while (reply := await turn.generate(model, tools=(weather,))).calls:
        await turn.perform(reply)
