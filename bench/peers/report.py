"""A comparison as a record, a page and a picture. The page and the picture are functions of the record."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from bench.peers.measure import Comparison, Row
from bench.peers.roster import LANGGRAPH, OURS, RAW
from bench.report import FIGURES, Figure

COMMAND = "make bench BENCH_ARGS='peers --save'"
BAR = 10.0
MANY = 64
GREEN, GREY, BLUE = "#2a9d5c", "#999999", "#5b7fa6"


def figures(comparison: Comparison) -> list[Figure]:
    """The one bar: whole conversations side by side, against LangGraph with its PostgreSQL checkpointer."""
    rows = {row.name: row for row in comparison.rows}
    if OURS.name not in rows or LANGGRAPH.name not in rows or MANY not in rows[OURS.name].rates:
        return []
    value, base = rows[OURS.name].rates[MANY], rows[LANGGRAPH.name].rates[MANY]
    name = f"{MANY} sessions in one process, PostgreSQL, answers streamed to their callers"
    return [Figure(name, value, "turns/s", base, BAR, "LangGraph with its PostgreSQL checkpointer", at_least=True)]


def save(comparison: Comparison, folder: Path = FIGURES) -> None:
    """`peers.json`, and what follows from it."""
    record = msgspec.json.format(msgspec.json.encode(comparison), indent=1)
    (folder / "peers.json").write_bytes(record + b"\n")
    (folder / "peers.md").write_text(page(comparison))
    (folder / "peers.svg").write_text(picture(comparison))


def load(folder: Path = FIGURES) -> Comparison:
    """The last record."""
    return msgspec.json.decode((folder / "peers.json").read_bytes(), type=Comparison)


def page(comparison: Comparison) -> str:
    """The tables, and what each of the compared does in a turn."""
    servers = ", ".join(f"{name} {version}" for name, version in comparison.servers.items())
    load = "" if comparison.load is None else f" (load average {comparison.load:.1f} when it began)"
    parts = [
        f"Measured on {comparison.made} by `{COMMAND}` on {comparison.machine}{load}, with {servers}. "
        "All in one run, in turn, by short windows. × is a multiple of raw PostgreSQL in the same run.",
        "### Latency of a turn, p50 in ms, by turn of the session",
        _latency(comparison),
        f"### Bytes stored, and turns a second of whole conversations of {comparison.sizes.conversation} turns",
        _cost(comparison),
        *_bar(comparison),
        f"### Two processes write to one session: {comparison.rows[0].writers.attempted} messages at once",
        _writers(comparison.rows),
        "### A process is killed between a tool's effect and its record",
        _crash(comparison.rows),
        "### What each does in a turn",
        "\n".join(f"- **{row.name}** ({_versions(row)}): {row.does}." for row in comparison.rows),
    ]
    return "\n\n".join(parts) + "\n"


def _latency(comparison: Comparison) -> str:
    raw = _raw(comparison)
    turns = list(comparison.rows[0].ms)
    rows = [
        (row.name, *(f"{row.ms[turn]:.2f} ({_times(row.ms[turn], raw.ms[turn] if raw else None)})" for turn in turns))
        for row in comparison.rows
    ]
    return _table(("", *(f"turn {turn}" for turn in turns)), rows)


def _cost(comparison: Comparison) -> str:
    raw = _raw(comparison)
    counts = list(comparison.rows[0].rates)
    rows = []
    for row in comparison.rows:
        stored = f"{row.bytes_per_turn:,.0f} ({row.bytes_per_turn / comparison.content_bytes:.1f} × content)"
        rates = (f"{row.rates[n]:,.0f} ({_times(row.rates[n], raw.rates[n] if raw else None)})" for n in counts)
        rows.append((row.name, stored, *rates))
    at = f"bytes a turn, {comparison.sizes.bytes_at} turns"
    return _table(("", at, *(f"{n} session{'s' * (n > 1)}, turns/s" for n in counts)), rows)


def _bar(comparison: Comparison) -> Iterable[str]:
    for figure in figures(comparison):
        held = "holds" if figure.holds else "**does not hold**"
        yield (
            f"{MANY} sessions: {OURS.name} does {figure.ratio:.1f} × the turns of {LANGGRAPH.name}. "
            f"The bar is {figure.bar:g} ×; it {held}."
        )


def _writers(rows: Sequence[Row]) -> str:
    heads = (
        "",
        "whole in the history",
        "of them not mixed with others",
        "refused with an error, nothing left",
        "error, and a part left",
        "reported as done, but lost or broken",
    )
    cells = []
    for row in rows:
        found = row.writers
        refused = f"{found.refused} ({', '.join(found.errors)})" if found.refused else "0"
        lost = f"**{found.lost}**" if found.lost else "0"
        cells.append((row.name, f"{found.whole}", f"{found.unmixed}", refused, f"{found.half}", lost))
    return _table(heads, cells)


def _crash(rows: Sequence[Row]) -> str:
    cells = []
    for row in rows:
        found = row.crash
        after = f"{found.seconds:.2f} s" if not found.by.startswith("by hand") else "–"
        effect = "once" if found.effects == 1 else f"{found.effects} times, under {_calls(found.calls)}"
        follows = "answered" if found.next_turn else "**fails**"
        seen = f"`{found.seen}`" if found.seen else "nothing"
        cells.append((row.name, found.by, after, seen, f"`{found.turn}`", effect, follows))
    heads = (
        "",
        "who goes on",
        "after",
        "seen of the turn by then",
        "the turn in the end",
        "the effect",
        "the next turn",
    )
    legend = (
        "u = the user's message, c = the call, r = its result, a = the answer; `ucra` is a whole turn. "
        "“After” counts from when the new process was ready."
    )
    return _table(heads, cells) + "\n\n" + legend


def _calls(calls: int) -> str:
    return "one call id" if calls == 1 else f"{calls} call ids"


def _versions(row: Row) -> str:
    return ", ".join(f"{name} {version}" for name, version in row.versions.items())


def _raw(comparison: Comparison) -> Row | None:
    return next((row for row in comparison.rows if row.name == RAW.name), None)


def _times(value: float, base: float | None) -> str:
    ratio = value / base if base else float("nan")
    return f"{ratio:.1f} ×" if ratio >= 1 else f"{ratio:.2f} ×"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|---|{'--:|' * (len(heads) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


# ------------------------------------------------------------------------------------------------ the picture


def picture(comparison: Comparison) -> str:
    """Three measures side by side, a bar for each of the compared. Plain SVG, readable on light and dark."""
    last, most = _turn(comparison), max(comparison.rows[0].rates)
    panels: list[tuple[str, Callable[[Row], float]]] = [
        (f"ms, turn {last}, p50 (less is better)", lambda row: row.ms[last]),
        ("KB stored a turn (less is better)", lambda row: row.bytes_per_turn / 1000),
        (f"turns/s, {most} sessions (more is better)", lambda row: row.rates[most]),
    ]
    line, left, width, gap = 26, 190, 150, 95
    height = 40 + line * len(comparison.rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + 3 * (width + gap)} {height}" '
        'font-family="sans-serif" font-size="12">'
        "<style>text{fill:#333}@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>"
    ]
    for place, row in enumerate(comparison.rows):
        name = row.name.replace("`", "")
        parts.append(f'<text x="{left - 8}" y="{49 + place * line}" text-anchor="end">{name}</text>')
    for number, (title, value) in enumerate(panels):
        x = left + number * (width + gap)
        parts.append(f'<text x="{x}" y="20">{title}</text>')
        top = max(map(value, comparison.rows)) or 1.0
        for place, row in enumerate(comparison.rows):
            y, length = 36 + place * line, max(1.0, width * value(row) / top)
            parts.append(f'<rect x="{x}" y="{y}" width="{length:.1f}" height="16" fill="{_colour(row)}" rx="2"/>')
            parts.append(f'<text x="{x + length + 5:.1f}" y="{y + 13}">{_short(value(row))}</text>')
    return "".join([*parts, "</svg>\n"])


def _turn(comparison: Comparison) -> int:
    """The turn that the picture shows: the hundredth, if it was measured."""
    turns = list(comparison.rows[0].ms)
    return 100 if 100 in turns else turns[-1]


def _colour(row: Row) -> str:
    if row.name.startswith("Dalsegno"):
        return GREEN
    return GREY if row.name.startswith("raw") else BLUE


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
