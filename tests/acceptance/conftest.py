"""Fleets of real replicas on a store of their own, and the ledger of what they did to the world."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import pytest

from dalsegno.testing.fleet import Fleet
from tests.acceptance import ledger as ledgers
from tests.acceptance.ledger import Ledger

pytest.register_assert_rewrite("tests.acceptance.retail.judge")

ROOT = Path(__file__).resolve().parents[2]
TARGET = "tests.acceptance.agents:agent"

Serving: TypeAlias = Callable[..., Fleet]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """What the replicas of this test do to the world."""
    return Ledger(tmp_path / "ledger.ndjson")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The SQLite file of this test's fleet, with a table of the tools' own in it."""
    path = tmp_path / "warm.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE bookings (label TEXT, key TEXT)")
    return path


@pytest.fixture
def tiers(database: Path) -> tuple[str, ...]:
    """Where this test's fleet keeps what it knows, as options of `serve`."""
    return "--warm", f"sqlite:///{database}"


@pytest.fixture
def environment(ledger: Ledger) -> dict[str, str]:
    """What replicas inherit, and the way to this repository."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", ledgers.VARIABLE: str(ledger.path)}


@pytest.fixture
def serving(
    tmp_path: Path, tiers: tuple[str, ...], environment: dict[str, str], request: pytest.FixtureRequest
) -> Iterator[Serving]:
    """Make a fleet on this test's store; enter it to start it. What it logged is shown when the test fails."""
    made: list[Fleet] = []

    def make(*, replicas: int = 3, options: Sequence[str] = (), target: str = TARGET, **variables: str) -> Fleet:
        fleet = Fleet(
            target,
            folder=tmp_path,
            replicas=replicas,
            options=(*tiers, *options),
            environment={**environment, **variables},
        )
        made.append(fleet)
        return fleet

    yield make
    for fleet in made:
        for replica in fleet:
            request.node.add_report_section("call", f"log of {replica.name}", replica.tail())
