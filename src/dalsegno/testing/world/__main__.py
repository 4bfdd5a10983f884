"""`python -m dalsegno.testing.world --seed N`: live through one seed again and read what happened."""

import sys
import time
from collections import Counter

import click

from dalsegno.testing.world.world import run_seed


@click.command()
@click.option("--seed", type=int, default=0, help="The world to run, or the first of several.")
@click.option("--count", type=int, default=1, help="How many seeds to run; the trace is shown for one only.")
@click.option("--quiet", is_flag=True, help="No trace.")
def main(seed: int, count: int, quiet: bool) -> None:
    """Run simulated worlds and say which promises were broken."""
    started, happened, done, failed = time.perf_counter(), Counter[str](), Counter[str](), 0
    for number in range(seed, seed + count):
        verdict = run_seed(number)
        happened += verdict.happened
        done += verdict.done
        if count == 1 and not quiet:
            for line in verdict.lines:
                click.echo("  ".join(str(part) for part in line))
        for text in verdict.broken:
            click.echo(f"seed {number}: {text}")
        failed += bool(verdict.broken)
    seconds = time.perf_counter() - started
    click.echo(
        f"{count} worlds, {failed} broken, {sum(happened.values())} faults, {count / seconds:.1f} worlds a second"
    )
    for kind, times in (*sorted(happened.items()), *sorted(done.items())):
        click.echo(f"  {times:6d} {kind}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
