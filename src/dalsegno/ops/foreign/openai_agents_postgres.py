"""Sessions of the OpenAI Agents SDK's `SQLAlchemySession` in PostgreSQL."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import psycopg

from dalsegno.errors import ConfigError
from dalsegno.ops.config import redacted
from dalsegno.ops.foreign.openai_agents import Sessions, checked


@contextmanager
def opened(url: str) -> Iterator[Sessions]:
    """The sessions of that database. Raises `ConfigError` where there are none."""
    try:
        connection = psycopg.connect(url, autocommit=True)
    except psycopg.Error as error:
        raise ConfigError(f"{redacted(url)} cannot be read: {str(error).splitlines()[0]}") from error

    def ask(statement: str, parameters: Sequence[object] = ()) -> Sequence[Sequence[Any]]:
        try:
            return connection.execute(cast(Any, statement), parameters).fetchall()
        except psycopg.errors.UndefinedTable as error:
            raise LookupError(str(error)) from error

    with connection:
        connection.execute("SET default_transaction_read_only = on")
        yield checked(Sessions(ask, mark="%s"), ask, redacted(url))
