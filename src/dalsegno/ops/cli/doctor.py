"""`dalsegno doctor` and `dalsegno migrate`: is everything as a fleet needs it, and make it so."""

import asyncio
import json

import click

from dalsegno.ops.cli.options import options
from dalsegno.ops.config import Config, environment, redacted, resolve


@click.command(short_help="Say what is wrong with the tiers, if anything.")
@options(Config, "warm", "hot", "cold", "host", "api_keys", "insecure")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
def doctor(as_json: bool, **given: str | None) -> int:
    """Check every tier: reachable, versions, clock, and whether conditional writes are really honoured.

    What it needs to write it writes into a tenant of its own, and removes it; a file or folder that is not there is
    named, not made. Exit code 1 if something is wrong; what works, but not as well as it should, is degraded.

    \b
      dalsegno doctor
      dalsegno doctor --warm sqlite:////var/lib/app/sessions.db --json
    """
    from dalsegno.ops import doctor as practice
    from dalsegno.ops import screen
    from dalsegno.ops.tiers import places

    async def visit() -> list[practice.Finding]:
        return [finding async for finding in practice.examine(config, places(config, hot=config.hot))]

    config = resolve(Config, given, environment())
    findings = asyncio.run(visit())
    if as_json:
        for finding in findings:
            click.echo(json.dumps({"what": finding.what, "state": finding.state, "detail": finding.detail}))
    else:
        screen.show(screen.finding_table([(f.what, f.state, f.detail) for f in findings]))
    return 1 if any(finding.state == "wrong" for finding in findings) else 0


@click.command()
@click.option("--phase", type=click.Choice(("pre", "post")), help="Only what comes before, or after, the new release.")
@options(Config, "warm")
def migrate(phase: str | None, **given: str | None) -> None:
    """Bring the warm tier's schema up to date.

    `--phase pre` adds what the new release needs and the running one does not mind: before the rollout. `--phase post`
    removes what only the old release needed: after it. Without a phase, both. A SQLite file is brought up to date by
    whoever opens it, and never needs the second phase.

    \b
      dalsegno migrate --phase pre --warm sqlite:////var/lib/app/sessions.db
    """
    from dalsegno import stores
    from dalsegno.ops.tiers import places

    where = places(resolve(Config, given, environment()))
    if phase != "post":
        asyncio.run(stores.migrate(where.warm, phase="pre"))
        click.echo(f"{redacted(where.warm)}: the schema is up to date")
    if phase != "pre":
        asyncio.run(stores.migrate(where.warm, phase="post"))
    if phase == "post":
        click.echo(f"{redacted(where.warm)}: nothing is left to remove")
