"""What statements of the SQLite store read: rows by index, as many as are asked for, whatever else there is."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dalsegno.ports import Member
from dalsegno.stores import sqlfile
from dalsegno.stores.sqlite import SqliteLog
from dalsegno.stores.sqlite.file import clock_ms, prepare

# Tables that hold a row for each replica, or a version; and the migrations.
SMALL = ("dalsegno_replica", "dalsegno_schema")

CASES = [
    (product, name)
    for product in ("sqlite", "sqlite_hot")
    for name in sorted(sqlfile.statements(product))
    if not name.startswith(("schema_", "version_"))
]


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[[str], sqlite3.Connection]:
    def prepared(product: str) -> sqlite3.Connection:
        path = tmp_path / f"{product}.db"
        prepare(path, product=product)
        return sqlite3.connect(path, isolation_level=None)

    return prepared


@pytest.mark.parametrize(("product", "name"), CASES, ids=lambda word: word)
def test_no_statement_reads_a_whole_table(prepared: Callable[[str], sqlite3.Connection], product: str, name: str):
    """Except tables that hold one row for each replica."""
    statement = sqlfile.statements(product)[name]
    with closing(prepared(product)) as raw:
        raw.set_authorizer(None)
        values: Any = dict.fromkeys(_named(statement), 1) or (1,) * statement.count("?")
        plan = [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    scans = [step for step in plan if step.startswith("SCAN dalsegno_") and not step.startswith(tuple(_scan(SMALL)))]
    assert [step for step in scans if "USING" not in step] == [], plan
    assert [step for step in scans if "dalsegno_event" in step] == [], plan


def _named(statement: str) -> list[str]:
    names = ("owner", "chances", "clock", "now", "limit", "ttl", "incarnation", "id", "pid", "url", "expires")
    return [name for name in names if f":{name}" in statement]


def _scan(tables: tuple[str, ...]) -> list[str]:
    return [f"SCAN {table}" for table in tables]


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "log.db"
    log = await SqliteLog.open(path)
    await log.join(Member("alive", "a"), ttl=timedelta(minutes=5))
    yield path
    await log.close()


def _steps(path: Path, *, free: int, held: int, waiting: int) -> int:
    """How many of SQLite's steps a claim of ten takes beside so many other sessions."""
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("BEGIN")
        raw.execute("DELETE FROM dalsegno_session")
        add = (
            "INSERT INTO dalsegno_session (tenant, id, head, epoch, owner, attempt, ready_at, since, status) "
            "VALUES ('t', ?, 1, 1, ?, 1, ?, ?, 1)"
        )
        rows = [
            *((f"f{n}", None, 0, n) for n in range(free)),
            *((f"h{n}", "alive", 0, n) for n in range(held)),
            *((f"w{n}", None, 2**60, n) for n in range(waiting)),
            *((f"i{n}", None, None, n) for n in range(free)),
            *((f"d{n}", "dead", 0, n) for n in range(20)),
        ]
        raw.executemany(add, rows)
        raw.execute("COMMIT")
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        raw.set_progress_handler(step, 1)
        moment = {"owner": "alive", "now": 1_800_000_000_000, "clock": clock_ms(), "limit": 10, "chances": 1}
        found = raw.execute(sqlfile.statements("sqlite")["claimable"], moment).fetchall()
        raw.set_progress_handler(None, 0)
        assert len(found) == 10
        return count


async def test_a_claim_reads_what_it_takes_and_not_the_backlog(path: Path):
    """A hundred times as many sessions, free, held by the living or waiting, make a claim no dearer."""
    few = _steps(path, free=50, held=50, waiting=50)
    many = _steps(path, free=5000, held=5000, waiting=5000)
    assert many < few * 1.2, (few, many)


def _steps_to_unerased(path: Path, *, others: int) -> int:
    """How many of SQLite's steps it takes to name three unerased sessions beside so many living and erased ones."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    add = (
        "INSERT INTO dalsegno_session (tenant, id, head, epoch, attempt, since, status) VALUES ('t', ?, 1, 1, 0, 0, ?)"
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("BEGIN")
        raw.execute("DELETE FROM dalsegno_session")
        raw.executemany(add, [(f"s{n}", 4 * (n % 2)) for n in range(others)])
        raw.executemany(add, [(f"d{n}", 3) for n in range(3)])
        raw.execute("COMMIT")
        raw.set_progress_handler(step, 1)
        found = raw.execute(sqlfile.statements("sqlite")["session_unerased"], ("", "", 10)).fetchall()
        raw.set_progress_handler(None, 0)
    assert len(found) == 3
    return count


async def test_looking_for_the_unerased_costs_nothing_where_there_are_none(path: Path):
    """Neither the living sessions nor the tombstones are read."""
    assert _steps_to_unerased(path, others=10_000) == _steps_to_unerased(path, others=10)
