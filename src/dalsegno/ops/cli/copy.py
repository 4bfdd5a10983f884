"""`dalsegno sessions copy`: a fleet's sessions go to another store while it serves."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from dalsegno.ops.copying import Tally
    from dalsegno.runtime.mover import Report

LINE_EVERY_SECONDS = 5.0


@click.command("copy")
@click.option("--from", "source", required=True, metavar="URL", help="The warm tier that the sessions are in.")
@click.option("--to", "target", required=True, metavar="URL", help="The warm tier that they are to live in.")
@click.option("--cold", metavar="URL", help="The cold tier of both. Default: the one that the source has by default.")
@click.option("--tenant", metavar="NAME", help="Only this tenant's sessions. Default: everybody's.")
@click.option("--follow", is_flag=True, help="Go on until no replica serves the source any more.")
@click.option("--dry-run", is_flag=True, help="Read everything, write nothing: what could be moved, what could not?")
@click.option("--patience", default="30s", show_default=True, metavar="DURATION", help="How long a turn may run on.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Sessions at once.")
@click.option("--from-name", default="", metavar="NAME", help="The source's name in the logs. Default: from its URL.")
@click.option("--to-name", default="", metavar="NAME", help="The destination's name. Default: from its URL.")
def copy_sessions(source: str, target: str, cold: str | None, *, follow: bool, dry_run: bool, **given: str) -> int:
    """Move sessions to another store, while both serve.

    Each session is sealed in the one store, copied as it is with its idempotency keys, settled in the other, and read
    back there. Until then it lives in the one, from then on in the other, and never in both: whoever asks the wrong one
    is answered 503 and comes again. A turn that runs for longer than --patience is cut off, and goes on in the other
    store from its last recorded step. Nothing is removed from the source.

    Interrupted, run it again: it goes on. Sessions that were moved are compared, once a run. Later the same command in
    the other direction brings them back.

    Both stores must have the same cold tier (--cold): artifacts are not copied. While sessions move, replicas of the
    destination must run with --settling.

    Exit code 1 if a session could not be moved, or is not the same in the destination.

    \b
      dalsegno sessions copy --from sqlite:///.dalsegno/sessions.db --to postgresql://user@host/name --dry-run
      dalsegno sessions copy --from sqlite:///.dalsegno/sessions.db --to postgresql://user@host/name --follow
    """
    from dalsegno.ops import screen
    from dalsegno.ops.config import Reach, environment, resolve
    from dalsegno.ops.copying import Stores, Tally, copy
    from dalsegno.ops.units import parse_duration
    from dalsegno.runtime.removal import Plan

    until: Literal["look", "alone", "round"] = "look" if dry_run else "alone" if follow else "round"
    plan = Plan(given["tenant"], int(given["concurrency"]), parse_duration(given["patience"]), until)
    stores = Stores(
        warm=source,
        target=target,
        cold=resolve(Reach, {"cold": cold}, environment()).cold,
        origin=given["from_name"],
        to=given["to_name"],
    )
    tally, began = Tally(), time.monotonic()
    with _progress(tally) as told:
        asyncio.run(copy(stores, plan, told=told))
    seconds = time.monotonic() - began
    screen.show(screen.tally_table(tally.sessions, tally.events, tally.bytes, seconds, verified=tally.verified))
    return 1 if tally.sessions["failed"] else 0


@contextmanager
def _progress(tally: "Tally") -> Iterator[Callable[["Report"], None]]:
    """Counts what is told; failures are lines, the rest a bar on a terminal and a line now and then elsewhere."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console, last = Console(stderr=True, highlight=False, markup=False, emoji=False), time.monotonic()
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
    )
    task = bar.add_task("nothing yet", total=None)

    def told(report: "Report") -> None:
        nonlocal last
        tally.note(report)
        if report.what == "failed":
            click.echo(f"session {report.ref.id} of {report.ref.tenant}: {report.detail}", err=True)
        said = f"{tally.sessions.total()} sessions, {tally.sessions['failed']} failed"
        bar.update(task, description=said)
        if not console.is_terminal and time.monotonic() - last > LINE_EVERY_SECONDS:
            last = time.monotonic()
            click.echo(said, err=True)

    if console.is_terminal:
        with bar:
            yield told
    else:
        yield told
    sys.stderr.flush()
