"""The retail agent on Pydantic AI.

dalsegno serve retail.pydantic_agent:agent --replicas 3
"""

import os

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel

from retail.tools import POLICY, TOOLS

model = OpenAIChatModel(os.environ.get("RETAIL_MODEL", "gpt-5-mini"))
agent = Agent(model, instructions=POLICY, tools=TOOLS)
