"""Options made from the settings of `ops.config`: one list of names, bounds and help texts for flags and variables."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from dalsegno.ops.config import Setting, settings

F = TypeVar("F", bound=Callable[..., Any])


def options(kind: type[msgspec.Struct], *only: str) -> Callable[[F], F]:
    """Give a command every setting of `kind`, or those named, as text options; None = not given."""
    chosen = [setting for setting in settings(kind) if not only or setting.name in only]

    def decorate(command: F) -> F:
        for setting in reversed(chosen):
            command = _option(setting)(command)
        return command

    return decorate


def _option(setting: Setting) -> Callable[[F], F]:
    default = f", default {setting.default_text}" if setting.default_text else ""
    text = f"{setting.help}  [{setting.variable}{default}]"
    if setting.plain is bool:
        return click.option(
            setting.flag, setting.name, is_flag=True, flag_value="true", default=None, type=str, help=text
        )
    choices = getattr(setting.plain, "__args__", ()) if setting.metavar == "" else ()
    metavar = setting.metavar or "|".join(str(choice) for choice in choices)
    return click.option(setting.flag, setting.name, metavar=metavar, help=text)
