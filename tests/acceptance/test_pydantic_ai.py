"""Pydantic AI in real processes: replicas are killed in the middle of answers and of tools."""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dalsegno.client import Client
from dalsegno.testing.model import ModelServer, To, ToolCall, by_round, by_words
from tests.acceptance.conftest import Serving
from tests.acceptance.crowd import STUBBORN
from tests.support import wait_until

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(120)]

AGENT = '''
import asyncio, os, pathlib
from pydantic_ai import Agent
from dalsegno import current_call, tool

ledger = pathlib.Path(os.environ["LEDGER"])

async def held():
    while ledger.with_name("hold").exists():
        await asyncio.sleep(0.01)

def note(what):
    with ledger.open("a") as file:
        file.write(f"{what} {os.getpid()}\\n")

agent = Agent("openai-chat:gpt-5")

@agent.instructions
def who_asks() -> str:
    note("asked -")
    return "You sell."

@agent.tool_plain
@tool("keyed")
async def pay(cents: int) -> str:
    """Pay; the bank knows the key."""
    note(f"paying {current_call().key}")
    await held()
    note(f"paid {current_call().key}")
    return f"paid {cents}"

@agent.tool_plain
async def mail(to: str) -> str:
    """Write a letter, once."""
    note(f"mail {current_call().key}")
    await held()
    return f"wrote to {to}"
'''
ANSWER = "Paid and written, all of it, as you have asked me to."
SCRIPT = by_words(
    {"go": by_round(["Let me see about that.", ToolCall("pay", {"cents": 5}), ToolCall("mail", {"to": "Ada"})], ANSWER)}
)


async def test_p6_and_p7_hold_for_a_framework_under_kill_9(serving: Serving, tmp_path: Path) -> None:
    """P6: "A recorded model response or tool result is never asked for again." P7, by class. Once in the first answer,
    once while the tools run, once in the last answer.
    """
    (tmp_path / "shop.py").write_text(AGENT)
    ledger, tools = tmp_path / "effects", tmp_path / "hold"
    ledger.touch()

    def lines(kind: str) -> list[str]:
        return [line.split()[1] for line in ledger.read_text().splitlines() if line.startswith(f"{kind} ")]

    async with ModelServer(SCRIPT, ids="fresh") as model:
        fleet = serving(target=f"{tmp_path}/shop.py:agent", LEDGER=str(ledger), **model.environment)
        async with fleet, Client(fleet.urls, retry=STUBBORN) as client:
            session = await client.sessions.create()
            for place in ("first", "tools", "last"):
                before = (len(model.log.entries), Counter(lines("paid")), len(lines("mail")))
                if place == "tools":
                    tools.touch()
                hold = model.hold(at=4, to=To(said="go", round=0 if place == "first" else 1))
                receipt = await session.send("go")
                if place == "tools":
                    await wait_until(lambda: len(lines("mail")) > before[2], description="the tools to run")  # noqa: B023
                else:
                    await wait_until(lambda: hold.is_reached, description="the answer to be half told")  # noqa: B023
                owner = fleet.by_pid(int(ledger.read_text().split()[-1]))
                assert owner is not None
                await owner.kill()
                model.calm()
                tools.unlink(missing_ok=True)
                turn = await session.turn(receipt.turn, wait=timedelta(seconds=20))
                assert turn["status"] == "completed", turn
                assert texts(turn) == ["Let me see about that.", ANSWER]
                asked = Counter(shown.round for shown in model.log.shown[before[0] :] if shown.said == "go")
                assert asked == {0: 1 + (place == "first"), 1: 1 + (place == "last")}
                assert len(set(lines("paid")) - set(before[1])) == 1
                assert len(lines("mail")) <= before[2] + 1
                if place == "tools":
                    await owner.start()
            assert not model.log.refusals


def texts(turn: Any) -> list[str]:
    """What was said, but for what was broken off."""
    said = [item for item in turn["output"] if item["type"] == "message" and item["status"] == "completed"]
    return ["".join(part["text"] for part in item["content"]) for item in said]
