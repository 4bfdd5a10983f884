"""Figures as a table, a Markdown page and a picture. A figure is a value, what it is compared with, and its bar."""

import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

FIGURES = Path(__file__).parent.parent / "docs" / "figures"


class Figure(msgspec.Struct, frozen=True):
    """`value` in `unit`, as a ratio to `base` (`of` says what that is); `bar` is what the ratio may be at most.

    With `at_least` it is what the ratio must be at least.
    """

    name: str
    value: float
    unit: str
    base: float
    bar: float
    of: str
    at_least: bool = False

    @property
    def ratio(self) -> float:
        """The value as a multiple of what it is compared with."""
        return self.value / self.base

    @property
    def holds(self) -> bool:
        """Whether the bar is kept."""
        return self.ratio >= self.bar if self.at_least else self.ratio <= self.bar


def show(figures: Sequence[Figure]) -> None:
    """The table on the terminal."""
    table = Table("", "measured", "compared with", "ratio", "bar", "")
    for figure in figures:
        sign = "≥" if figure.at_least else "≤"
        table.add_row(
            figure.name,
            f"{figure.value:,.3g} {figure.unit}",
            f"{figure.base:,.3g} ({figure.of})",
            f"{figure.ratio:.2f}",
            f"{sign} {figure.bar:g}",
            "[green]holds[/]" if figure.holds else "[red]does not hold[/]",
        )
    Console().print(table)


def save(figures: Sequence[Figure]) -> None:
    """`docs/figures`: the numbers, the page that the README shows, the picture."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    known = FIGURES / "figures.json"
    before = {row["name"]: row for row in json.loads(known.read_text())["figures"]} if known.exists() else {}
    merged = before | {figure.name: msgspec.to_builtins(figure) for figure in figures}
    everything = [msgspec.convert(row, Figure) for row in merged.values()]
    machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    made = {"made": datetime.now(UTC).date().isoformat(), "machine": machine, "command": "make bench"}
    known.write_text(json.dumps({**made, "figures": list(merged.values())}, indent=1) + "\n")
    (FIGURES / "summary.md").write_text(_page(everything, made))
    (FIGURES / "summary.svg").write_text(_picture(everything))


def _page(figures: Sequence[Figure], made: dict[str, str]) -> str:
    lines = [
        f"Measured on {made['made']} by `{made['command']}` on {made['machine']}.",
        "",
        "| | measured | compared with | ratio | bar | |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for f in figures:
        sign = "≥" if f.at_least else "≤"
        verdict = "holds" if f.holds else "**does not hold**"
        compared = f"{f.base:,.3g} ({f.of}) | {f.ratio:.2f} | {sign} {f.bar:g}"
        lines.append(f"| {f.name} | {f.value:,.3g} {f.unit} | {compared} | {verdict} |")
    return "\n".join(lines) + "\n"


def _picture(figures: Sequence[Figure]) -> str:
    """Each ratio as a bar, with its limit as a line. Plain SVG, readable on light and dark."""
    row, left, width = 26, 400, 360
    height = row * len(figures) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 90} {height}" font-family="sans-serif" '
        'font-size="12"><style>text{fill:#333}@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>'
    ]
    for place, f in enumerate(figures):
        y = 10 + place * row
        top = max(f.ratio, f.bar) * 1.1
        length, limit = width * f.ratio / top, left + width * f.bar / top
        colour = "#2a9d5c" if f.holds else "#c0392b"
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{f.name}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="16" fill="{colour}" rx="2"/>')
        parts.append(
            f'<line x1="{limit:.1f}" x2="{limit:.1f}" y1="{y - 3}" y2="{y + 19}" stroke="#888" stroke-width="2"/>'
        )
        parts.append(f'<text x="{left + width + 8}" y="{y + 13}">{f.ratio:.2f} of {f.bar:g}</text>')
    return "".join([*parts, "</svg>\n"])


def fail(message: str) -> None:
    """Say why and stop."""
    print(message, file=sys.stderr)
    raise SystemExit(1)
