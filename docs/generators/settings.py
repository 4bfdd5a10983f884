"""The reference of configuration: the settings that `ops.config` resolves."""

import msgspec

from dalsegno import stores
from dalsegno.ops.config import Config, Reach, Setting, settings
from generators.markdown import table

HEAD = """\
# Configuration

Options win over the environment, the environment over defaults. An empty variable is one that is not set.
An unknown `DALSEGNO_*` variable is an error: a typo does not run with a default.
Durations are written `500ms`, `5s`, `1m30s`; sizes `65536`, `64KB`, `1MiB`.

Three URLs choose the tiers. With none of them set, sessions are in `.dalsegno/sessions.db` of the working directory
and large payloads in a directory beside it.
"""


def _tiers() -> str:
    """Which URLs there are, as the stores know them."""
    known = (("warm", stores.WARM, ""), ("hot", stores.HOT, "the warm tier's"), ("cold", stores.COLD, "a directory"))
    rows = [
        [tier, ", ".join(f"`{url}`" for url in urls) + (f"; left out, {default}" if default else "")]
        for tier, urls, default in known
    ]
    more = (
        "With `rediss` in place of `redis` connections use TLS. Options of Redis's URLs: `?namespace=name`, and for the"
    )
    return f"{table(('tier', 'URLs'), rows)}\n{more} log `?retention=30d`, `?wait=1`.\n"


def page() -> str:
    """The whole page."""
    return "\n".join(
        (HEAD, _tiers(), "## `dalsegno serve`\n", _table(Config), "## `dalsegno sessions`\n", _table(Reach)),
    )


def _table(kind: type[msgspec.Struct]) -> str:
    return table(("option", "variable", "value", "default", "says"), map(_row, settings(kind)))


def _row(setting: Setting) -> tuple[str, str, str, str, str]:
    default = f"`{setting.default_text}`" if setting.default_text else ""
    return f"`{setting.flag}`", f"`{setting.variable}`", setting.metavar, default, setting.help
