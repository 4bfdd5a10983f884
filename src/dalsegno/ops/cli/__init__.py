"""The command line: every command, what its help teaches, and how errors end: 0 done, 1 failed, 2 usage.

Commands live in the modules beside this one and load what they need when they run, so that `--help` answers at once.
"""

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from types import TracebackType

import click

from dalsegno.errors import ConfigError, DalsegnoError
from dalsegno.ops.cli.check import check
from dalsegno.ops.cli.demo import demo
from dalsegno.ops.cli.doctor import doctor, migrate
from dalsegno.ops.cli.serve import serve
from dalsegno.ops.cli.sessions import sessions
from dalsegno.ops.cli.shell import completion
from dalsegno.ops.logs import last_words
from dalsegno.ops.version import VERSION

NAME = "dalsegno"
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=CONTEXT, no_args_is_help=True)
@click.version_option(VERSION, prog_name=NAME)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Run any Python agent on any number of identical replicas.

    Any replica continues any session, in the middle of a turn, after any crash, without losing a message, repeating an
    effect or breaking a stream.

    \b
    See it happen:        dalsegno demo
    Serve your function:  dalsegno serve agent.py:answer --replicas 3
    Look at sessions:     dalsegno sessions list
    """
    if not debug:
        sys.excepthook = brief


for command in (serve, demo, check, sessions, migrate, doctor, completion):
    main.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Carry out a command line; the exit code. Whatever goes wrong is one line that says what to do."""
    if isinstance(sys.stdout, TextIOWrapper):  # what a terminal cannot show is no reason to show nothing
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        result = main.main(args=list(arguments), prog_name=NAME, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return fail("interrupted")
    except ConfigError as error:
        return fail(str(error), code=2)
    except (DalsegnoError, ImportError) as error:
        return fail(str(error))
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
    return result if isinstance(result, int) else 0


def fail(message: str, *, code: int = 1) -> int:
    """Say what went wrong, on stderr; the exit code."""
    click.echo(f"{NAME}: {message}", err=True)
    return code


def brief(kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
    """What is shown of an error that nobody expected."""
    fail(f"{last_words(error)} ('dalsegno --debug …' shows the traceback)")
