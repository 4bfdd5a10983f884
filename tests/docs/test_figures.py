"""Pages and pictures of figures say what the record says."""

from bench.peers import report
from bench.report import FIGURES


def test_the_comparison_says_what_was_measured() -> None:
    """Nobody edits the tables or the picture: both follow from `peers.json`."""
    record = report.load()
    assert (FIGURES / "peers.md").read_text("utf-8") == report.page(record)
    assert (FIGURES / "peers.svg").read_text("utf-8") == report.picture(record)
