"""An agent of the OpenAI Agents SDK on real replicas: `dalsegno serve module:agent`, `kill -9`, and going on."""

from pathlib import Path
from typing import Any

import pytest

from dalsegno.agents.openai_agents.items import to_input
from dalsegno.testing.model import ModelServer, To, ToolCall
from tests.acceptance.relay import relay
from tests.acceptance.sizes import seconds

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(seconds(60))]


def script(shown: Any) -> Any:
    """Triage hands over; billing refunds and tells, a word a delta."""
    if "Hand over" in shown.instructions:
        return ToolCall("transfer_to_billing")
    if not shown.results or "refunded" not in shown.results[-1]:
        return ["I do that now. ", ToolCall("refund", {"order": "A7"})]
    return f"Billing here, it is done: {shown.results[-1].partition(' with ')[0]}, as you wished."


async def test_an_unmodified_agent_survives_kill_9(tmp_path: Path):
    """The replica is killed in the middle of the last answer: a reader elsewhere sees it go on, the handoff holds, the
    refund was made once, and each context is what the log says.
    """
    async with ModelServer(script) as model:
        hold = model.hold(6, to=To(round=2))
        answer, items = await relay(
            model, hold, target="openai_agents_agent.py:agent", begins="Billing here", folder=tmp_path
        )
        assert answer == "Billing here, it is done: refunded A7, as you wished."
        rounds = [shown.round for shown in model.log.shown]
        assert rounds == [0, 1, 2, 2, 0, 1], "only the open step was asked for again"
        assert not model.log.shown[4].instructions, "the next turn goes on with whom the first was handed to"
        asked = [entry.request["input"] for entry in model.log.entries]
        assert asked[2] == asked[3] == to_input(items[:-1])
        outputs = [item["output"] for item in items if item["type"] == "function_call_output"]
        assert [output.partition(" with ")[0] for output in outputs] == ['{"assistant": "Billing"}', "refunded A7"]
    assert model.log.refusals == []
