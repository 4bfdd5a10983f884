"""The harness's half of the protocol: environments, driver processes, and the stores they are given."""

import asyncio
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import venv
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, TextIO

import psycopg

from bench.peers.roster import Entry, Store
from dalsegno.testing.servers import postgres, redis
from dalsegno.testing.servers.postgres import Postgres
from dalsegno.testing.servers.redis import Redis

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".bench"
REQUIREMENTS = Path(__file__).parent / "requirements"
ANSWER_SECONDS = 300.0
SIZE = """
    SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""


class DriverError(Exception):
    """What a driver answered instead, or its death."""


def python_for(entry: Entry) -> Path:
    """The interpreter of the entry's environment, which is made on first use and again when its requirements change."""
    if entry.requirements is None:
        return Path(sys.executable)
    wanted = REQUIREMENTS / f"{entry.requirements}.txt"
    digest = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()[:8]
    folder = ENVIRONMENTS / f"{entry.requirements}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"installing {wanted.name} into {folder.relative_to(ROOT)} …", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-input", "-r", wanted], check=True)
        (folder / "complete").touch()
    return python


class Stores:
    """One PostgreSQL and one Redis for all, a database for each who asks; or a file."""

    def __init__(self, server: Postgres, cache: Redis | None, folder: Path) -> None:
        self.server = server
        self._cache = cache
        self._folder = folder
        self._files = 0

    def fresh(self, store: Store) -> str:
        """The URL of an empty one."""
        match store:
            case "postgres":
                return self.server.database()
            case "sqlite":
                self._files += 1
                return f"sqlite:////{self._folder}/{self._files}.db"
            case "redis":
                assert self._cache is not None
                self._cache.flush()
                return self._cache.url

    def drop(self, url: str) -> None:
        """It is not needed any more."""
        if url.startswith("postgresql:"):
            self.server.drop(url)

    def size(self, url: str) -> int:
        """Bytes of every table, index and long value; of the file; of every key. After a `VACUUM`, or its like."""
        if url.startswith("postgresql:"):
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("VACUUM")
                row = connection.execute(SIZE).fetchone()
                assert row is not None
                return int(row[0])
        if url.startswith("sqlite:"):
            with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
                file.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                (pages,), (page,) = (file.execute(f"PRAGMA page_{what}").fetchone() for what in ("count", "size"))
                return int(pages * page)
        assert self._cache is not None
        keys = self._cache.do("KEYS", "*")
        return sum(int(self._cache.do("MEMORY", "USAGE", key, "SAMPLES", "0")) for key in keys)

    def versions(self) -> dict[str, str]:
        """What the servers say they are."""
        with psycopg.connect(self.server.url()) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        found = {"PostgreSQL": str(row[0]).split()[0] if row else "", "SQLite": sqlite3.sqlite_version}
        if self._cache is None:
            return found
        product, _, version = self._cache.version.partition("-")
        return found | {product.capitalize(): version}


@contextmanager
def stores(*, cache: bool) -> Iterator[Stores]:
    """Servers that are gone with the context: as durable as they are delivered, and Redis as durable as it can be."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dalsegno-peers-")))
        server = stack.enter_context(postgres.running())
        found = None
        if cache:
            found = Redis(redis.preferred(), folder / "redis", "--appendonly", "yes", "--appendfsync", "always")
            found.process.start()
            stack.callback(found.process.stop)
        yield Stores(server, found, folder)


class Driver:
    """One process of a peer. It does one thing at a time, and says when it is done."""

    def __init__(self, entry: Entry, process: asyncio.subprocess.Process, errors: Path) -> None:
        self._entry = entry
        self._process = process
        self._errors = errors
        self.versions: dict[str, str] = {}

    async def ask(self, do: str, **given: Any) -> Any:
        """Its answer. Raises `DriverError`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **given}).encode() + b"\n")
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise DriverError(f"{self._entry.name} has died: {self._errors.read_text()[-2000:]}")
        said = json.loads(line)
        if "error" in said:
            raise DriverError(f"{self._entry.name}: {said['error']}")
        return said["ok"]

    async def died(self) -> None:
        """Return when it is dead."""
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._process.wait()

    async def stop(self) -> None:
        """No more questions: it lets go and ends; if it does not, it is killed."""
        if self._process.returncode is not None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def driver(
    entry: Entry, url: str, *, name: str = "one", options: dict[str, str] | None = None, book: str = "", dies: str = ""
) -> AsyncIterator[Driver]:
    """A process of that peer, connected; `dies` is the mark of the turn in whose tool it will kill itself."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dalsegno-driver-"))
        errors = Path(folder) / "errors"
        with _written(errors) as sink:
            process = await asyncio.create_subprocess_exec(
                python_for(entry),
                "-m",
                f"bench.peers.drivers.{entry.driver}",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=sink,
                cwd=ROOT,
                limit=1 << 26,
            )
        found = Driver(entry, process, errors)
        stack.push_async_callback(found.stop)
        chosen = entry.options if options is None else options
        found.versions = await found.ask("open", url=url, name=name, options=chosen, book=book, dies=dies)
        yield found


def _written(file: Path) -> TextIO:
    return file.open("w")
