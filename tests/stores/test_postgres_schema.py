"""The schema: made by whoever comes first, the same for everybody who comes at the same time, refused when too new."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from dalsegno.errors import ConfigError
from dalsegno.stores.postgres import PostgresLog
from dalsegno.stores.postgres.place import place_of
from dalsegno.stores.postgres.schema import migrate
from dalsegno.testing.conformance.acts import accept, session

ROOT = Path(__file__).resolve().parent.parent.parent
OPEN_AND_SPEAK = """
import asyncio, sys
from dalsegno.stores.postgres import PostgresLog
from dalsegno.testing.conformance.acts import accept, session

async def main():
    log = await PostgresLog.open(sys.argv[1])
    await accept(log, session(int(sys.argv[2])))
    await log.close()

sys.stdin.read(1)
asyncio.run(main())
"""


def test_four_processes_start_on_an_empty_database_at_once(database: str):
    """One makes the schema, the others find it; each is served."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_SPEAK, database, str(number)], stdin=subprocess.PIPE, env=environment
        )
        for number in range(4)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"!")
        child.stdin.close()
    assert [child.wait(60) for child in children] == [0, 0, 0, 0]
    with psycopg.connect(database) as raw:
        assert raw.execute("SELECT phase, version, readable_by FROM dalsegno_schema").fetchall() == [("schema", 1, 1)]
        assert raw.execute("SELECT count(*) FROM dalsegno_session").fetchone() == (4,)


async def test_many_handles_start_on_an_empty_database_at_once(database: str):
    """The same within one process."""
    logs = await asyncio.gather(*(PostgresLog.open(database) for _ in range(8)))
    await asyncio.gather(*(accept(log, session()) for log in logs))
    for log in logs:
        await log.close()


async def test_a_database_of_a_later_version_is_used_while_it_can_be_read(database: str):
    """An old replica goes on beside a new one until the schema says that it must not."""
    await (await PostgresLog.open(database)).close()
    with psycopg.connect(database, autocommit=True) as raw:
        raw.execute("INSERT INTO dalsegno_schema VALUES ('schema', 7, 1)")
        log = await PostgresLog.open(database)
        await accept(log, session())
        await log.close()
        raw.execute("UPDATE dalsegno_schema SET readable_by = 7 WHERE version = 7")
    with pytest.raises(ConfigError, match="newer than this Dalsegno"):
        await PostgresLog.open(database)


async def test_what_an_operator_runs_later_has_nothing_to_do_yet(database: str):
    """The second phase is applied by `dalsegno migrate`; it never runs by itself."""
    for _ in range(2):
        await migrate(place_of(database), phase="tidy")
    await (await PostgresLog.open(database)).close()
