"""Figures that `make bench` measured. Nothing here is a number of its own."""

from pathlib import Path

NONE_YET = "No run is recorded yet.\n"


def summary(file: Path) -> str:
    """The summary of the last recorded run, without its title."""
    if not file.exists():
        return NONE_YET
    lines = file.read_text("utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("# ")).strip() + "\n"
