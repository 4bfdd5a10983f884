"""Figures as a table, a Markdown page and a picture. A figure is a value, what it is compared with, and its bar."""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
RECORD = FIGURES / "figures.json"
TITLES = {
    "turns": "SQLite",
    "postgres": "PostgreSQL",
    "frameworks": "Under a framework",
    "open": "Opening a session",
    "stack": "Over HTTP; PostgreSQL and Redis",
    "streams": "Streams",
    "takeover": "Take-over",
    "start": "Start",
    "peers": "Against others",
    "disk": "On slower disks",
}
HEADLINES = (
    "turn 500 against turn 10, SQLite, p50",
    "bytes in the database per turn, 500 turns",
    "3 replica processes, the same work",
    "open a session of 100,000 events in a fresh process, p99",
    "SSE, 500 streams × 10 pieces/s: delivered in time",
    "take-over after kill -9, 100 kills, p50",
    "take-over after kill -9, 100 kills, p99",
    "replica: start to ready",
    "replica: resident memory when ready",
    "over HTTP, turn 10 with one tool, POST until its end, PostgreSQL and Redis, p50",
)
"""What of the figures whose bars hold is in the README."""


class Figure(msgspec.Struct, frozen=True):
    """`value` in `unit`, as a ratio to `base` (`of` says what that is); `bar` is what the ratio may be at most.

    With `at_least` it is what the ratio must be at least. `part` is the part of the benchmark that measured it,
    `slower` by how many milliseconds a sync of the disk was made slower for it.
    """

    name: str
    value: float
    unit: str
    base: float
    bar: float
    of: str
    at_least: bool = False
    part: str = ""
    slower: float = 0

    @property
    def title(self) -> str:
        """The name, and on which disk."""
        return f"{self.name}; syncs {self.slower:g} ms slower" if self.slower else self.name

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
            figure.title,
            f"{_number(figure.value)} {figure.unit}",
            f"{_number(figure.base)} ({figure.of})",
            f"{figure.ratio:.2f}",
            f"{sign} {figure.bar:g}",
            "[green]holds[/]" if figure.holds else "[red]does not hold[/]",
        )
    Console().print(table)


def save(figures: Sequence[Figure]) -> None:
    """`docs/figures`: the numbers, the page of all of them, the short one that the README shows, the picture."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    parts = {figure.part for figure in figures}
    merged = [figure for figure in load() if figure.part not in parts] + list(figures)
    merged.sort(key=lambda figure: list(TITLES).index(figure.part))
    machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    made = {
        "made": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "command": "make bench",
        "sync_ms": _sync_ms(),
    }
    record = {**made, "figures": [msgspec.to_builtins(figure) for figure in merged]}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    for name, page in pages(merged, made).items():
        (FIGURES / name).write_text(page)


def load() -> list[Figure]:
    """The figures on record."""
    return msgspec.convert(json.loads(RECORD.read_text())["figures"], list[Figure]) if RECORD.exists() else []


def pages(figures: Sequence[Figure], made: Mapping[str, Any]) -> dict[str, str]:
    """What is written of the figures, by the file's name."""
    when = f"Measured on {made['made']} by `{made['command']}` on {made['machine']}."
    here = [figure for figure in figures if not figure.slower]
    parts = {part: [figure for figure in here if figure.part == part] for part in dict.fromkeys(f.part for f in here)}
    sections = [f"## {TITLES.get(part, part)}\n\n{_table(those)}" for part, those in parts.items()]
    broken = [figure for figure in here if not figure.holds]
    counted = f"{len(here) - len(broken)} of {len(here)} bars hold. These do not:\n\n{_table(broken)}"
    headlines = [figure for figure in here if figure.holds and figure.name in HEADLINES]
    slower = "## On slower disks\n\n" + _by_disk(figures, made["sync_ms"])
    return {
        "summary.md": "\n".join(["# Figures\n", f"{when}\n", *sections, slower]),
        "brief.md": f"{when} {counted}\nOf the others:\n\n{_table(headlines)}\n{_by_disk(figures, made['sync_ms'])}",
        "summary.svg": _picture(here),
    }


def _table(figures: Sequence[Figure]) -> str:
    lines = ["| | measured | compared with | ratio | bar | |", "|---|--:|--:|--:|--:|---|"]
    for f in figures:
        sign = "≥" if f.at_least else "≤"
        verdict = "holds" if f.holds else "**does not hold**"
        compared = f"{_number(f.base)} ({f.of}) | {f.ratio:.2f} | {sign} {f.bar:g}"
        lines.append(f"| {f.title} | {_number(f.value)} {f.unit} | {compared} | {verdict} |")
    return "\n".join(lines) + "\n"


def _by_disk(figures: Sequence[Figure], sync_ms: float) -> str:
    """The ratios that depend on what a sync of the disk costs, disk by disk."""
    disks = sorted({f.slower for f in figures})
    rows = {f.name: {g.slower: g for g in figures if g.name == f.name} for f in figures if f.slower}
    lines = [
        "What Python adds to a turn is the same on every disk, so a ratio to raw commits depends on what a sync costs. "
        f"The disk of the run acknowledges one in {sync_ms:.2g} ms. Each row again, with every sync made slower, for "
        "the raw commits alike (bold: does not hold):\n",
        "| ratio | bar | as it is | " + " | ".join(f"+ {disk:g} ms" for disk in disks if disk) + " |",
        "|---|--:|" + "--:|" * len(disks),
    ]
    for name, found in rows.items():
        sign = "≥" if found[max(found)].at_least else "≤"
        ratios = [f"{f.ratio:.2f}" if f.holds else f"**{f.ratio:.2f}**" for f in map(found.get, disks) if f]
        lines.append(f"| {name} | {sign} {found[max(found)].bar:g} | " + " | ".join(ratios) + " |")
    return "\n".join(lines) + "\n"


def _sync_ms() -> float:
    """What a sync of some bytes costs where the benchmarks write, in the middle."""
    with tempfile.TemporaryFile() as file:
        seconds = []
        for _ in range(300):
            file.write(b"x" * 4096)
            file.flush()
            begin = time.perf_counter()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - begin)
    return 1000 * statistics.median(seconds)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


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
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{f.title}</text>')
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
