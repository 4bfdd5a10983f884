"""What statements of the PostgreSQL store read: rows by index, as many as are asked for, whatever else there is."""

import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from dalsegno.ports import Member
from dalsegno.stores import sqlfile
from dalsegno.stores.postgres import PostgresLog
from dalsegno.stores.postgres.arrays import Bodies, Numbers, adapted
from dalsegno.stores.postgres.rows import _EVENT, _KEY, _SESSION

# Tables that hold a row for each replica, or a version.
SMALL = {"dalsegno_replica", "dalsegno_schema"}
STATEMENTS = sqlfile.statements("postgres")
NAMES = [name for name in sorted(STATEMENTS) if not name.startswith(("schema_", "version_", "tool_", "replica_lock"))]
ARRAYS = {name: kind() for name, kind in (*_SESSION, *_EVENT, *_KEY)}
WAS = {
    name: b"a" if kind is Bodies else 1 if kind is Numbers else "a"
    for name, kind in _SESSION
    if name.startswith("was_") or name == "absent"
}
ID = "01990000-0000-7000-8000-000000000001"
VALUES: dict[str, Any] = {
    **dict.fromkeys(("n", "head", "epoch", "attempt", "ready_at", "since", "status", "limit", "after", "chances"), 1),
    **dict.fromkeys(("pid", "lock"), 1),
    **dict.fromkeys(("tenant", "owner", "incarnation", "url"), "a"),
    **dict.fromkeys(("user", "state", "digest", "shelf"), b"a"),
    **{name: value for name, value in ARRAYS.items() if name.startswith(("event_", "key_"))},
    "id": ID,
    "from": ID,
    "names": ["a"],
    "tenants": ["a"],
    "ids": [ID],
    "ttl": timedelta(seconds=1),
}


@pytest.fixture
async def raw(database: str) -> AsyncIterator[psycopg.Connection[Any]]:
    """A connection like the store's, to a database in which `alive` is alive."""
    log = await PostgresLog.open(database)
    await log.join(Member("alive", "a"), ttl=timedelta(minutes=5))
    parameters: dict[str, Any] = log._connections._place.connection()
    with psycopg.connect(**parameters, autocommit=True, context=adapted()) as raw:
        yield raw
    await log.close()


@pytest.mark.parametrize("name", NAMES)
async def test_no_statement_reads_a_whole_table(raw: psycopg.Connection[Any], name: str):
    """Except tables that hold one row for each replica. A plan for whatever values come, as the server keeps it."""
    values = {**VALUES, **ARRAYS} if name == "session_write" else {**VALUES, **WAS}
    if "ttl" in STATEMENTS[name]:
        values = {**values, "id": "a"}
    raw.execute("SET plan_cache_mode = force_generic_plan")
    ((plan,),) = raw.execute(f"EXPLAIN (FORMAT JSON) {STATEMENTS[name]}", values).fetchall()
    scans = [node for node in _nodes(plan[0]["Plan"]) if node["Node Type"] == "Seq Scan"]
    assert {node["Relation Name"] for node in scans} <= SMALL, plan
    for node in _nodes(plan[0]["Plan"]):
        if "Index" in node["Node Type"] and node.get("Relation Name", "").startswith("dalsegno_event"):
            assert "session" in node.get("Index Cond", ""), node


def _rows_read(raw: psycopg.Connection[Any], *, free: int, held: int, waiting: int, last: int = 0) -> int:
    """How many rows of sessions a claim of ten reads beside so many others."""
    raw.execute("TRUNCATE dalsegno_session")
    add = (
        "INSERT INTO dalsegno_session (tenant, id, head, epoch, owner, attempt, ready_at, since, status)"
        " SELECT 't', gen_random_uuid(), 1, 1, %s, %s, %s, g, 1 FROM generate_series(1, %s) AS g"
    )
    for owner, attempt, ready_at, count in (
        (None, 0, 0, free),
        ("alive", 1, 0, held),
        ("dead", 1, 0, 20),
        (None, 0, 2**45, waiting),
        (None, 0, None, waiting),
    ):
        raw.execute(add, (owner, attempt, ready_at, count))
    raw.execute("ANALYZE dalsegno_session")
    wanted = {"owner": "alive", "limit": 10, "chances": 1}
    explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {STATEMENTS['session_claim']}"
    ((plan,),) = raw.execute(explain, wanted).fetchall()
    return sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in _nodes(plan[0]["Plan"])
        if node.get("Relation Name") == "dalsegno_session"
    )


async def test_a_claim_reads_what_it_takes_and_not_the_backlog(raw: psycopg.Connection[Any]):
    """A hundred times as many sessions, free, held by the living or waiting, make a claim no dearer."""
    few = _rows_read(raw, free=50, held=50, waiting=50)
    many = _rows_read(raw, free=5000, held=5000, waiting=5000)
    assert 20 <= many <= few * 1.2, (few, many)


async def test_a_walk_reads_a_page_and_not_the_table(raw: psycopg.Connection[Any]):
    """Each page is a stretch of the primary key, wherever the walk is."""
    add = (
        "INSERT INTO dalsegno_session (tenant, id, head, epoch, attempt, since, status)"
        " SELECT 't', gen_random_uuid(), 1, 1, 0, 0, 0 FROM generate_series(1, 5000)"
    )
    raw.execute(add)
    raw.execute("ANALYZE dalsegno_session")
    for after in (0, 2500, 4990):
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {STATEMENTS['session_walk']}"
        ((plan,),) = raw.execute(explain, {"n": after, "limit": 100}).fetchall()
        (node,) = (node for node in _nodes(plan[0]["Plan"]) if "Relation Name" in node)
        assert node["Index Name"] == "dalsegno_session_pkey", node
        assert node["Actual Rows"] == min(100, 5000 - after), node


async def test_the_row_of_a_running_session_is_rewritten_in_place(raw: psycopg.Connection[Any], database: str):
    """Commits in the middle of a turn touch no index: the new version lies on the old one's page (HOT)."""
    indexed = raw.execute(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'dalsegno_session'::regclass"
    ).fetchall()
    words = {word for (definition,) in indexed for word in re.findall(r"\w+", definition.partition(" USING ")[2])}
    assert not words & {"head", "epoch", "state", "attempt"}, indexed


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
