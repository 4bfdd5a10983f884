"""Agents that the documentation shows are agents: each is served, spoken to, and comes to rest."""

import pytest

from tests.docs.pages import Block, blocks, pages
from tests.runtime.fleet import fleet

AGENTS = [block for page in pages() for block in blocks(page) if block.marker.startswith("agent: ")]


@pytest.mark.parametrize("block", AGENTS, ids=lambda block: block.place)
async def test_every_agent_in_the_documentation_answers_a_message(block: Block) -> None:
    """As it stands on the page, it completes its turn or waits for a human; it never fails."""
    names: dict[str, object] = {"__name__": "shown"}
    exec(compile(block.text, block.place, "exec"), names)
    async with fleet(names[block.marker.removeprefix("agent: ")]) as replicas:
        turn = await replicas.ask(await replicas.session(), "hello")
    assert turn.error is None
    assert turn.status in ("completed", "waiting")
