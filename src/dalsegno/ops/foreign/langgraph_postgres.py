"""LangGraph's checkpoints in PostgreSQL, read through `langgraph-checkpoint-postgres`."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.rows import dict_row

from dalsegno.errors import ConfigError
from dalsegno.ops.config import redacted
from dalsegno.ops.foreign.langgraph import THREADS, Checkpoints


@contextmanager
def opened(url: str) -> Iterator[Checkpoints]:
    """The checkpoints of that database. Raises `ConfigError` where there are none."""
    try:
        connection = psycopg.connect(url, autocommit=True, prepare_threshold=0, row_factory=dict_row)
    except psycopg.Error as error:
        raise ConfigError(f"{redacted(url)} cannot be read: {str(error).splitlines()[0]}") from error
    with connection:
        try:
            connection.execute("SET default_transaction_read_only = on")
            connection.execute(THREADS)
        except psycopg.Error as error:
            raise ConfigError(f"{redacted(url)} has no LangGraph checkpoints: {error}") from error
        yield Checkpoints(PostgresSaver(connection), connection)
