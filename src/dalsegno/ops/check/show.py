"""The report for people. Colour only on a terminal."""

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dalsegno.ops.check.advice import CAUSES, HELD, TROUBLES
from dalsegno.ops.check.report import RUNNING, Compared, Held, Report, Trouble
from dalsegno.ops.screen import visible

DIFF = {"+": "green", "-": "red", "@": "cyan"}


def page(report: Report, *, target: str) -> RenderableType:
    """All of it."""
    return Group(*_page(report, target))


def _page(report: Report, target: str) -> Iterator[RenderableType]:
    explained: set[str] = set()
    for trouble in report.troubles:
        yield from _trouble(trouble)
        if trouble.kind not in explained:
            yield _line("matters", TROUBLES[trouble.kind].why)
            yield _line("instead", TROUBLES[trouble.kind].instead)
        explained.add(trouble.kind)
        yield Text()
    if any(trouble.kind not in (*RUNNING, "nothing") for trouble in report.troubles) and report.held:
        yield Text("What the process kept", style="bold")
        yield _held(report.held)
        for kind in sorted({one.kind for one in report.held}):
            yield _line("instead", f"{kind}: {HELD[kind]}")
        yield Text()
    for note in report.notes:
        yield Text.assemble(("note  ", "dim"), visible(note))
    if report.notes:
        yield Text()
    yield _summary(report, target)


def _trouble(trouble: Trouble) -> Iterator[RenderableType]:
    advice = TROUBLES[trouble.kind]
    name = f": {visible(trouble.name)}" if trouble.name else ""
    yield Text.assemble((f"turn {trouble.turn} ", "bold red"), (f"{advice.what}{name}", "bold"))
    if trouble.words:
        yield _line("", visible(trouble.words))
    if trouble.at:
        yield _line("at", visible(trouble.at))
    if trouble.diff:
        for line in ("--- in one process", "+++ in fresh processes", *trouble.diff):
            yield Text(f"      {visible(line)}", style=DIFF.get(line[:1], "dim"))
    if trouble.also:
        yield _line("also", visible(", ".join(trouble.also)))
    if trouble.kind not in (*RUNNING, "nothing", "unseen"):
        yield _line("because", CAUSES[trouble.cause])


def _held(held: tuple[Held, ...]) -> Table:
    table = Table("kept", "what", "before", "after", "turns", "where", box=box.SIMPLE_HEAD)
    for one in held:
        turns = ", ".join(map(str, one.turns))
        read = f" (read again in turn {', '.join(map(str, one.read))})" if one.read else ""
        table.add_row(
            *(Text(str(visible(cell))) for cell in (one.kind, one.name, one.before, one.after, turns, one.where + read))
        )
    return table


def _summary(report: Report, target: str) -> Text:
    verdict = ("clean ", "bold green") if report.clean else (f"{len(report.troubles)} found ", "bold red")
    return Text.assemble(verdict, (f"{target}: {_compared(report.compared)}", ""))


def _compared(compared: Compared) -> str:
    sent = f", {compared.requests} requests" if compared.requests else ""
    fresh = compared.processes - 3
    return (
        f"{_count(compared.turns, 'turn')} in one process, twice more in one, and in {_count(fresh, 'fresh one')}; "
        f"compared {_count(compared.contexts, 'context')}, {_count(compared.outputs, 'output')}, "
        f"{_count(compared.calls, 'tool call')}{sent}"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _line(name: str, words: str) -> Text:
    return Text.assemble((f"  {name:<8}", "dim"), words)
