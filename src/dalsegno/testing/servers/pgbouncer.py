"""A private PgBouncer in transaction mode before a PostgreSQL server, for tests. There is no wheel of it: it is the
`pgbouncer` that somebody named, or that is on `PATH`.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from dalsegno.testing.servers.postgres import Postgres
from dalsegno.testing.servers.process import Process, free_port, program, unprivileged

SETTINGS = """
[databases]
* = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 5
max_client_conn = 500
"""


def preferred(named: str | None = None) -> Path:
    """The program. Raises `ConfigError` where there is none."""
    return program("pgbouncer", named=named)


class PgBouncer:
    """A pooler. `url` is the way through it."""

    def __init__(self, pooler: Path, folder: Path, *, server: Postgres) -> None:
        self.port = free_port()
        self._server = server
        settings = folder / "pgbouncer.ini"
        settings.write_text(SETTINGS.format(server=server.port, port=self.port))
        user = unprivileged(folder)
        self.process = Process([pooler, settings], folder=folder, ready=self._answers, user=user)

    def url(self, database: str) -> str:
        """The same database, through the pooler."""
        return database.replace(f":{self._server.port}/", f":{self.port}/")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(self._server.url()), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running(server: Postgres, pooler: Path | None = None) -> Iterator[PgBouncer]:
    """A pooler before that server, gone with the context."""
    folder = Path(tempfile.mkdtemp(prefix="dalsegno-pgbouncer-"))
    try:
        made = PgBouncer(pooler or preferred(), folder, server=server)
        made.process.start()
        try:
            yield made
        finally:
            made.process.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
