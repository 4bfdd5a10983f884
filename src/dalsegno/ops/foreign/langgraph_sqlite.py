"""LangGraph's checkpoints in a SQLite file, read through `langgraph-checkpoint-sqlite`."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from langgraph.checkpoint.sqlite import SqliteSaver

from dalsegno.errors import ConfigError
from dalsegno.ops.foreign.langgraph import THREADS, Checkpoints
from dalsegno.ops.foreign.sqlite import read_only


@contextmanager
def opened(url: str) -> Iterator[Checkpoints]:
    """The checkpoints of that file. Raises `ConfigError` where there are none."""
    with closing(read_only(url)) as connection:
        try:
            connection.execute(THREADS)
            saver = SqliteSaver(connection)
            saver.setup()  # of a file that has its tables it changes nothing
        except sqlite3.Error as error:
            raise ConfigError(f"{url} cannot be read as LangGraph's checkpoints: {error}") from error
        yield Checkpoints(saver, connection)
