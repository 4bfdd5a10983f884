"""The reference of the command line: what `--help` says of every command."""

from collections.abc import Iterator

import click

from dalsegno.ops.cli import NAME, main

WIDTH = 110
HEAD = """\
# Command line

Exit codes: 0 done, 1 the thing asked for failed, 2 usage.
Every option is also a variable: see [configuration](configuration.md).
"""


def page() -> str:
    """The whole page."""
    root = click.Context(main, info_name=NAME, terminal_width=WIDTH, help_option_names=["-h", "--help"])
    return HEAD + "".join(_sections(main, root))


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"\n## {context.command_path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                inner = click.Context(found, parent=context, info_name=name, terminal_width=WIDTH)
                yield from _sections(found, inner)
