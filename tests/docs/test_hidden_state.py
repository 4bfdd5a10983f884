"""The how-to on hidden state: its first agent is caught with the words that it shows, its second one is clean."""

import shlex
from pathlib import Path

from tests.docs.pages import DOCS, blocks
from tests.ops.processes import run

PAGE = blocks(DOCS / "how-to" / "find-hidden-state.md")


async def test_the_page_shows_what_happens(tmp_path: Path):
    """The command as it stands there, on both agents."""
    dirty, clean = (next(block for block in PAGE if block.marker.startswith(kind)) for kind in ("file: ", "agent: "))
    command, shown = next(block for block in PAGE if block.kind == "console").text.strip().splitlines()
    words = shlex.split(command.removeprefix("$ dalsegno "))
    (tmp_path / "agent.py").write_text(dirty.text)
    done = await run(*words, cwd=tmp_path)
    assert done.code == 1 and shown in done.out and "agent.HISTORY" in done.out
    (tmp_path / "agent.py").write_text(clean.text)
    done = await run(*words, cwd=tmp_path)
    assert done.code == 0 and done.out.startswith("clean")
