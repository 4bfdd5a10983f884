"""Brings a database up to date: numbered scripts, applied once each, by one replica at a time.

Two phases. `schema_0001.sql` … run when a replica starts: whatever they change, the release before goes on working.
`tidy_0001.sql` … run when an operator says so (`dalsegno migrate`), once every replica is of the new release.
"""

from dataclasses import replace
from typing import Any, Literal

import psycopg

from dalsegno.errors import ConfigError
from dalsegno.stores import sqlfile
from dalsegno.stores.postgres.failure import at_start
from dalsegno.stores.postgres.place import Place, place_of

SCHEMA_KNOWN = 1
Product = Literal["postgres", "postgres_hot"]
"""The log, and the hot tier beside it: each with scripts and versions of its own."""
Phase = Literal["schema", "tidy"]


async def migrate(place: Place, *, product: Product = "postgres", phase: Phase = "schema") -> Place:
    """Apply what has not been applied yet. Any number of processes may do so at once.

    Returns the place, `pooled` if a pooler was found in front of it. Raises `ConfigError` or `Unavailable`.
    """
    try:
        # Without settings of ours: a pooler refuses what it cannot keep.
        async with await psycopg.AsyncConnection.connect(**_plain(place), prepare_threshold=None) as connection:
            row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
            assert row is not None
            behind_pooler = place.pooled or row[0] != connection.pgconn.backend_pid
            await _migrate(connection, product, phase)
    except psycopg.Error as error:
        raise at_start(error) from error
    return replace(place, pooled=behind_pooler)


async def tidy(url: str) -> None:
    """Remove what only the release before needed. Raises `ConfigError` or `Unavailable`."""
    await migrate(place_of(url), phase="tidy")


async def _migrate(connection: psycopg.AsyncConnection[Any], product: Product, phase: Phase) -> None:
    sql, scripts = sqlfile.statements(product), sqlfile.migrations(product, phase)
    if await _version(connection, product, phase) >= max((number for number, _ in scripts), default=0):
        return
    await connection.execute(sql["version_lock"])
    version = await _version(connection, product, phase)
    for number, script in scripts:
        if number > version:
            await connection.execute(script)


async def _version(connection: psycopg.AsyncConnection[Any], product: Product, phase: Phase) -> int:
    sql = sqlfile.statements(product)
    found = await (await connection.execute(sql["version_find"])).fetchone()
    if found is None or not found[0]:
        return 0
    row = await (await connection.execute(sql["version_read"], {"phase": phase})).fetchone()
    assert row is not None
    version, readable_by = row
    if readable_by > SCHEMA_KNOWN:
        raise ConfigError(f"the database has schema {version}, newer than this Dalsegno, which knows {SCHEMA_KNOWN}")
    number: int = version
    return number


def _plain(place: Place) -> dict[str, Any]:
    return dict(place.parameters)
