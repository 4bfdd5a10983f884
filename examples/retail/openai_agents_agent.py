"""The retail agent on the OpenAI Agents SDK.

dalsegno serve retail.openai_agents_agent:agent --replicas 3
"""

import os

from agents import Agent, function_tool, set_default_openai_api

from dalsegno.agents.openai_agents import OpenAIAgent
from retail.tools import POLICY, TOOLS

if os.environ.get("RETAIL_API") == "chat":  # for servers that do not know the Responses API
    set_default_openai_api("chat_completions")

retail = Agent(
    name="retail",
    model=os.environ.get("RETAIL_MODEL", "gpt-5-mini"),
    instructions=POLICY,
    tools=[function_tool(tool) for tool in TOOLS],
)
agent = OpenAIAgent(retail, max_turns=40)  # the SDK gives up after ten; else `retail` could be served as it is
