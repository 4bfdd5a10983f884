"""Pages and pictures of figures say what the record says."""

import json

from msgspec.structs import replace

from bench import report as figures
from bench.peers import report
from bench.report import FIGURES, Figure


def test_the_comparison_says_what_was_measured() -> None:
    """Nobody edits the tables or the picture: both follow from `peers.json`."""
    record = report.load()
    assert (FIGURES / "peers.md").read_text("utf-8") == report.page(record)
    assert (FIGURES / "peers.svg").read_text("utf-8") == report.picture(record)


def test_the_figures_say_what_was_measured() -> None:
    """The same for everything else that `make bench` measures: the pages and the picture follow from `figures.json`."""
    record = json.loads((FIGURES / "figures.json").read_text("utf-8"))
    for name, page in figures.pages(figures.load(), record).items():
        assert (FIGURES / name).read_text("utf-8") == page


def test_slower_disks_are_columns() -> None:
    """What was measured on other disks is told beside what it was on this one."""
    one = Figure("turn", 3.0, "ms", 1.0, 1.5, "raw", part="turns")
    page = figures.pages(
        [one, replace(one, value=1.2, slower=1.0)], {"made": "", "machine": "", "command": "", "sync_ms": 0.04}
    )
    assert "| turn | ≤ 1.5 | **3.00** | 1.20 |" in page["brief.md"]
