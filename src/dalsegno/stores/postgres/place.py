"""Where a server is and how its connections are made: URL, time limits, planner, pooler. Knows no table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dalsegno.errors import ConfigError

STATEMENT_SECONDS = 10
LOCK_SECONDS = 2
IDLE_SECONDS = 2
"""How long a transaction of ours may think. One of a replica that stopped or vanished keeps its rows no longer; the
transactions of tools have a limit of their own.
"""
CONNECT_SECONDS = 5
SILENCE_SECONDS = 10
ANSWER_SECONDS = STATEMENT_SECONDS + 2
"""When a server that should have given up has not answered, its connection is cut."""

# A connection that nobody answers on is noticed by the system, in either direction.
CONNECTION: Mapping[str, str] = {
    "connect_timeout": str(CONNECT_SECONDS),
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": str(SILENCE_SECONDS * 1000),
    "application_name": "dalsegno",
    "target_session_attrs": "read-write",
}
# Every statement of ours reads rows by index, whatever the statistics say: a plan that was made for an empty table
# would be kept while it grows.
SETTINGS = {
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
    "client_connection_check_interval": "1s",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


@dataclass(frozen=True)
class Place:
    """A database. `pooled`: connections go through a pooler that gives each transaction another session of the server,
    so that nothing may be left in a session: no settings, no prepared statements, no locks.
    """

    parameters: Mapping[str, str] = field(repr=False)
    pooled: bool = False
    settings: Mapping[str, str] = field(default_factory=SETTINGS.copy)

    def connection(self) -> dict[str, str]:
        """The parameters of a connection."""
        if self.pooled:
            return dict(self.parameters)
        settings = " ".join(f"-c {name}={value}" for name, value in self.settings.items())
        given = self.parameters.get("options", "")
        return {**self.parameters, "options": f"{settings} {given}".strip()}


def place_of(url: str) -> Place:
    """The place that a `postgresql:` URL names; `?pooler=transaction` says that a pooler stands in front of it."""
    address, _, query = url.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    pooler = options.pop("pooler", "")
    if pooler not in ("", "transaction"):
        raise ConfigError(f"pooler={pooler!r} is not known: write pooler=transaction, or leave it out")
    if options:
        address += "?" + urlencode(options, quote_via=quote)
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(address).items() if value is not None}
    except psycopg.ProgrammingError:
        # What libpq says quotes the URL, which holds a password.
        raise ConfigError("the URL of the database cannot be understood: write postgresql://user@host/name") from None
    return Place({**CONNECTION, **given}, pooled=pooler == "transaction")
