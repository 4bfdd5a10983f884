"""A graph of LangGraph on real replicas: `dalsegno serve module:graph`, `kill -9`, and going on."""

from pathlib import Path
from typing import Any

import pytest

from dalsegno.testing.model import ModelServer, To, ToolCall
from tests.acceptance.relay import THEN, relay
from tests.acceptance.sizes import seconds

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(60))]


def script(shown: Any) -> Any:
    """Refunds and tells, a word a delta."""
    if not shown.results:
        return ["I do that now. ", ToolCall("refund", {"order": "A7"})] if "money" in shown.said else "You are welcome."
    return f"It is done: {shown.results[-1].partition(' with ')[0]}, as you wished."


async def test_an_unmodified_graph_survives_kill_9(tmp_path: Path):
    """The replica is killed in the middle of the last answer: a reader elsewhere sees it go on, the refund was made
    once, and the next turn's model is shown the conversation that the log has.
    """
    async with ModelServer(script) as model:
        hold = model.hold(4, to=To(round=1))
        answer, items = await relay(model, hold, target="langgraph_agent.py:graph", begins="It is", folder=tmp_path)
        assert answer == "It is done: refunded A7, as you wished."
        assert [shown.round for shown in model.log.shown] == [0, 1, 1, 0], "only the open step was asked for again"
        told = [message.text.strip() for message in model.log.shown[-1].messages]
        assert told == [*(text.strip() for text in map(words_of, items) if text is not None), THEN]
        (output,) = [item["output"] for item in items if item["type"] == "function_call_output"]
        assert output.startswith("refunded A7 with ")
    assert model.log.refusals == []


def words_of(item: Any) -> str | None:
    """What a model reads of an item; a call is part of the message before it."""
    if item["type"] == "function_call_output":
        return str(item["output"])
    return "".join(part["text"] for part in item["content"]) if item["type"] == "message" else None
