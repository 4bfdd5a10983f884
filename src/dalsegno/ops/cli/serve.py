"""`dalsegno serve`: one replica in this process, or a supervised fleet of them."""

import logging
import os
import sys

import click

from dalsegno.ops.cli.options import options
from dalsegno.ops.config import Config

log = logging.getLogger("dalsegno.serve")


@click.command()
@click.argument("target")
@options(Config)
def serve(target: str, **given: str | None) -> int:
    """Serve an agent over HTTP.

    TARGET names a Pydantic AI agent, an agent of the OpenAI Agents SDK, a compiled LangGraph graph, or a plain async
    function that takes the turn: `module:attr` or `file.py:attr`. It is imported from the current directory.

    \b
      dalsegno serve agent.py:answer
      dalsegno serve agent.py:answer --replicas 3 --port 8080
      dalsegno serve app.agents:support --warm sqlite:////var/lib/app/sessions.db

    Prints one line `ready http://HOST:PORT replica=ID pid=PID` for each replica when it can serve. SIGTERM and Ctrl-C
    drain: turns are handed over at their next step, streams are aborted so that clients resume elsewhere, exit code 0;
    a second one ends at once. With --replicas, SIGHUP restarts the replicas one after another.

    Every option has a variable, named in brackets; an option wins. Durations are 500ms, 5s, 2m; sizes 64KB, 1MiB.
    """
    from dalsegno.ops.config import environment, resolve
    from dalsegno.ops.guard import refuse_lost_payloads, refuse_open_door, refuse_split_fleet
    from dalsegno.ops.lifeline import Ready
    from dalsegno.ops.logs import log_to_stderr
    from dalsegno.ops.tiers import places

    def on_ready(ready: Ready) -> None:
        while notes:
            log.info("%s", notes.pop(0))
        _print(str(ready))

    config = resolve(Config, given, environment(), target=target)
    refuse_open_door(config)
    refuse_split_fleet(config)
    refuse_lost_payloads(config)
    name = config.replica_id if config.replicas == 1 else ""
    log_to_stderr(level=config.log_level, style=config.log_format, replica=name)
    notes = list(places(config, hot=config.hot).notes)
    if config.replicas > 1:
        import asyncio

        from dalsegno.ops.supervisor import supervise

        return asyncio.run(supervise(config, on_ready=on_ready))

    from dalsegno.ops.load import load
    from dalsegno.ops.serve import serve as serve_here

    serve_here(config, load(config.target, name=config.agent_name), announce=on_ready)
    return 0


def _print(line: str) -> None:
    """At once. Whoever read our stdout may have seen enough; that is no reason to stop serving."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
