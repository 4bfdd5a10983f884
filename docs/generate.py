"""Writes what the documentation takes from the code: the reference, and marked blocks in hand-written pages.

    python docs/generate.py            write everything
    python docs/generate.py --check    name what is stale, exit 1 if anything is

A block stands between `<!-- generated: NAME -->` and `<!-- end of generated -->` and belongs to this program.
"""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from generators import cli, decisions, errors, events, examples, explain, figures, http, limits, python, rooms, settings

DOCS = Path(__file__).resolve().parent
NOTICE = "<!-- Written by docs/generate.py from the code. Do not edit. -->\n\n"

PAGES: dict[str, Callable[[], str]] = {
    "reference/events.md": events.page,
    "reference/errors.md": errors.page,
    "reference/http.md": http.page,
    "reference/configuration.md": settings.page,
    "reference/cli.md": cli.page,
    "reference/python.md": python.page,
    "reference/limits.md": limits.page,
}

BLOCKS: dict[str, Callable[[], str]] = {
    "decisions": lambda: decisions.listed(DOCS / "decisions"),
    "rooms": lambda: rooms.picture(DOCS.parent / ".importlinter"),
    "figures": lambda: figures.summary(DOCS / "figures" / "brief.md"),
    "compared": lambda: figures.summary(DOCS / "figures" / "peers.md"),
    "hello": lambda: examples.saved(DOCS.parent / "examples" / "hello.py"),
    "openai-agent": lambda: examples.saved(DOCS.parent / "examples" / "openai_agent.py"),
    "openai-agents-agent": lambda: examples.saved(DOCS.parent / "examples" / "openai_agents_agent.py"),
    "langgraph-agent": lambda: examples.saved(DOCS.parent / "examples" / "langgraph_agent.py"),
    "pydantic-agent": lambda: examples.saved(DOCS.parent / "examples" / "pydantic_agent.py"),
    "anthropic-agent": lambda: examples.saved(DOCS.parent / "examples" / "anthropic_agent.py"),
    "turn-states": explain.turn_states,
    "crash-table": explain.crash_table,
    "ladder": explain.ladder_table,
    "cursor-example": explain.cursor_example,
    "takeover-carried": explain.takeover_carried,
    "takeover-diverged": explain.takeover_diverged,
    "takeover-lost": explain.takeover_lost,
}

_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end of generated -->)", re.DOTALL)


def wanted() -> Iterator[tuple[Path, str]]:
    """Every file that has generated text, with the text that it should have."""
    for name, make in PAGES.items():
        yield DOCS / name, NOTICE + make().rstrip() + "\n"
    for page in sorted({*DOCS.rglob("*.md"), DOCS.parent / "README.md"}):
        if page.relative_to(DOCS.parent).as_posix().removeprefix("docs/") not in PAGES and page.exists():
            text = page.read_text("utf-8")
            if "<!-- generated:" in text:
                yield page, _BLOCK.sub(lambda found: found[1] + BLOCKS[found[2]]().rstrip() + "\n" + found[3], text)


def main() -> int:
    """Write, or with `--check` compare; the exit code."""
    stale = [(path, text) for path, text in wanted() if not path.exists() or path.read_text("utf-8") != text]
    for path, text in stale:
        sys.stdout.write(f"stale: {path.relative_to(DOCS.parent)}\n")
        if "--check" not in sys.argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
