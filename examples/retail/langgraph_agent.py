"""The retail agent as a LangGraph graph.

dalsegno serve retail.langgraph_agent:agent --replicas 3
"""

import os

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from retail.tools import POLICY, TOOLS

model = ChatOpenAI(model=os.environ.get("RETAIL_MODEL", "gpt-5-mini"))
agent = create_agent(model, tools=[tool(each) for each in TOOLS], system_prompt=POLICY)
