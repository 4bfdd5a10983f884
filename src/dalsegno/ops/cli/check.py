"""`dalsegno doctor` and `dalsegno migrate`: is everything as a fleet needs it, and make it so."""

import click

from dalsegno.ops.cli.options import options
from dalsegno.ops.config import Config


@click.command()
@options(Config, "warm", "hot", "cold", "api_keys", "host", "insecure")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
def doctor(as_json: bool, **given: str | None) -> int:
    """Check every tier: reachable, versions, clock, conditional writes.

    Writes and removes what it needs in a tenant of its own. Exit code 1 if something is wrong; what only works worse
    than it should is named as degraded.

    \b
      dalsegno doctor
      dalsegno doctor --warm sqlite:////var/lib/app/sessions.db --json
    """
    return 0


@click.command()
@click.option("--phase", type=click.Choice(("pre", "post")), help="Only what comes before, or after, the new release.")
@options(Config, "warm")
def migrate(phase: str | None, **given: str | None) -> int:
    """Bring the warm tier's schema up to date.

    `--phase pre` makes what the new release needs and the old one does not mind: run it before the rollout. `--phase
    post` removes what only the old release needed: run it after. Without it, both.

    \b
      dalsegno migrate --phase pre --warm sqlite:////var/lib/app/sessions.db
    """
    return 0
