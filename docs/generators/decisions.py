"""The list of decisions, from the records themselves."""

import re
from pathlib import Path

from generators.markdown import table

TEMPLATE = "0000"
_TITLE = re.compile(r"^# ([0-9]{4})\.? (.+)$", re.MULTILINE)
_STATUS = re.compile(r"^- Status: (.+)$", re.MULTILINE)


def listed(folder: Path) -> str:
    """Every record but the template: number, decision, status."""
    rows = []
    for file in sorted(folder.glob("[0-9]*.md")):
        text = file.read_text("utf-8")
        title, status = _TITLE.search(text), _STATUS.search(text)
        if title is not None and title[1] != TEMPLATE:
            rows.append((f"[{title[1]}]({file.name})", title[2], status[1] if status is not None else "accepted"))
    return table(("", "decision", "status"), rows)
