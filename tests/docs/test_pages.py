"""Pages lead somewhere, and their Python is Python."""

import ast
import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, blocks, pages

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_documentation_leads_somewhere(page: Path) -> None:
    """The file exists, and has the heading if one is named."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in _LINK.findall(text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{target} is not there"
        if anchor and file.suffix == ".md":
            assert anchor in {_anchor(heading) for heading in _HEADING.findall(file.read_text("utf-8"))}, target


def test_every_page_can_be_reached_from_the_index() -> None:
    """A page that nothing links to is not read."""
    seen, left = set[Path](), [ROOT / "README.md", DOCS / "README.md"]
    while left:
        page = left.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = (target.partition("#")[0] for target in _LINK.findall(page.read_text("utf-8")))
        left += [(page.parent / name).resolve() for name in targets if name and "://" not in name]
    lost = {page for page in pages() if page not in seen and page.name != "0000-template.md"}
    assert not lost, f"no way leads to {sorted(str(page.relative_to(ROOT)) for page in lost)}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_block_is_python(page: Path) -> None:
    """Outside of the reference, whose blocks are signatures, whatever is shown as Python can be parsed."""
    if "reference" in page.parts:
        return
    for block in blocks(page):
        if block.kind == "python":
            try:
                compile(block.text, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
            except SyntaxError as error:
                pytest.fail(f"{block.place}: {error}")


def _anchor(heading: str) -> str:
    return "".join(char for char in heading.lower().replace(" ", "-") if char.isalnum() or char in "-_")
