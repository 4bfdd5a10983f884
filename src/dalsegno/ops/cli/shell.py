"""`dalsegno completion`: the shell's own way to complete our commands."""

import click

from dalsegno.errors import ConfigError

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands and options.

    \b
    bash:  eval "$(dalsegno completion bash)"
    zsh:   eval "$(dalsegno completion zsh)"
    fish:  dalsegno completion fish | source
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise ConfigError(f"there is no completion for {shell}")
    click.echo(found(ctx.find_root().command, {}, "dalsegno", "_DALSEGNO_COMPLETE").source())
