"""Simulated worlds whose agents have time limits of their own, as frameworks do, and ask again for what took too long:
also while it is being recorded, and in the midst of all other trouble.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import pytest

from dalsegno.runtime.handle import Turn
from dalsegno.testing.world.world import run_seed
from tests.acceptance.sizes import size

WORLDS = size(30, 2_000)
PATIENT = 0.4
"""How often an agent waits for as long as it takes: otherwise its turn might never end."""
LIMITS_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.3)


def test_every_promise_holds_where_agents_are_impatient(monkeypatch: pytest.MonkeyPatch):
    """P6, P7: what came of a step or a call is on record, or it is done again; never both."""
    limits = list[float]()

    def impatient(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(method)
        async def again(turn: Turn, *given: Any, **named: Any) -> Any:
            while True:
                chance = random.Random(f"{turn.id}{turn.epoch}{asyncio.get_running_loop().time()}")
                limit = None if chance.random() < PATIENT else chance.choice(LIMITS_SECONDS)
                deadline = asyncio.timeout(limit)
                try:
                    async with deadline:
                        return await method(turn, *given, **named)
                except TimeoutError:
                    assert limit is not None and deadline.expired()
                    limits.append(limit)

        return again

    monkeypatch.setattr(Turn, "generate", impatient(Turn.generate))
    monkeypatch.setattr(Turn, "perform", impatient(Turn.perform))
    broken = [f"seed {seed}: {text}" for seed in range(WORLDS) for text in run_seed(seed).broken]
    assert not broken, "\n".join(broken[:30])
    assert len(limits) > WORLDS, "hardly any limit was reached"
