"""The stack that users run, private to one test module: PostgreSQL, Redis or Valkey, and S3, which is an *emulator*
here (moto). Its servers are real processes: they may be killed, paused and filled while a fleet runs on them.

Which: the programs that POSTGRES_PROGRAM and REDIS_PROGRAM name, or that are on PATH, else those out of wheels.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg

from dalsegno.testing.servers import postgres, redis
from dalsegno.testing.servers.objects import BUCKET, Objects, objects
from dalsegno.testing.servers.postgres import Postgres
from dalsegno.testing.servers.redis import Redis
from tests.acceptance import agents


@dataclass(frozen=True)
class Stack:
    """Three servers, for one fleet after another."""

    postgres: Postgres
    redis: Redis
    objects: Objects
    numbers: Iterator[int]

    @property
    def environment(self) -> Mapping[str, str]:
        """What replicas on it need to know beyond the URLs."""
        return {**self.objects.environment, agents.PARAMSTYLE: "format"}

    def database(self) -> str:
        """The URL of a new database, with a table of the tools' own in it."""
        url = self.postgres.database()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE bookings (label TEXT, key TEXT)")
        return url

    def options(self, database: str, *, hot_port: int | None = None) -> tuple[str, ...]:
        """The three URLs, for `serve`. `hot_port`: where something stands in front of the hot tier."""
        fleet = next(self.numbers)
        hot = f"redis://127.0.0.1:{hot_port or self.redis.port}/0?namespace=fleet{fleet}"
        return "--warm", database, "--hot", hot, "--cold", f"s3://{BUCKET}/fleet{fleet}"


@contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """The stack, until the context ends. What is missing here is an error, and no skip."""
    chosen = postgres.preferred(os.environ.get("POSTGRES_PROGRAM")), redis.preferred(os.environ.get("REDIS_PROGRAM"))
    with postgres.running(chosen[0]) as warm, redis.running(chosen[1]) as hot, objects(folder) as cold:
        yield Stack(warm, hot, cold, count(1))
