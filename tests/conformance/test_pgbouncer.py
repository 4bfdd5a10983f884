"""The PostgreSQL log through a real PgBouncer in transaction mode: the one on PATH, or that PGBOUNCER_PROGRAM names.

Without one, tests/conformance/test_postgres.py holds what `?pooler=transaction` does without a pooler.
"""

import os
import shutil
from collections.abc import AsyncIterator, Iterator

import pytest

from dalsegno.stores.postgres import PostgresLog
from dalsegno.testing.conformance import ClaimCases, LogCases, TransactionCases
from dalsegno.testing.servers import pgbouncer
from dalsegno.testing.servers.pgbouncer import PgBouncer
from dalsegno.testing.servers.postgres import Postgres
from tests.conformance.test_postgres import PooledWorld

NAMED = os.environ.get("PGBOUNCER_PROGRAM")

pytestmark = pytest.mark.skipif(
    not (NAMED or shutil.which("pgbouncer")), reason="there is no PgBouncer on PATH, and PGBOUNCER_PROGRAM names none"
)


@pytest.fixture(scope="module")
def pooler(server: Postgres) -> Iterator[PgBouncer]:
    with pgbouncer.running(server, pgbouncer.preferred(NAMED)) as pooler:
        yield pooler


class BouncedWorld(PooledWorld):
    """Every connection of the store goes through the pooler; the test's own do not."""

    def __init__(self, url: str, pooler: PgBouncer) -> None:
        super().__init__(url)
        self._pooler = pooler

    async def open(self) -> PostgresLog:
        log = await PostgresLog.open(f"{self._pooler.url(self._url)}?pooler=transaction")
        self._opened.append(log)
        return log


class Bounced:
    """Cases whose world is a `BouncedWorld`."""

    @pytest.fixture
    async def world(self, database: str, pooler: PgBouncer) -> AsyncIterator[BouncedWorld]:
        world = BouncedWorld(database, pooler)
        yield world
        await world.close()


class TestLog(Bounced, LogCases):
    pass


class TestClaims(Bounced, ClaimCases):
    pass


class TestTransactions(Bounced, TransactionCases):
    pass
