"""`dalsegno demo`: see for yourself."""

import click


@click.command()
@click.option("--serve", "stay", is_flag=True, help="Keep the fleet running afterwards, and say what to try.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="Default: 8000 with --serve, else any.")
def demo(stay: bool, port: int | None) -> int:
    """Watch a fleet being hurt while it answers.

    Starts three replicas on a temporary store, with a built-in agent that needs no network; talks to them; kills the
    replica that is answering with kill -9, first in the middle of a sentence, then in the middle of a tool call; and
    shows the same stream going on from another one. Ends with a table of what was observed. Exit code 0 only if no
    message was lost, no effect doubled and no stream had a gap. Takes less than 30 s.

    \b
      dalsegno demo
      dalsegno demo --serve
    """
    from dalsegno.ops.config import environment, refuse_unknown
    from dalsegno.ops.demo.run import demonstrate

    refuse_unknown(environment())
    chosen = port if port is not None else (8000 if stay else 0)
    return demonstrate(port=chosen, then="stay" if stay else "leave")
