"""What the audience sees: words as they arrive, who says them, blows and take-overs, and the table at the end.

Without a terminal the same lines come without colour.
"""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dalsegno.ops.demo.verdict import PROMISED_MS, Verdict
from dalsegno.ops.lifeline import Ready


class Stage:
    """Prints. Keeps whether a line is open, and what is to be said when it is closed."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._open = False
        self._held: list[str] = []

    def line(self, *parts: str | tuple[str, str]) -> None:
        """A line of its own."""
        if self._open:
            self._console.print()
            self._open = False
            self.release()
        self._console.print(Text.assemble(*parts))

    def plain(self, text: str) -> None:
        """Text to be copied: printed as it is."""
        self.line()
        self._console.print(Text(text))

    def heading(self, text: str) -> None:
        """What comes next."""
        self.line()
        self.line((text, "bold"))

    def ready(self, ready: Ready) -> None:
        """A replica serves. Said between sentences."""
        self._held.append(str(ready))
        if not self._open:
            self.release()

    def release(self) -> None:
        """Say what was held back."""
        held, self._held = self._held, []
        for text in held:
            self.line(text)

    def user(self, text: str) -> None:
        """What the user says."""
        self.line(("you    ", "bold cyan"), text)

    def speaker(self, name: str) -> None:
        """Who speaks from here on."""
        self.line()
        self._console.print(Text(f"{name:<6} ", style="bold green"), end="")
        self._open = True

    def word(self, text: str) -> None:
        """A piece of what is said, as it arrives."""
        self._console.print(Text(text), end="")
        self._console.file.flush()
        self._open = True

    def note(self, text: str) -> None:
        """Something that happens in between."""
        self.line((f"       {text}", "dim"))

    def blow(self, text: str) -> None:
        """Violence."""
        self.line((f"  ✂    {text}", "bold red"))

    def rescue(self, text: str) -> None:
        """Somebody else goes on."""
        self.line((f"  𝄋    {text}", "bold green"))

    def table(self, verdict: Verdict) -> None:
        """The figures, each with what it had to be."""
        table = Table("observed", "", "promised", "", box=box.SIMPLE_HEAD)
        rows: Sequence[tuple[str, str, str, bool]] = (
            ("replicas killed while answering", str(verdict.kills), "", True),
            ("take-over ms", _list(verdict.takeovers_ms), f"≤ {PROMISED_MS}", verdict.in_time),
            ("messages lost", str(verdict.lost), "0", verdict.lost == 0),
            ("effects doubled", str(verdict.doubled), "0", verdict.doubled == 0),
            ("effects missing", str(verdict.missing), "0", verdict.missing == 0),
            ("stream gaps", str(verdict.gaps), "0", verdict.gaps == 0),
        )
        for name, figure, promised, holds in rows:
            table.add_row(
                name, Text(figure, justify="right"), promised, Text("✓", "green") if holds else Text("✗", "red")
            )
        self.line()
        self._console.print(table)


def _list(milliseconds: Sequence[float]) -> str:
    return ", ".join(f"{ms:.0f}" for ms in milliseconds) or "not seen"
