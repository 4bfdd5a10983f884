"""The reference of configuration: the settings that `ops.config` resolves."""

import msgspec

from dalsegno.ops.config import Config, Reach, Setting, settings
from generators.markdown import table

HEAD = """\
# Configuration

Options win over the environment, the environment over defaults. An empty variable is one that is not set.
An unknown `DALSEGNO_*` variable is an error: a typo does not run with a default.
Durations are written `500ms`, `5s`, `1m30s`; sizes `65536`, `64KB`, `1MiB`.

Three URLs choose the tiers. With none of them set, sessions are in `.dalsegno/sessions.db` of the working directory
and large payloads in a directory beside it.

| tier | URLs of this release |
|---|---|
| warm | `sqlite:///relative.db`, `sqlite:////absolute.db`, `memory:` |
| hot | as the warm tier; left out, the warm tier's |
| cold | `file:///absolute/directory`, `memory:`; left out, a directory beside the SQLite file |
"""


def page() -> str:
    """The whole page."""
    return "\n".join(
        (HEAD, "## `dalsegno serve`\n", _table(Config), "## `dalsegno sessions`\n", _table(Reach)),
    )


def _table(kind: type[msgspec.Struct]) -> str:
    return table(("option", "variable", "value", "default", "says"), map(_row, settings(kind)))


def _row(setting: Setting) -> tuple[str, str, str, str, str]:
    default = f"`{setting.default_text}`" if setting.default_text else ""
    return f"`{setting.flag}`", f"`{setting.variable}`", setting.metavar, default, setting.help
