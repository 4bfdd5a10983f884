"""`dalsegno check`: find what an agent keeps in its process, before a second replica does."""

import asyncio
import sys
from pathlib import Path

import click

file_name = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Find what an agent keeps in its process.")
@click.argument("target")
@click.option("--say", "words", multiple=True, metavar="TEXT", help="A message of the conversation; may be repeated.")
@click.option("--script", type=file_name, metavar="FILE", help="The conversation: a message or a JSON input a line.")
@click.option("--session", type=file_name, metavar="FILE", help="The conversation: that of an exported session.")
@click.option("--turns-only", is_flag=True, help="A fresh process for every turn, not for every step: faster.")
@click.option(
    "--model",
    type=click.Choice(("replay", "ask")),
    default="replay",
    show_default=True,
    help="After the first play, answer the model's HTTP requests from the record, or ask the model again.",
)
@click.option(
    "--effects",
    type=click.Choice(("replay", "run")),
    default="replay",
    show_default=True,
    help="After the first play, answer calls of tools that change the world from the record, or run these tools again.",
)
@click.option("--timeout", default="5m", show_default=True, metavar="DURATION", help="How long a turn may take.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(
    target: str,
    words: tuple[str, ...],
    script: Path | None,
    session: Path | None,
    turns_only: bool,
    model: str,
    effects: str,
    timeout: str,
    as_json: bool,
) -> int:
    """Find what an agent keeps in its process, before a second replica does.

    Plays a conversation with the agent that TARGET names, as `serve` takes it: once in one process, then again,
    answered from the record, with a fresh process for every turn and every step. Compares what the model was shown,
    what was said and what was done, and names what differed: globals of your modules that changed, files,
    variables, paths that a replay does not find again, tasks and threads that were left running.

    The first play is real: it asks the agent's model and runs its tools. The others take place without the model;
    functions of models and steps and `read` tools are run again, all other tools are not. Every process works on a
    copy of the current directory and has a directory for temporary files of its own.

    Exit code 0: nothing found, and something was compared. 1: something found, or nothing could be compared.

    \b
      dalsegno check agent.py:answer
      dalsegno check agent.py:answer --say "My name is Ada." --say "What is my name?"
      dalsegno sessions export 0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b > real.ndjson
      dalsegno check app.agents:support --session real.ndjson --json
    """
    from dalsegno.ops.check.conduct import Plan, conduct
    from dalsegno.ops.check.report import report
    from dalsegno.ops.check.script import DEFAULT, from_lines, from_session, from_words
    from dalsegno.ops.config import environment, refuse_unknown
    from dalsegno.ops.units import parse_duration

    if sum(map(bool, (words, script, session))) > 1:
        raise click.UsageError("one conversation: --say, --script or --session")
    refuse_unknown(environment())
    inputs = from_words(words or DEFAULT)
    if script is not None:
        inputs = from_lines(script)
    elif session is not None:
        inputs = from_session(session)
    plan = Plan(
        target=target,
        folder=Path.cwd(),
        inputs=inputs,
        stop="turn" if turns_only else "step",
        model="ask" if model == "ask" else "replay",
        effects="run" if effects == "run" else "replay",
        timeout_seconds=parse_duration(timeout).total_seconds(),
    )
    found = report(asyncio.run(conduct(plan, _progress)))
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(found).decode())
    else:
        from dalsegno.ops.check.show import page
        from dalsegno.ops.screen import show

        show(page(found, target=target))
    return 0 if found.clean else 1


def _progress(words: str) -> None:
    """Where it is, for somebody who waits."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{words} …", nl=False, err=True)
